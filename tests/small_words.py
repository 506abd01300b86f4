"""Tiny runs of the tasks on words."""

from __future__ import annotations

from pathlib import Path

from tests.small_data import write_pairs, write_verses
from vitkit.config import RunConfig, load_config

__all__ = ["PAIRS", "SKILLED", "TEXT", "pair_run", "text_run"]

COMMON = [
    "optimizer.lr=1e-2",
    "trainer.accelerator=cpu",
    "trainer.log_every_n_steps=1",
    "run.report=false",
]

TEXT = [
    *COMMON,
    "data.name=text",
    "task.name=language_model",
    "model.name=lm_char_mini",
    "model.embed_dim=16",
    "model.depth=2",
    "model.num_heads=2",
    "model.max_len=16",
    "data.batch_size=8",
    "data.steps_per_epoch=4",
    "trainer.max_epochs=3",
]
"""A Transformer on a few verses: 12 steps of 8 windows of 16 characters."""

PAIRS = [
    *COMMON,
    "data.name=parallel",
    "data.tokenizer=char",
    "data.batch_size=400",
    "task.name=translation",
    "model.name=transformer_tiny",
    "model.embed_dim=16",
    "model.depth=1",
    "model.num_heads=2",
    "model.max_len=48",
    "trainer.max_epochs=3",
]
"""A translator of words in a row, character by character."""


SKILLED = [
    "data.tokenizer=bpe",
    "data.vocab_size=290",
    "data.batch_size=60",
    "model.embed_dim=32",
    "optimizer.lr=5e-3",
    "trainer.max_epochs=20",
]
"""More settings, of a translator that knows most words and ends its sentences: three seconds."""

TRANSFORMER_KEYS = {"model.depth", "model.num_heads", "model.max_len"}
"""Keys that a recurrent model lacks, or has another size for."""


def text_run(folder: Path, *overrides: str, recurrent: bool = False) -> RunConfig:
    """The config of a run in ``folder``, whose text is written beside it."""
    text = folder.parent / "verses.txt"
    if not text.exists():
        write_verses(text)
    return _config(TEXT, recurrent, f"data.root={text}", f"run.dir={folder}", *overrides)


def pair_run(folder: Path, *overrides: str, recurrent: bool = False) -> RunConfig:
    """The config of a run in ``folder``, whose sentences are written beside it."""
    pairs = folder.parent / "sentences"
    if not pairs.exists():
        write_pairs(pairs)
    return _config(PAIRS, recurrent, f"data.root={pairs}", f"run.dir={folder}", *overrides)


def _config(usual: list[str], recurrent: bool, *overrides: str) -> RunConfig:
    left_out = TRANSFORMER_KEYS if recurrent else set()
    kept = [setting for setting in usual if setting.partition("=")[0] not in left_out]
    return load_config([], [*kept, *overrides])
