"""Bad input gets one clear line and a non-zero exit; a traceback only with --debug."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import pytorch_lightning.loggers
import torch
from PIL import Image

from tests.cli.conftest import one_line
from tests.conftest import TINY, Command, finished_run
from vitkit.cli import main
from vitkit.errors import ConfigError, Interrupted, RunError

ROOT = Path(__file__).resolve().parents[2]

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="/dev/full exists on Linux only")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished tiny run."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    return finished_run(*TINY, f"run.dir={folder}", "trainer.max_epochs=1")


@pytest.mark.parametrize("script", ["train.py", "eval.py"])
def test_a_python_without_the_environment_is_told_so(script: str) -> None:
    bare = [sys.executable, "-S", ROOT / script, "--help"]  # -S: nothing that is installed
    done = subprocess.run(bare, capture_output=True, text=True, env={})
    assert done.returncode == 1
    assert done.stderr == (
        f"error: {sys.executable} has no typer: vitkit's environment is not active; "
        "`source .venv/bin/activate`, or `make train`, which sets one up\n"
    )


def test_the_commands_work(run: Command, trained: Path, tmp_path: Path) -> None:
    code, out, _ = run("eval", trained)
    assert code == 0
    assert "test/acc" in out
    assert (trained / "eval.json").exists()
    Image.new("RGB", (9, 7), "red").save(tmp_path / "red.png")
    code, out, _ = run("predict", trained, tmp_path / "red.png", "--csv")
    assert code == 0
    assert out.splitlines()[0] == "file,rank,class,probability"
    shares = [float(line.rsplit(",", 1)[1]) for line in out.splitlines()[1:]]
    assert len(shares) == 4
    assert sum(shares) == pytest.approx(1.0, abs=1e-4)
    code, out, _ = run("predict", trained, tmp_path, "--json")
    assert code == 0
    assert '"probability"' in out
    code, out, _ = run("models", "cct_*")
    assert code == 0
    assert "cct_7_3x1_32" in out
    code, out, _ = run("check-data", "digits")
    assert code == 0
    assert "1,295" in out
    code, out, _ = run("train", *TINY, "--dry-run")
    assert code == 0
    assert "one batch works" in out
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No accelerator, and no Weights & Biases, whatever this one has."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    absent = Mock(side_effect=ModuleNotFoundError("wandb"))
    monkeypatch.setattr(pytorch_lightning.loggers, "WandbLogger", absent)


@pytest.mark.usefixtures("bare_machine")
@pytest.mark.parametrize(
    ("arguments", "exit_code", "parts"),
    [
        (["train", "data.nam=digits"], 2, ["did you mean data.name?"]),
        (["train", f"data.nam={'x' * 400}"], 2, ["did you mean data.name?"]),
        (["eval", "nothing", f"data.root={'x' * 400}"], 1, ["no such run folder or checkpoint"]),
        (["inspect", "nothing", f"data.root={'x' * 400}"], 1, ["no such run folder"]),
        (["train", "trainer.max_epochs=ten"], 2, ["given 'ten'", "a whole number"]),
        (["train", "data.nam=x", "optimizer.lr=-1"], 2, ["2 faults", "data.nam", "optimizer.lr"]),
        (["train", "model.name=vit_tinny_patch4_32"], 2, ["did you mean vit_tiny_patch4_32"]),
        (["train", "nowhere.yaml"], 2, ["nowhere.yaml: no such file"]),
        (["train", *TINY, "model.num_classes=7"], 2, ["given 7", "has 4"]),
        (["train", *TINY, "model.img_size=10"], 2, ["10 x 10", "multiple", "patch"]),
        (["train", "data.name=cifar10", "data.root=none"], 1, ["data.download=true"]),
        (["train", *TINY, "trainer.accelerator=gpu"], 2, ["trainer.accelerator=gpu", "auto"]),
        (["train", *TINY, "trainer.wandb=true"], 2, ["vitkit[wandb]"]),
        (["train", "model.name=timm/vit_tinny"], 2, ["did you mean timm/vit_tiny_patch16_224"]),
        (["models", "nonsense"], 2, ["no model matches"]),
        (["train", "--resume", "nothing"], 1, ["nothing to resume"]),
        (["train", "--resume", "x", "run.seed=1"], 2, ["own settings"]),
        (["train", "--resume", "x", "--dry-run"], 2, ["--resume and --dry-run exclude"]),
        (["train", "--extend", "9"], 2, ["--extend 9 needs --resume RUN"]),
        (["train", "--resume", "nothing", "--extend", "9"], 1, ["nothing to resume"]),
        (["train", *TINY, "--seeds", "2", "--print-config"], 2, ["--print-config and --seeds"]),
        (["eval", "nothing"], 1, ["no such run folder or checkpoint"]),
        (["predict", "nothing", "x.png"], 1, ["no such run folder or checkpoint"]),
        (["models", "--nonsense"], 2, []),
        (["check-data", "digts"], 2, ["did you mean digits"]),
        (["check-data", "wolves"], 2, ["data set 'wolves' (known: digits", "a folder wolves"]),
        (["check-data", "picture/"], 1, ["no folder picture", "did you mean pictures?"]),
        (
            ["check-data", "picture"],
            2,
            ["data set 'picture'", "a folder picture; did you mean pictures/?"],
        ),
        (["check-data", "photo.jpg"], 2, ["photo.jpg", "a folder of pictures"]),
        (["check-data", "pictures/one.png"], 2, ["one.png", "a folder of pictures"]),
        (["check-data", "pictures/cats"], 1, ["no folder pictures/cats"]),
        (["check-data", "pictures"], 1, ["pictures does not look like a folder per class"]),
        (["train", "pictures"], 2, ["data.root=pictures"]),
    ],
)
def test_bad_arguments(
    run: Command, tmp_path: Path, arguments: list[str], exit_code: int, parts: list[str]
) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "one.png").touch()
    code, _, err = run(*arguments)
    assert code == exit_code
    assert "Traceback" not in err
    for part in parts:
        assert part in err, err
    if parts:
        one_line(err)


@pytest.mark.usefixtures("bare_machine")
@pytest.mark.parametrize(
    "fault", ["trainer.accelerator=gpu", "trainer.wandb=true", "data.batch_size=500"]
)
def test_a_run_that_never_began_leaves_no_folder(run: Command, tmp_path: Path, fault: str) -> None:
    code, _, err = run("train", *TINY, "run.dir=fresh", fault)
    assert code > 0
    one_line(err)
    assert not (tmp_path / "fresh").exists()


@pytest.mark.parametrize("words", [["--epochs", "3"], ["--epochs=3"], ["--epochs", "3", "--debug"]])
def test_an_option_that_is_a_setting(run: Command, words: list[str]) -> None:
    code, _, err = run("train", *words)
    assert code == 2
    assert err.splitlines()[-1].endswith("did you mean trainer.max_epochs=3?")


def test_an_option_of_another_command_may_be_meant_as_a_setting(run: Command) -> None:
    code, _, err = run("train", "--temperature", "2")
    assert code == 2
    assert err.splitlines()[-1].endswith("did you mean task.distill.temperature=2?")
    code, _, err = run("train", "--resume", "x", "--extend")
    assert code == 2
    assert "Settings are written" not in err


def test_of_several_processes_the_first_tells_of_a_dry_run(
    run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = Mock(return_value=Mock(num_parameters=3))
    monkeypatch.setattr("vitkit.app.try_one_batch", tried)
    for rank, lines in (("0", 1), ("1", 0)):
        monkeypatch.setenv("LOCAL_RANK", rank)
        code, out, _ = run("train", *TINY, "--dry-run")
        assert code == 0 and out.count("one batch works") == len(out.splitlines()) == lines
        assert out.count("(3 parameters)") == lines
    assert tried.call_count == 2


def test_resuming_a_finished_run_says_so(run: Command, trained: Path) -> None:
    before = (trained / "results.json").read_bytes()
    code, out, err = run("train", "--resume", trained)
    assert code == 0 and err == ""
    assert out.startswith(f"already finished: {trained / 'results.json'}")
    assert f"model.weights={trained}" in out and len(out.splitlines()) == 1
    assert (trained / "results.json").read_bytes() == before
    code, _, err = run("train", "--resume", trained, "trainer.max_epochs=9")
    assert code == 2
    one_line(err, "own settings", f"model.weights={trained}")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("boom\nand more"), "RuntimeError: boom (not foreseen by vitkit"),
        (KeyError(), "KeyError: no message (not foreseen by vitkit"),
        (OSError(errno.EIO, "broken", "f"), "OSError: [Errno 5] broken: 'f' (not foreseen"),
        (BrokenPipeError(errno.EPIPE, "x"), "a process of this command is gone ("),
        (OSError(errno.ENOSPC, "No room", "f"), "error: No room: f\n"),
        (OSError(errno.ENOSPC, "No room"), "error: No room: while writing\n"),
    ],
)
def test_what_nobody_foresaw_is_one_line_too(
    run: Command, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    monkeypatch.setattr("vitkit.app.model_rows", Mock(side_effect=error))
    code, out, err = run("models")
    assert (code, out) == (1, "")
    one_line(err, said)
    assert len(err.splitlines()) == 1
    unforeseen = not isinstance(error, OSError) or error.errno != errno.ENOSPC
    assert ("--debug" in err) == unforeseen
    kind = RuntimeError if isinstance(error, BrokenPipeError) else type(error)
    monkeypatch.setattr(sys, "argv", ["vitkit", "models", "--debug"])
    with pytest.raises(kind):
        main()


@pytest.mark.parametrize(("signum", "exit_code"), [(2, 130), (15, 143), (1, 129)])
@pytest.mark.parametrize("rank", ["0", "1"])
def test_of_several_processes_that_a_signal_stops_the_first_speaks(
    run: Command, monkeypatch: pytest.MonkeyPatch, rank: str, signum: int, exit_code: int
) -> None:
    """Another that left in good order must not look like a crash to it; one that failed must."""
    monkeypatch.setenv("LOCAL_RANK", rank)
    stopped = Interrupted("stopped after step 2", signum)
    monkeypatch.setattr("vitkit.app.train", Mock(side_effect=stopped))
    code, _, err = run("train")
    assert (code, err) == ((exit_code, "stopped after step 2\n") if rank == "0" else (0, ""))
    monkeypatch.setattr("vitkit.app.train", Mock(side_effect=RunError("no room")))
    code, _, err = run("train")
    assert (code, err) == (1, "error: no room\n" if rank == "0" else "")


def test_debug_shows_the_traceback(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["vitkit", "train", "data.nam=digits", "--debug"])
    with pytest.raises(ConfigError):
        main()


class _Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_bad_checkpoints(run: Command, trained: Path, tmp_path: Path) -> None:
    good = trained / "checkpoints" / "last.ckpt"
    cut = tmp_path / "cut.ckpt"
    cut.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    code, _, err = run("eval", cut)
    assert code == 1
    one_line(err, "damaged or incomplete")
    victim = tmp_path / "evil-was-here"
    evil = tmp_path / "evil.ckpt"
    torch.save({"state_dict": {}, "vitkit": _Evil(victim)}, evil)
    code, _, err = run("eval", evil)
    assert code == 1
    one_line(err, "refused", "nothing in it was run")
    assert "weights_only" not in err and "trust" not in err
    plain = tmp_path / "plain.ckpt"
    plain.write_bytes(pickle.dumps({"a": _Evil(victim)}))
    code, _, err = run("eval", plain)
    assert code == 1
    one_line(err)
    assert not victim.exists()
    photo = tmp_path / "photo.jpg"
    Image.new("RGB", (9, 7), "red").save(photo)
    code, _, err = run("eval", photo)
    assert code == 1
    one_line(err, "photo.jpg is not a checkpoint")
    foreign = tmp_path / "foreign.pth"
    torch.save({"weight": torch.zeros(3)}, foreign)
    code, _, err = run("eval", foreign)
    assert code == 2
    one_line(err, "foreign.pth: on which data?")
    code, _, err = run("eval", foreign, "data.name=digits")
    assert code == 1
    one_line(err, "foreign.pth is of no layout that vitkit knows")


def test_bad_pictures(run: Command, trained: Path, tmp_path: Path) -> None:
    Image.new("RGB", (30, 30), "red").save(tmp_path / "cut.png")
    whole = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) - 30])
    code, _, err = run("predict", trained, tmp_path / "cut.png")
    assert code == 1
    one_line(err, "cut.png")
    code, _, err = run("predict", trained, tmp_path / "none.png")
    assert code == 1
    one_line(err, "no such picture")
    Image.new("RGB", (30, 30), "red").save(tmp_path / "whole.png")
    code, out, err = run("predict", trained, tmp_path / "cut.png", tmp_path / "whole.png")
    assert code == 1
    one_line(err, "cut.png")
    assert out.splitlines()[0].endswith("whole.png") and "%" in out


def test_a_folder_of_runs_is_no_run_but_names_them(
    run: Command, trained: Path, tmp_path: Path
) -> None:
    for name, when in (("old", 1), ("new", 2)):
        shutil.copytree(trained, tmp_path / "runs" / "x" / name)
        os.utime(tmp_path / "runs" / "x" / name / "checkpoints" / "last.ckpt", (when, when))
    for words in (["eval", "runs"], ["predict", "runs/x", "a.png"], ["train", "--resume", "runs"]):
        code, _, err = run(*words)
        assert code == 1
        one_line(err, "is no run, but holds", "old", f"the newest is {Path('runs/x/new')}")
    code, _, err = run("eval", "runs/x/newest")
    assert code == 1
    one_line(err, "no such run folder", f"the newest is {Path('runs/x/new')}")


def test_evaluating_an_unfinished_run_says_so(run: Command, trained: Path, tmp_path: Path) -> None:
    code, out, _ = run("eval", trained)
    assert code == 0 and "not finished" not in out
    assert "last.ckpt (trained weights of step 3), 16 test images" in out
    shutil.copytree(trained, tmp_path / "cut")
    (tmp_path / "cut" / "results.json").unlink()
    code, out, _ = run("eval", "cut")
    assert code == 0
    assert "note: the run is not finished (step 3, epoch 1)" in out
    assert "vitkit train --resume cut" in out


def test_a_training_ends_with_what_to_run_next(run: Command, tmp_path: Path) -> None:
    code, out, _ = run("train", *TINY, "run.dir=a b", "trainer.max_epochs=1")
    assert code == 0
    assert [line.split()[1:3] for line in out.splitlines()[-2:]] == [
        ["vitkit", "eval"],
        ["vitkit", "predict"],
    ]
    assert "'a b'" in out
    code, out, _ = run("train", *TINY, "run.dir=c", "trainer.max_epochs=1", "-q")
    assert "next:" not in out and "acc5" not in out


def test_evaluating_on_other_classes_is_refused(run: Command, trained: Path) -> None:
    code, _, err = run("eval", trained, "data.synthetic_classes=5")
    assert code == 1
    one_line(err, "knows 4 classes", "has 5")


def test_a_used_folder_is_never_overwritten(run: Command, trained: Path) -> None:
    before = (trained / "results.json").read_bytes()
    code, _, err = run("train", *TINY, f"run.dir={trained}")
    assert code == 1
    one_line(err, "is not empty", "--resume")
    assert (trained / "results.json").read_bytes() == before


def test_so_it_is_before_anything_is_read(
    run: Command, monkeypatch: pytest.MonkeyPatch, trained: Path
) -> None:
    read = Mock(side_effect=AssertionError("the data were read"))
    monkeypatch.setattr("vitkit.app.trainer.job_class", read)
    code, _, err = run("train", *TINY, f"run.dir={trained}")
    assert code == 1
    one_line(err, "is not empty", "--resume")


def test_a_folder_that_cannot_be_written(run: Command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, _, err = run("train", *TINY, "run.root=file")
    assert code == 1
    one_line(err, "cannot write the run folder", "run.root")


@on_linux
def test_a_full_disk_keeps_the_checkpoint_before(
    run: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The second checkpoint meets a full disk: one line, the first one still resumes."""
    from pytorch_lightning import Trainer

    original, calls = Trainer.save_checkpoint, []

    def save(self: Trainer, path: Any, *args: Any, **kwargs: Any) -> None:
        calls.append(path)
        if len(calls) == 2:
            with open(path, "wb") as half:
                half.write(b"half")
            with open("/dev/full", "wb") as full:
                full.write(b"x" * 10_000)
        original(self, path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "save_checkpoint", save)
        code, _, err = run("train", *TINY, "run.dir=full", "-q")
    assert code == 1
    one_line(err, "cannot write", os.strerror(errno.ENOSPC), "untouched")
    assert [
        p.name for p in (tmp_path / "full" / "checkpoints").iterdir() if ".part" in p.name
    ] == []
    code, _, _ = run("train", "--resume", "full", "-q")
    assert code == 0


def test_a_full_disk_at_the_first_checkpoint_promises_nothing(
    run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pytorch_lightning import Trainer

    def save(self: Trainer, path: Any, *args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Trainer, "save_checkpoint", save)
    code, _, err = run("train", *TINY, "run.dir=full", "-q")
    assert code == 1
    one_line(err, "cannot write", "no checkpoint yet", "run.root")
    assert "untouched" not in err and "resume" not in err


def _fill_the_disk(patch: pytest.MonkeyPatch, name: str, how: str) -> None:
    """From the first checkpoint on there is no room for what is written to a file."""
    original = Path.open

    def into_a_full_disk(self: Path, mode: str = "r", *more: Any, **options: Any) -> Any:
        filled = self.name.startswith(name) and how in mode
        filled = filled and (self.parent / "checkpoints" / "last.ckpt").exists()
        if filled:
            original(self, mode, *more, **options).close()  # a name needs no room
        return original(Path("/dev/full") if filled else self, mode, *more, **options)

    patch.setattr(Path, "open", into_a_full_disk)


@on_linux
@pytest.mark.parametrize(("name", "how"), [("metrics.csv", "a"), ("results.json", "w")])
def test_a_full_disk_beside_the_checkpoints_lets_the_run_go_on_later(
    run: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, how: str
) -> None:
    with monkeypatch.context() as patch:
        _fill_the_disk(patch, name, how)
        code, _, err = run("train", *TINY, "run.dir=full", "-q")
    assert code == 1
    one_line(err, f"error: {os.strerror(errno.ENOSPC)}: ")
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "full" / "results.json").exists()
    assert not [path for path in (tmp_path / "full").rglob("*") if path.suffix == ".part"]
    code, _, _ = run("train", "--resume", "full", "-q")
    assert code == 0 and (tmp_path / "full" / "results.json").exists()


@on_linux
@pytest.mark.parametrize("name", ["eval.json", "predictions.npz"])
def test_a_full_disk_leaves_an_earlier_evaluation(
    run: Command, monkeypatch: pytest.MonkeyPatch, trained: Path, tmp_path: Path, name: str
) -> None:
    shutil.copytree(trained, tmp_path / "full")
    assert run("eval", "full")[0] == 0
    before = (tmp_path / "full" / name).read_bytes()
    with monkeypatch.context() as patch:
        _fill_the_disk(patch, name, "w")
        code, _, err = run("eval", "full")
    assert code == 1
    one_line(err, f"error: {os.strerror(errno.ENOSPC)}: ")
    assert len(err.splitlines()) == 1
    assert (tmp_path / "full" / name).read_bytes() == before
    assert not [path for path in (tmp_path / "full").rglob("*") if path.suffix == ".part"]


def test_a_diverging_loss_stops_with_its_step(run: Command) -> None:
    code, _, err = run("train", *TINY, "optimizer.name=sgd", "optimizer.lr=1e30", "-q")
    assert code == 1
    one_line(err, "NaN or infinite at step", "lower optimizer.lr", "(epoch 1)")
    assert "There is no checkpoint yet; start anew" in err and "still good" not in err


def test_spoilt_weights_never_replace_good_ones(
    run: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Between two looks at the loss, as on an accelerator, a checkpoint looks at the weights."""
    from vitkit.training.base import TrainingTask
    from vitkit.weights import read_checkpoint

    monkeypatch.setattr(TrainingTask, "watch", lambda self, loss: None)
    settings = ["optimizer.name=sgd", "optimizer.lr=1e30", "trainer.save_every_n_steps=1"]
    code, _, err = run("train", *TINY, "run.dir=spoilt", *settings, "-q")
    assert code == 1
    last = Path("spoilt", "checkpoints", "last.ckpt")
    one_line(err, "weights became NaN or infinite by step", "still good", "run.dir=null")
    assert f"vitkit train {Path('spoilt', 'config.yaml')} model.weights={last}" in err
    kept = read_checkpoint(tmp_path / last)
    assert 1 <= kept.step < 9
    assert all(tensor.isfinite().all() for tensor in kept.trained.values())
    assert [p.name for p in (tmp_path / last).parent.iterdir()] == ["last.ckpt"]


def test_out_of_memory_says_what_to_lower(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from vitkit.training.task import ClassificationTask

    def fail(*args: Any) -> None:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(ClassificationTask, "training_step", fail)
    code, _, err = run("train", *TINY, "-q")
    assert code == 1
    one_line(err, "out of memory", "data.batch_size")


def test_out_of_memory_in_the_test_says_that_the_training_is_done(
    run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vitkit.app.jobs import classification

    full = Mock(side_effect=torch.OutOfMemoryError("no room"))
    monkeypatch.setattr(classification, "evaluate_checkpoint", full)
    code, _, err = run("train", *TINY, "run.dir=full", "trainer.max_epochs=1", "-q")
    assert code == 1
    last = Path("full", "checkpoints", "last.ckpt")
    one_line(err, "out of memory; data.eval_batch_size is too large", f"measure {last} by")
    assert last.exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["eval"], "lower data.eval_batch_size"),
        (["probe"], "lower data.eval_batch_size"),
        (["predict", "red.png"], "64 pictures at a time are too many"),
    ],
)
def test_so_does_what_uses_a_finished_model(
    run: Command, monkeypatch: pytest.MonkeyPatch, trained: Path, words: list[str], says: str
) -> None:
    from vitkit.models import VisionTransformer

    Image.new("RGB", (9, 7), "red").save("red.png")
    full = Mock(side_effect=torch.OutOfMemoryError("no room"))
    monkeypatch.setattr(VisionTransformer, "forward_head", full)
    command, *more = words
    code, _, err = run(command, trained, *more)
    assert code == 1
    one_line(err, f"error: out of memory; {says}")


def test_a_command_that_fails_leaves_nothing_in_the_run(run: Command, tmp_path: Path) -> None:
    assert run("train", *TINY, "run.dir=own", "trainer.max_epochs=1", "-q")[0] == 0

    def held() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in (tmp_path / "own").rglob("*") if path.is_file()}

    before = held()
    names = {path.name for path in (tmp_path / "own").iterdir()}
    assert names == {"checkpoints", "config.yaml", "metrics.csv", "results.json", "tensorboard"}
    kept = {path.name for path in (tmp_path / "own" / "checkpoints").iterdir()}
    assert kept == {"last.ckpt", "best.ckpt"}
    for words in (
        ["eval", "own", "data.synthetic_classes=5"],
        ["predict", "own", "none.png"],
        ["inspect", "own", "none.png"],
        ["probe", "own", "model.depth=3"],
        ["export", "own", "--format", "keras"],
        ["train", *TINY, "run.dir=own"],
    ):
        assert run(*words)[0] > 0
        assert held() == before, words
        assert {path.name for path in (tmp_path / "own").iterdir()} == names, words
