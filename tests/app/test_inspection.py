"""``vitkit inspect``: what it writes is what vitkit.explain gives, and bad input gets one line."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from tests.conftest import TINY, Command, finished_run
from vitkit.app import inspect, inspect_views, load
from vitkit.cli.inspection import shape_table
from vitkit.errors import ConfigError, EvaluationError, RunError, UnknownNameError, WeightsError
from vitkit.explain import (
    attention_entropy,
    attention_maps,
    attention_rollout,
    class_token_similarity,
    grad_cam,
    mean_attention_distance,
    patch_filters,
    position_similarity,
    relevance,
    token_norms,
)

TOKEN = ["model.class_token=true", "model.global_pool=token", "model.reg_tokens=1"]
TOKEN += ["model.patch_size=2"]


def _trained(folder: Path, *overrides: str) -> Path:
    return finished_run(*TINY, f"run.dir={folder}", "trainer.max_epochs=1", *overrides)


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished tiny ViT of class token and one register, 4 x 4 patches."""
    return _trained(tmp_path_factory.mktemp("vit") / "run", *TOKEN)


@pytest.fixture(scope="module")
def mixer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished tiny MLP-Mixer."""
    sized = [word for word in TINY if not word.startswith("model.")]
    model = ["model.name=nb04_mixer", "model.img_size=8", "model.embed_dim=8"]
    folder = tmp_path_factory.mktemp("mixer") / "run"
    return finished_run(*sized, *model, f"run.dir={folder}", "trainer.max_epochs=1")


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two pictures of other sizes than the model's."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / "red.png", tmp_path / "noise.jpg"]
    Image.new("RGB", (20, 12), "red").save(paths[0])
    Image.fromarray(rng.integers(0, 256, (30, 30, 3), dtype=np.uint8)).save(paths[1])
    return paths


@pytest.fixture
def run(vitkit_command: Command) -> Command:
    """``vitkit inspect`` in this process: exit code, output, errors."""
    return partial(vitkit_command, "inspect")


def test_what_is_written_is_what_explain_gives(
    vit: Path, files: list[Path], tmp_path: Path
) -> None:
    found = inspect(vit, files, out=tmp_path / "seen", progress=False)
    assert found.folder == tmp_path / "seen"
    assert list(found.written) == sorted(found.folder.iterdir())
    views = ("heads", "norms", "overview", "similarity")
    drawn = {f"{stem}-{view}.png" for stem in ("01-red", "02-noise") for view in views}
    drawn |= {"filters.png", "positions.png", "distance.png", "entropy.png"}
    assert {path.name for path in found.written} == drawn | {"inspect.json", "inspect.npz"}
    for path in found.written:
        if path.suffix == ".png":
            with Image.open(path) as picture:
                picture.load()
                assert picture.mode == "RGB" and min(picture.size) > 8

    predictor = load(vit, device="cpu")
    images = torch.stack(
        [predictor.preprocessing.prepare_image(Image.open(file)) for file in files]
    )
    given = predictor.preprocessing(images)
    maps = attention_maps(predictor.model, given)
    with np.load(found.folder / "inspect.npz", allow_pickle=False) as arrays:
        numbers = {name: arrays[name] for name in arrays.files}
    expected = {
        "attention": maps[..., 0, 2:].unflatten(-1, (4, 4)),
        "attention_entropy": attention_entropy(maps),
        "rollout": attention_rollout(predictor.model, given),
        "relevance": relevance(predictor.model, given),
        "grad_cam": grad_cam(predictor.model, given),
        "token_norms": token_norms(predictor.model, given),
        "attention_distance": mean_attention_distance(predictor.model, given),
        "similarity": class_token_similarity(predictor.model, given),
        "positions": position_similarity(predictor.model),
        "filters": patch_filters(predictor.model).components,
        "filter_shares": patch_filters(predictor.model).shares,
    }
    for name, tensor in expected.items():
        np.testing.assert_allclose(numbers[name], tensor.numpy(), rtol=1e-4, atol=1e-6)
    assert numbers["sources"].tolist() == [str(file) for file in files]

    told = json.loads((found.folder / "inspect.json").read_text())
    assert told["checkpoint"] == str(vit / "checkpoints" / "last.ckpt")
    table = told["tables"]
    predictions = predictor.predict(files)
    assert table["pictures"]["predicted"] == [p.label for p in predictions]
    for one, prediction in zip(found.pictures, predictions, strict=True):
        assert one.explained == prediction.label
        assert one.top[0][1] == pytest.approx(prediction.top[0][1], abs=1e-6)
    norms = expected["token_norms"]
    for index, block in enumerate(found.blocks):
        assert block.patch_norm == pytest.approx(float(norms[:, index, 2:].mean()), rel=1e-4)
        assert block.class_norm == pytest.approx(float(norms[:, index, 0].mean()), rel=1e-4)
        distances = expected["attention_distance"][:, index].mean(0).tolist()
        assert block.distances == pytest.approx(distances, rel=1e-4)
        entropies = expected["attention_entropy"][:, index].mean(0).tolist()
        assert block.entropies == pytest.approx(entropies, rel=1e-4)
        assert table["blocks"]["attention_entropy"][index] == list(block.entropies)
    assert told["attention_entropy_at_most"] == pytest.approx(math.log(18))
    assert (told["fusion"], told["discard"]) == ("mean", 0.0)
    assert table["shapes"]["made"][1] == [18, 16]


def test_layers_and_target(vit: Path, files: list[Path], tmp_path: Path) -> None:
    names = load(vit).class_names
    plain = inspect(vit, files[:1], out=tmp_path / "a", target=names[1], progress=False)
    chosen = inspect(vit, files[0], out=tmp_path / "b", layers=[-1], target="1", progress=False)
    assert chosen.pictures[0].explained == plain.pictures[0].explained == names[1]
    np.testing.assert_array_equal(chosen.numbers["relevance"], plain.numbers["relevance"])
    last = plain.numbers["attention"][:, 1:]
    np.testing.assert_array_equal(chosen.numbers["attention"], last)
    assert [len(block.distances) for block in chosen.blocks] == [0, 2]
    other = inspect(vit, files[:1], out=tmp_path / "b", target=names[2], progress=False)
    assert not np.array_equal(other.numbers["relevance"], plain.numbers["relevance"])


def test_how_the_rollout_is_made(
    run: Command, vit: Path, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def spy(*given: Any, **settings: Any) -> torch.Tensor:
        asked.append(settings)
        return attention_rollout(*given, **settings)

    monkeypatch.setattr(inspect_views, "attention_rollout", spy)
    preprocessing = load(vit, device="cpu").preprocessing
    given = preprocessing(preprocessing.prepare_image(Image.open(files[1]))[None])
    model = load(vit, device="cpu").model
    cases: list[tuple[list[str], dict[str, Any]]] = [
        ([], {}),
        (["--fusion", "max"], {"fusion": "max"}),
        (["--discard", "0.9"], {"discard": 0.9}),
        (["--fusion", "min", "--discard", "0.5"], {"fusion": "min", "discard": 0.5}),
    ]
    seen = []
    for options, settings in cases:
        code, _, err = run(vit, files[1], *options, "--out", tmp_path / "seen", "-q")
        assert code == 0 and err == ""
        assert asked.pop() == settings and not asked
        with np.load(tmp_path / "seen" / "inspect.npz", allow_pickle=False) as arrays:
            seen.append(arrays["rollout"])
        expected = attention_rollout(model, given, **settings)
        np.testing.assert_allclose(seen[-1], expected.numpy(), rtol=1e-4, atol=1e-6)
        told = json.loads((tmp_path / "seen" / "inspect.json").read_text())
        wanted = {"fusion": "mean", "discard": 0.0, **settings}
        assert wanted.items() <= told.items()
    assert not np.allclose(seen[2], seen[0], rtol=1e-2)


def test_the_command(run: Command, vit: Path, files: list[Path]) -> None:
    code, out, err = run(vit, *files)
    assert code == 0 and err == ""
    lines = out.splitlines()
    paths = {str(vit), str(vit / "checkpoints" / "last.ckpt"), *map(str, files)}
    assert all(len(line) <= 80 or any(path in line for path in paths) for line in lines)
    assert any(line.split() == ["patch_embed", "[16,", "16]"] for line in lines)
    assert any("+ class token, 1 register, positions" in line for line in lines)
    assert "blocks.0 to blocks.1" in out and "attention distance" in out
    assert lines[-1] == f"14 files in {vit / 'inspect'}"
    assert (vit / "inspect" / "01-red-overview.png").exists()
    before = (vit / "inspect" / "inspect.npz").read_bytes()
    code, again, _ = run(vit, *files)
    assert code == 0 and again == out  # the same files are written again
    assert (vit / "inspect" / "inspect.npz").read_bytes() == before


def test_weights_alone_and_a_map_of_the_data(run: Command, vit: Path, tmp_path: Path) -> None:
    code, out, _ = run(vit, "--out", tmp_path / "alone")
    assert code == 0 and "attention distance" not in out
    names = {path.name for path in (tmp_path / "alone").iterdir()}
    assert names == {"filters.png", "positions.png", "inspect.json", "inspect.npz"}
    for method in ("pca", "tsne"):
        code, out, err = run(vit, "--embedding", method, "--out", tmp_path / method, "-q")
        assert code == 0 and err == ""
        with np.load(tmp_path / method / "inspect.npz", allow_pickle=False) as arrays:
            places, targets = arrays["embedding"], arrays["embedding_targets"]
        assert places.shape == (len(targets), 2) and len(set(targets.tolist())) == 4
        assert (tmp_path / method / f"embedding-{method}.png").exists()
    more = ["data.synthetic_size=160", "--embedding", "pca"]
    assert run(vit, *more, "--out", tmp_path / "more", "-q")[0] == 0
    with np.load(tmp_path / "more" / "inspect.npz", allow_pickle=False) as arrays:
        assert len(arrays["embedding"]) > len(places)


def test_a_model_without_attention(run: Command, mixer: Path, files: list[Path]) -> None:
    code, out, _ = run(mixer)
    assert code == 0 and "note: positions: HybridClassifier has no position embedding" in out
    code, _, err = run(mixer, files[0])
    assert code == 1
    assert err.startswith("error: HybridClassifier has no attention that can be read")
    assert len(err.splitlines()) == 1


def test_bad_input_gets_one_line(
    run: Command, vit: Path, files: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "broken.png").write_text("no picture")
    names = load(vit).class_names
    cases: list[tuple[list[Any], int, str]] = [
        (["nothing"], 1, "no such run folder or checkpoint"),
        ([vit, tmp_path / "none.png"], 1, "no such picture"),
        ([vit, tmp_path / "broken.png"], 1, "cannot read the picture"),
        ([vit, files[0], "--layers", "2"], 2, "attention layer 2 does not exist; allowed: 0 to 1"),
        ([vit, files[0], "--layers", "a,1"], 2, "--layers: given 'a,1', expected whole numbers"),
        ([vit, files[0], "--target", names[0] + "x"], 2, f"did you mean {names[0]}"),
        ([vit, files[0], "--target", "4"], 2, "a number from 0 to 3"),
        ([vit, "--embedding", "mds"], 2, "--embedding: given 'mds', allowed: pca, tsne, umap"),
        ([vit, "data.name=digits"], 2, "settings are for --embedding"),
        ([vit, "--target", "1"], 2, "--target: on which picture?"),
        ([vit, "--layers", "0"], 2, "--layers: on which picture?"),
        ([vit, "--fusion", "max"], 2, "--fusion: on which picture?"),
        ([vit, "--discard", "0"], 2, "--discard: on which picture?"),
        ([vit, files[0], "--fusion", "sum"], 2, "given 'sum', allowed: mean, max, min"),
        ([vit, files[0], "--discard", "1"], 2, "--discard: given 1.0, allowed: a share from 0"),
        ([vit, files[0], "--out", tmp_path / "file"], 1, "is a file; give --out a folder"),
    ]
    for arguments, exit_code, said in cases:
        code, _, err = run(*arguments)
        assert code == exit_code, err
        assert said in err and "Traceback" not in err
        assert len([line for line in err.splitlines() if line.startswith("error:")]) == 1


def test_the_same_from_python(vit: Path, mixer: Path, files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="attention layer -3"):
        inspect(vit, files, layers=[-3])
    with pytest.raises(UnknownNameError, match="unknown class"):
        inspect(vit, files, target="zebra")
    with pytest.raises(RunError, match="is a file"):
        inspect(vit, out=tmp_path / "file")
    with pytest.raises(EvaluationError, match="no attention"):
        inspect(mixer, files)
    assert not (mixer / "inspect").exists() or not list((mixer / "inspect").glob("01-*"))


def test_help(run: Command) -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "vitkit inspect runs/flowers/20260101-120000 rose.jpg --target tulip" in out


def test_blocks_with_one_shape_behind_them_share_a_line() -> None:
    steps = [
        ("patch_embed", (4, 4, 3), (4, 8)),
        ("blocks.0", (4, 8), (4, 8)),
        ("blocks.1", (4, 8), (4, 8)),
        ("blocks.2", (4, 8), (2, 8)),
        ("blocks.3", (2, 8), (2, 8)),
        ("head", (8,), (2,)),
    ]
    assert [line.split("  ")[0].strip() for line in shape_table(steps)] == [
        *("picture", "patch_embed", "blocks.0 to blocks.1", "blocks.2 to blocks.3", "head")
    ]
    assert shape_table([]) == []


TIMM = "timm:vit_tiny_patch16_224"
FOUR = ["data.name=synthetic", "data.synthetic_classes=4", "model.img_size=32"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights of timm's smallest ViT for four classes and 32 pixels."""
    path = tmp_path_factory.mktemp("weights") / "timm.pth"
    torch.manual_seed(0)
    torch.save(_of_timm().state_dict(), path)
    return path


def _of_timm() -> torch.nn.Module:
    return timm.create_model("vit_tiny_patch16_224", num_classes=4, img_size=32)


def test_a_model_of_timm(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(3).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("noise.png")
    found = inspect((TIMM, weights), "noise.png", FOUR, embedding="pca", progress=False)
    assert found.folder.parts[:2] == ("runs", "eval") and found.folder.name == "inspect"
    assert found.model == "timm/vit_tiny_patch16_224" and found.checkpoint == weights
    assert found.numbers["embedding"].shape[1] == 2

    model = _of_timm().eval()
    model.load_state_dict(torch.load(weights, weights_only=True))
    given = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1  # timm's mean and deviation
    with torch.inference_mode():
        best = int(model(given).argmax())
    assert found.pictures[0].explained == f"class {best}"
    expected = {
        "attention": attention_maps(model, given)[..., 0, 1:].unflatten(-1, (2, 2)),
        "rollout": attention_rollout(model, given),
        "relevance": relevance(model, given),
        "grad_cam": grad_cam(model, given),
        "token_norms": token_norms(model, given),
    }
    for name, tensor in expected.items():
        np.testing.assert_allclose(
            found.numbers[name], tensor.detach().numpy(), rtol=1e-4, atol=1e-6, err_msg=name
        )


def test_the_command_on_a_model_of_timm(
    run: Command, vit: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(TIMM, f"weights={weights}", *FOUR, "--out", "seen", "-q")
    assert code == 0 and err == ""
    assert "timm/vit_tiny_patch16_224, trained weights" in out
    assert out.splitlines()[-1].endswith("files in seen")
    cases: list[tuple[list[Any], int, str]] = [
        ([TIMM], 2, "which weights? Put weights=FILE behind it"),
        ([TIMM, f"weights={weights}"], 2, "on which data? Say so"),
        ([TIMM, "weights=none.pth", *FOUR], 1, "none.pth"),
        ([vit, f"weights={weights}"], 2, "brings its own weights"),
        (["weights=a.pth"], 2, "put it behind the model that it is for"),
        (["data.name=digits"], 2, "name a run, a checkpoint, weights or timm:<name> first"),
    ]
    for arguments, exit_code, said in cases:
        code, _, err = run(*arguments)
        assert code == exit_code, err
        assert said in err and "Traceback" not in err
    with pytest.raises(WeightsError, match="its own classes"):
        inspect((TIMM, weights), (), [*FOUR[:1], "data.synthetic_classes=5", FOUR[2]])
