"""Files of pictures as cameras and programs leave them: decoded right, or named and refused."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile, features
from pydantic import ValidationError

from vitkit.app.predictor import read_picture
from vitkit.data.check import check_data
from vitkit.data.config import ImageDataConfig
from vitkit.data.folder import FORMATS, SUFFIXES, find_images, open_picture
from vitkit.data.preprocess import Fit, Preprocessing, resize_images
from vitkit.data.sources import load_data
from vitkit.errors import DataError

Pixels = NDArray[np.uint8]
LIMIT = 10_000


def _colours() -> Pixels:
    """Eight plain squares of colours that JPEG keeps, in a picture that looks otherwise turned."""
    rows = [
        [(200, 30, 30), (30, 200, 30), (30, 30, 200)],
        [(220, 220, 220), (20, 20, 20), (0, 128, 128)],
    ]
    return np.array(rows, np.uint8).repeat(16, axis=0).repeat(16, axis=1)


def _read(path: Path) -> Pixels:
    """As training reads it, (height, width, 3); predicting must agree."""
    tensor = open_picture(path, 3, LIMIT)
    size = (int(tensor.shape[1]), int(tensor.shape[2]))
    same = Preprocessing(size, (0.5,) * 3, (0.5,) * 3)
    assert torch.equal(read_picture(path, same), tensor)
    return np.asarray(tensor.permute(1, 2, 0))


def _png(path: Path, width: int, height: int, depth: int, kind: int, rows: bytes) -> Path:
    """A PNG of a kind that Pillow cannot write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        summed = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", summed)

    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    return path


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"print.{suffix}"
    more: dict[str, Any] = {"quality": 100} if suffix == "jpg" else {}
    Image.fromarray(_colours()).convert("CMYK").save(path, **more)
    with Image.open(path) as picture:
        assert picture.mode == "CMYK"
    assert np.abs(_read(path).astype(int) - _colours()).max() <= 8  # 3 was seen


@pytest.mark.parametrize("suffix", ["png", "gif", "bmp"])
def test_palettes(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"few.{suffix}"
    Image.fromarray(_colours()).quantize(8).save(path)
    with Image.open(path) as picture:
        assert picture.mode == "P"
    assert np.abs(_read(path).astype(int) - _colours()).max() <= 2


def test_what_is_transparent_is_black(tmp_path: Path) -> None:
    solid = np.dstack([_colours(), np.full((32, 48), 255, np.uint8)])
    solid[:16, :16, 3] = 0
    wanted = _colours()
    wanted[:16, :16] = 0
    Image.fromarray(solid, "RGBA").save(tmp_path / "a.png")
    assert np.array_equal(_read(tmp_path / "a.png"), wanted)
    indexed = Image.fromarray(_colours()).quantize(8)
    indexed.info["transparency"] = indexed.getpixel((0, 0))
    indexed.save(tmp_path / "b.png", transparency=indexed.getpixel((0, 0)))
    assert np.abs(_read(tmp_path / "b.png").astype(int) - wanted).max() <= 2


def test_sixteen_bits(tmp_path: Path) -> None:
    grey = np.arange(32 * 48, dtype=np.uint16).reshape(32, 48) * 40
    wanted = np.round(grey / 257).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey).save(tmp_path / "grey.tif")
    for name in ("grey.png", "grey.tif"):
        assert np.array_equal(_read(tmp_path / name), wanted[:, :, None].repeat(3, 2))
    wide = (_colours().astype(">u2") * 257).reshape(32, -1)
    rows = b"".join(b"\0" + row.tobytes() for row in wide)
    path = _png(tmp_path / "colour.png", 48, 32, 16, 2, rows)
    assert np.array_equal(_read(path), _colours())


UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored.transpose(1, 0, 2), 2),
    8: np.rot90,
}
"""EXIF orientation -> what brings the stored rows upright."""


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_all_ways_to_hold_a_camera(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(_colours()).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(_read(tmp_path / "a.png"), UPRIGHT[orientation](_colours()))


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_of_an_animation_the_first_frame(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (24, 16), colour) for colour in ("red", "lime", "blue")]
    more: dict[str, Any] = {"lossless": True} if suffix == "webp" else {}
    path = tmp_path / f"a.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], **more)
    with Image.open(path) as picture:
        assert getattr(picture, "n_frames", 1) == 3
    assert (_read(path) == (255, 0, 0)).all()


def test_every_suffix_stands_for_a_format_that_is_read() -> None:
    known = Image.registered_extensions()
    assert {known[suffix] for suffix in SUFFIXES} <= set(FORMATS)


@pytest.mark.skipif(not features.check("avif"), reason="a Pillow without AVIF")
def test_avif_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.avif"
    Image.fromarray(_colours()).save(path, quality=100)
    assert np.abs(_read(path).astype(int) - _colours()).mean() <= 8


@pytest.mark.parametrize("kind", ["EPS", "PCX", "SGI"])
def test_other_formats_are_refused_whatever_the_suffix_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(_colours()).save(path, format=kind)
    with Image.open(path) as picture:
        assert picture.format == kind  # Pillow would read it

    def refuse(picture: ImageFile.ImageFile) -> None:
        pytest.fail(f"{picture.format} was decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", refuse)
    said = r"a\.jpg: no readable picture \(read are PNG, JPEG, .*\)$"
    with pytest.raises(DataError, match=said):
        open_picture(path, 3, LIMIT)
    with pytest.raises(DataError, match=said):
        read_picture(path, Preprocessing((8, 8), (0.5,) * 3, (0.5,) * 3))


def _unless_vast(picture: ImageFile.ImageFile) -> Any:
    """Decode a picture, but not one of minutes and 10 GB."""
    if picture.width * picture.height > 10**9:
        pytest.fail(f"{picture.filename!r} was decoded")
    return DECODE(picture)


DECODE = ImageFile.ImageFile.load


def test_a_few_bytes_that_claim_gigapixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for number in range(12):
            Image.fromarray(_colours()).save(tmp_path / label / f"{number}.png")
    bomb = _png(tmp_path / "dog" / "bomb.png", 60_000, 60_000, 8, 2, b"\0" * 100_000)
    assert bomb.stat().st_size < 1000
    (tmp_path / "cat" / "none.jpg").touch()
    monkeypatch.setattr(ImageFile.ImageFile, "load", _unless_vast)
    with pytest.raises(ValidationError, match="less than or equal to 178956970"):
        ImageDataConfig(name="image_folder", max_pixels=10**12)  # Pillow would not read them
    for limit in (89_478_485, 178_956_970):  # Pillow's own limit holds where ours is raised
        config = ImageDataConfig(
            name="image_folder", root=str(tmp_path), img_size=8, max_pixels=limit
        )
        with pytest.raises(DataError, match=r"2 damaged images") as told:
            load_data(config)
        assert "bomb.png: Image size (3600000000 pixels) exceeds limit" in str(told.value)
        assert "none.jpg: empty file" in str(told.value)
    found = {bad.path.name: bad.reason for bad in check_data(config).damaged}
    assert set(found) == {"bomb.png", "none.jpg"}
    with pytest.raises(DataError, match=r"cannot read the picture .*bomb\.png.*exceeds limit"):
        read_picture(bomb, Preprocessing((8, 8), (0.5,) * 3, (0.5,) * 3))
    with pytest.raises(DataError, match=r"cannot read the picture .*none\.jpg"):
        read_picture(tmp_path / "cat" / "none.jpg", Preprocessing((8, 8), (0.5,) * 3, (0.5,) * 3))


def _classes(root: Path) -> Path:
    for label in ("cat", "dog", "owl"):
        (root / label).mkdir(parents=True)
        Image.fromarray(_colours()).save(root / label / "0.png")
    return root


def test_a_file_of_labels_may_lie_beside_the_classes(tmp_path: Path) -> None:
    """It changes nothing, whatever its order: else another order would be another test set."""
    root = _classes(tmp_path)
    plain = find_images(root)
    assert plain[0] == ["cat", "dog", "owl"]
    (root / "labels.txt").write_text("owl\ncat\n\ndog\n")
    assert find_images(root) == plain


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"cat\ndog\n", "lacks 'owl', unlike the folders"),
        (b"cat\ndog\nowl\nbat\n", "lists 'bat', unlike the folders"),
        (b"cat\ndog\nowls\n", "lists 'owls' and lacks 'owl'"),
        (b"\xff\xfe\x00cat", "is no text in UTF-8"),
        (b"", "lacks 'cat'"),
    ],
)
def test_a_file_of_other_labels_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (_classes(tmp_path) / "labels.txt").write_bytes(content)
    with pytest.raises(DataError, match=said) as told:
        find_images(tmp_path)
    assert "labels.txt" in str(told.value) and "\n" not in str(told.value)


def test_a_strip_does_not_fill_the_memory() -> None:
    """One pixel by 60,000 would be 3,000 million before the centre is cut out."""
    strip = torch.zeros(3, 1, 60_000, dtype=torch.uint8)
    strip[:, :, 29_990:30_010] = 200
    assert Fit((224, 224))(strip).float().mean() == 200
    # What is not that thin is resized whole, and a thinner one shows the same centre.
    wave = (127 + 120 * torch.linspace(0, 60, 640).sin()).round().byte().expand(3, 10, 640)
    whole = resize_images(wave[None], (32, 2048))[0][:, :, 1008:1040]
    fitted = Fit((32, 32))(wave)
    assert (fitted.int() - whole.int()).abs().max() <= 2
    assert torch.equal(
        Fit((32, 32))(wave[:, :, :160]),
        resize_images(wave[None, :, :, :160], (32, 512))[0][:, :, 240:272],
    )
