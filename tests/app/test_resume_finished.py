"""A finished run is left alone; a resumed one tells of all its parts."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.training.test_resume import _stop_at
from vitkit.app import resume, train
from vitkit.config import RunConfig, load_config
from vitkit.errors import Interrupted
from vitkit.training.budget import Clock

Tiny = Callable[..., RunConfig]


def _content(folder: Path) -> dict[Path, tuple[bytes, int]]:
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_finished_run_is_left_as_it_is(tiny: Tiny) -> None:
    done = train(tiny("trainer.max_epochs=1"), progress=False)
    before = _content(done.folder)
    again = resume(done.folder, progress=False)
    assert _content(done.folder) == before
    assert again == done


def test_rate_and_time_cover_all_parts(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped after the last step of all: what is resumed trains nothing, and tests."""
    with monkeypatch.context() as patch:
        _stop_at(patch, 9, signal.SIGINT)
        patch.setattr(Clock, "seconds", lambda self: 1000.0)
        with pytest.raises(Interrupted):
            train(tiny(), progress=False)
    result = resume(str(tiny().run.dir))
    assert "resume after step 9 of 9" in capsys.readouterr().out
    facts = result.record.facts
    assert facts["steps"] == 9
    assert float(str(facts["images_per_second"])) > 0
    assert float(str(facts["wall_seconds"])) > 1000


def test_resuming_does_not_need_the_weights_that_it_began_with(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = train(tiny("trainer.max_epochs=1", folder="first"), progress=False)
    start = tmp_path / "start.ckpt"
    first.checkpoint.rename(start)
    with monkeypatch.context() as patch:
        _stop_at(patch, 2)
        with pytest.raises(Interrupted):
            train(tiny(f"model.weights={start}", folder="second"), progress=False)
    start.unlink()
    result = resume(tmp_path / "second", progress=False)
    assert result.record.facts["steps"] == 9


def test_a_finished_run_can_be_trained_on_as_a_new_one(tiny: Tiny, tmp_path: Path) -> None:
    """What the message of --resume advises."""
    first = train(tiny("ema.enabled=true", "trainer.max_epochs=1", folder="one"), progress=False)
    more = [f"model.weights={first.checkpoint}", f"run.dir={tmp_path / 'two'}"]
    more += ["optimizer.lr=1e-9", "ema.enabled=false"]
    second = train(load_config([first.folder / "config.yaml"], more), progress=False)
    assert second.metrics["test/loss"] == pytest.approx(first.metrics["test/loss"], rel=1e-4)
