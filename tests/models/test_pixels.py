"""An image read as a text: which words it becomes, and that all of them are read."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vitkit.models import PixelTextClassifier, VisionTransformer, create_model


def unit(images: Tensor) -> Tensor:
    """uint8 to [0, 1] as a preprocessing of mean 0 and standard deviation 1 does it."""
    return images.float() * torch.tensor(1 / 255)


def all_levels() -> Tensor:
    return torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)


def test_grey_levels_are_the_words() -> None:
    model = PixelTextClassifier(16, in_chans=1)
    assert torch.equal(model.words_of(unit(all_levels())), torch.arange(256)[None])


def test_grey_of_equal_channels_is_that_level() -> None:
    model = PixelTextClassifier(16, in_chans=3)
    ids = model.words_of(unit(all_levels().expand(1, 3, 16, 16)))
    # The luma weights sum to 0.9999.
    assert torch.equal(ids, torch.arange(256)[None])


def test_grey_of_pure_colours() -> None:
    model = PixelTextClassifier((1, 3), in_chans=3)
    images = torch.eye(3)[None, :, None, :]
    assert model.words_of(images).tolist() == [[76, 150, 29]]  # the known luma bytes
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model.words_of(images).tolist() == [[76, 150, 29]]


def test_grey_levels_need_no_numbers_from_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """An accelerator would wait for them, at each step."""
    images = torch.rand(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    shares = torch.tensor([0.2989, 0.587, 0.114])
    wanted = ((images * shares[:, None, None]).sum(1) * 255).round().long().flatten(1)
    model = PixelTextClassifier(5, in_chans=3)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "tensor", None)
        found = model.words_of(images)
    assert torch.equal(found, wanted)


def test_rgb_is_three_words_a_pixel_in_reading_order() -> None:
    model = PixelTextClassifier((2, 3), color="rgb")
    images = torch.randint(0, 256, (2, 3, 2, 3), dtype=torch.uint8)
    ids = model.words_of(unit(images))
    assert ids.shape == (2, 18)
    expected = [
        256 * c + int(images[1, c, y, x]) for y in range(2) for x in range(3) for c in range(3)
    ]
    assert ids[1].tolist() == expected


def test_palette_has_256_colours_and_keeps_its_own() -> None:
    levels = [torch.linspace(0, 1, count) for count in (8, 8, 4)]
    colours = torch.cartesian_prod(*levels).T.reshape(1, 3, 16, 16)
    model = PixelTextClassifier(16, color="palette")
    assert torch.equal(model.words_of(colours), torch.arange(256)[None])


def test_squares_are_averaged() -> None:
    model = PixelTextClassifier(4, in_chans=1, pixel_pool=2)
    images = torch.tensor([[0.0, 1, 1, 1], [1, 0, 1, 1], [0, 0, 0.2, 0.2], [0, 0, 0.2, 0.2]])
    assert model.words_of(images[None, None]).tolist() == [[128, 255, 0, 51]]


def test_values_beyond_the_range_stay_words() -> None:
    model = PixelTextClassifier(2, in_chans=1)
    images = torch.tensor([[[[-0.3, 1.7], [0.0, 1.0]]]])
    assert model.words_of(images).tolist() == [[0, 255, 0, 255]]


def test_black_pixels_are_read() -> None:
    # The published code takes them for padding.
    model = create_model("text_pixels_lra_32", img_size=4).eval()
    black, darker = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    black[..., 0, 0] = 0.5
    darker[..., 3, 3] = 0.5
    assert not torch.allclose(model(black), model(darker))
    assert model.text.real_words(model.words_of(black)) is None


def test_long_range_arena_shape() -> None:
    with torch.device("meta"):
        model = create_model("text_pixels_lra_32")
        assert model.forward_features(torch.zeros(1, 3, 32, 32)).shape == (1, 1025, 128)
    attn = model.text.blocks[0].attn
    assert (attn.num_heads, attn.head_dim) == (8, 8)
    assert attn.qkv.bias is None and attn.proj.bias is None
    assert [type(m).__name__ for m in model.text.head_hidden] == ["Linear", "ReLU"]


def test_only_pixel_readers_want_unit_pixels() -> None:
    assert PixelTextClassifier.unit_pixels
    assert not getattr(VisionTransformer, "unit_pixels", False)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"color": "hsv"}, "hsv"),
        ({"in_chans": 2}, "2 channels"),
        ({"color": "palette", "in_chans": 1}, "palette"),
        ({"img_size": (4, 5), "pixel_pool": 2}, "4 x 5"),
    ],
)
def test_constructor_errors(kwargs: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PixelTextClassifier(**{"img_size": 4, **kwargs})


def test_another_image_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"8 x 4 .* 4 x 4"):
        PixelTextClassifier(4)(torch.zeros(1, 3, 8, 4))
