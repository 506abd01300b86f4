"""Weights and pictures that cannot be used: one clear line from the commands, whichever it is."""

from __future__ import annotations

import struct
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import timm
import torch
from huggingface_hub.errors import RepositoryNotFoundError
from PIL import Image
from safetensors.torch import save_file

from tests.cli.conftest import one_line
from tests.conftest import TINY, Command, finished_run
from tests.small_data import write_pictures
from vitkit.weights import hub

FOLDER = ["data.name=image_folder", "data.root=pictures"]


def _weights(kind: str, folder: Path) -> str:
    """A file of weights that is none that a ViT of ours could take."""
    path = folder / f"{kind}.safetensors"
    if kind == "architecture":
        with torch.device("meta"):
            named = timm.create_model("resnet18", num_classes=4).state_dict()
        save_file({name: torch.zeros(t.shape) for name, t in named.items()}, path)
    elif kind == "half":
        save_file({"blocks.0.norm1.weight": torch.zeros(1000)}, path)
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == "pointer":
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    elif kind == "claims":  # a header that would be larger than the file
        path.write_bytes(struct.pack("<Q", 2**60) + b"{}")
    elif kind == "objects":
        path = path.with_suffix(".npz")
        np.savez(path, cls=np.array([{"a": 1}], dtype=object))
    elif kind == "hub":
        return "hf-hub:someone/nothing"
    else:
        path = folder / "nowhere.pth"
    return str(path)


BAD = {
    "architecture": "looks like a ResNet",
    "half": "damaged or half-downloaded",
    "pointer": "git-lfs pointer; run `git lfs pull`",
    "claims": "damaged",
    "objects": "holds Python objects",
    "hub": "the hub has no such model",
    "missing": "nowhere.pth",
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("command", ["train", "probe"])
def test_weights(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, kind: str
) -> None:
    absent = RepositoryNotFoundError("404", response=Mock(headers={}))
    monkeypatch.setattr(hub, "hf_hub_download", Mock(side_effect=absent))
    source = _weights(kind, tmp_path)
    of_training = "data.batch_size="
    settings = [w for w in TINY if w.startswith("data.") and not w.startswith(of_training)]
    words = [*TINY, f"model.weights={source}"] if command == "train" else [source, *settings]
    code, _, err = run(command, *words)
    assert code == 1
    one_line(err, BAD[kind])
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A run on a folder of two classes."""
    write_pictures(tmp_path / "pictures", a_class=20)
    words = [word for word in TINY if not word.startswith("data.")]
    more = [f"data.root={tmp_path / 'pictures'}", "data.batch_size=8", "trainer.max_epochs=1"]
    return finished_run(*words, "data.name=image_folder", *more, f"run.dir={tmp_path / 'run'}")


def test_labels_that_disagree_with_the_checkpoint(
    run: Command, trained: Path, tmp_path: Path
) -> None:
    """Another order is no disagreement, for classes are matched by name; another name is."""
    pictures = tmp_path / "pictures"
    labels = pictures / "labels.txt"
    told = []
    for content in ("cat\ndog\n", "dog\ncat\n"):
        labels.write_text(content)
        code, out, err = run("eval", trained)
        assert code == 0, err
        told.append([line for line in out.splitlines() if line.startswith("test/acc ")])
    assert told[0] == told[1] and len(told[0]) == 1
    labels.write_text("cat\nhorse\n")
    for words in (["eval", trained], ["check-data", "pictures"]):
        code, _, err = run(*words)
        assert code == 1
        one_line(err, "labels.txt lists 'horse' and lacks 'dog'")
    (pictures / "dog").rename(pictures / "horse")
    code, _, err = run("eval", trained)
    assert code == 1
    one_line(err, "'horse' is none of the model's")


def test_a_class_without_pictures(run: Command, tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures")
    (tmp_path / "pictures" / "horse").mkdir()
    for words in (["check-data", "pictures"], ["train", *TINY, *FOLDER]):
        code, _, err = run(*words)
        assert code == 1
        one_line(err, "horse holds no pictures")


def test_pictures_that_are_none_are_named(run: Command, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures" / "cat" / "zero.png").touch()
    code, _, err = run("train", *TINY, *FOLDER)
    assert code == 1
    one_line(err, "1 damaged image", "zero.png: empty file", "data.on_bad_image=skip")
    whole = tmp_path / "whole.png"
    Image.new("RGB", (9, 9), "red").save(whole)
    code, out, err = run("predict", trained, tmp_path / "pictures" / "cat" / "zero.png", whole)
    assert code == 1
    one_line(err, "zero.png")
    assert "whole.png" in out


def test_probing(run: Command, trained: Path, tmp_path: Path) -> None:
    code, out, _ = run("probe", trained)
    assert code == 0
    assert max(map(len, out.splitlines()[1:-2])) <= 80
    assert "16 features" in out and "linear probe" in out and "10 neighbours" in out
    results, head = out.splitlines()[-2:]
    assert results == f"results: {trained / 'probe.json'}"
    assert head == f"head:    {trained / 'probe-head.safetensors'} (task.finetune.head=...)"
    code, quiet, _ = run("probe", trained, "-q")
    assert code == 0 and "linear probe" in quiet and "16 features" not in quiet
    for words, said in (
        (["probe", trained, trained], "given 2 models, allowed: one at a time"),
        (["probe", "timm:resnet18"], "which weights?"),
        (["probe", "weights=a.pth"], "put it behind the model"),
        (["probe", trained, "data.nam=x"], "did you mean data.name"),
    ):
        code, _, err = run(*words)
        assert code == 2
        one_line(err, said)
    code, _, err = run("probe", "nothing")
    assert code == 1
    one_line(err, "no such run folder or checkpoint: nothing")
