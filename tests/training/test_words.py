"""The tasks on words: they learn, are counted exactly, and go on bit for bit where they stopped."""

from __future__ import annotations

import csv
import math
import signal
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
import torch
import torch.nn.functional as F

from tests.interrupted import assert_equal_checkpoints, stop_at
from tests.small_data import write_pairs
from tests.small_words import pair_run, text_run
from vitkit.app import evaluate, resume, train, translate
from vitkit.app.build_words import words_from_checkpoint
from vitkit.app.trainer import try_one_batch
from vitkit.config import RunConfig
from vitkit.data.text.corpus import cut_parts
from vitkit.errors import ConfigError, Interrupted
from vitkit.models import create_model
from vitkit.records import Record
from vitkit.training import losses as losses_module
from vitkit.training.config import OptimizerConfig
from vitkit.training.losses import token_loss
from vitkit.training.optimizers import parameter_groups
from vitkit.weights import read_checkpoint, read_file

Make = Callable[..., RunConfig]

LIVELY = ("ema.enabled=true", "schedule.warmup=0.3")
"""What keeps state, on at once; dropout is each model's own."""

RUNS: dict[str, tuple[Make, tuple[str, ...]]] = {
    "transformer": (text_run, ("model.proj_drop_rate=0.1", "optimizer.name=muon")),
    "lstm": (
        text_run,
        (
            "model.name=lstm_music",
            "model.hidden_dim=12",
            "data.window=16",
            "model.drop_rate=0.1",
        ),
    ),
    "translator": (pair_run, ("schedule.name=inverse_sqrt",)),
    "lstm_translator": (
        pair_run,
        (
            "model.name=lstm_seq2seq_attention",
            "model.hidden_dim=12",
            "model.drop_rate=0.1",
            "optimizer.name=muon",
            "optimizer.adamw_lr=0.03",
        ),
    ),
}


def made(name: str, folder: Path, *overrides: str) -> RunConfig:
    """A lively config of one of the :data:`RUNS`."""
    make, more = RUNS[name]
    return make(folder, *LIVELY, *more, *overrides, recurrent="lstm" in name)


def losses(folder: Path) -> list[float]:
    """Of the training steps, from the log."""
    with (folder / "metrics.csv").open() as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def test_loss_a_token_is_the_mean_over_tokens_with_smoothing() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(3, 4, 7), torch.randint(7, (3, 4))
    targets[1, 2:] = -100
    real = targets >= 0
    log_p = logits.double().log_softmax(-1)[real]
    wanted = F.one_hot(targets[real], 7).double()
    for smoothing in (0.0, 0.1):
        soft = (1 - smoothing) * wanted + smoothing / 7
        want = -(soft * log_p).sum(-1).mean()
        got = token_loss(logits, targets, label_smoothing=smoothing).double()
        torch.testing.assert_close(got, want, rtol=1e-6, atol=0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("words", [7, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_of_many_logits_the_gradient_takes_their_place(
    monkeypatch: pytest.MonkeyPatch, smoothing: float, words: int, dtype: torch.dtype
) -> None:
    """Against torch's, with the head that makes the logits and the gradients of both its sides."""
    monkeypatch.setattr(losses_module, "LARGE", 0)
    monkeypatch.setattr(losses_module, "CHUNK", 3 * words + 1)  # 20 rows: the last chunk is short
    torch.manual_seed(1)
    targets = torch.randint(words, (4, 5))
    targets[0, :3], targets[3] = -100, -100
    leaves = torch.randn(4, 5, 6, dtype=dtype), torch.randn(words, 6, dtype=dtype)

    def gradients(loss_of: Callable[[torch.Tensor], torch.Tensor]) -> list[torch.Tensor]:
        tokens, weight = (leaf.clone().requires_grad_() for leaf in leaves)
        loss = loss_of(tokens @ weight.T)
        (loss * 0.5).backward()  # as with micro-batches
        assert tokens.grad is not None and weight.grad is not None
        return [loss, tokens.grad, weight.grad]

    in_place: list[torch.Tensor] = []

    def ours(logits: torch.Tensor) -> torch.Tensor:
        before = logits.detach().clone()
        loss = token_loss(logits, targets, label_smoothing=smoothing)
        in_place.append((before != logits).any())
        return loss

    def theirs(logits: torch.Tensor) -> torch.Tensor:
        flat = logits.float().flatten(0, 1)
        return F.cross_entropy(flat, targets.flatten(), label_smoothing=smoothing)

    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {}
    for got, want in zip(gradients(ours), gradients(theirs), strict=True):
        torch.testing.assert_close(got, want, **tolerance)
    assert bool(in_place[0]), "the rows were not taken in place"


def test_logits_that_nobody_computed_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses_module, "LARGE", 0)
    for wants_gradient in (True, False):
        logits = torch.randn(2, 3, 5, requires_grad=wants_gradient)
        before = logits.detach().clone()
        token_loss(logits, torch.zeros(2, 3, dtype=torch.long))
        assert torch.equal(logits, before)


@pytest.mark.parametrize("name", RUNS)
def test_it_learns(tmp_path: Path, name: str) -> None:
    steps = ["trainer.max_epochs=14", "trainer.max_time=120", "trainer.log_every_n_steps=1"]
    result = train(made(name, tmp_path / "run", *steps), progress=False)
    seen = losses(result.folder)
    assert len(seen) >= 40
    assert sum(seen[-5:]) < 0.8 * sum(seen[:5])
    assert result.metrics["val/loss"] < 0.9 * seen[0]
    assert result.metrics["val/ppl"] == pytest.approx(math.exp(result.metrics["val/loss"]))
    bits = result.metrics["val/loss"] / math.log(2)
    assert result.metrics["val/bits_per_char"] == pytest.approx(bits)  # tokens are characters
    assert result.record.facts["tokens_per_second"] > 0
    assert ("test/bleu" in result.metrics) == ("translator" in name)
    translations = result.folder / "translations-test.txt"
    assert translations.is_file() == ("translator" in name)


@pytest.mark.parametrize("name", ["transformer", "lstm"])
def test_a_language_model_knows_more_than_the_letter_before(tmp_path: Path, name: str) -> None:
    """Its loss is below what the pairs of letters of the whole text leave open."""
    width = "model.hidden_dim=32" if name == "lstm" else "model.embed_dim=32"
    more = ("data.steps_per_epoch=100", "trainer.max_epochs=2", "ema.decay=0.9", width)
    result = train(made(name, tmp_path / "run", *more), progress=False)
    text = (tmp_path / "verses.txt").read_text(encoding="utf-8")
    before, pairs = Counter(text[:-1]), Counter(pairwise(text))
    open_still = -sum(n * math.log(n / before[pair[0]]) for pair, n in pairs.items())
    assert result.metrics["val/loss"] < 0.7 * open_still / (len(text) - 1)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("translator", ("model.embed_dim=32", "trainer.max_epochs=22")),
        ("lstm_translator", ("model.hidden_dim=32", "trainer.max_epochs=16")),
    ],
)
def test_a_translator_reads_what_it_translates(
    tmp_path: Path, name: str, more: tuple[str, ...]
) -> None:
    """It predicts the translation of the sentence that it read better than that of another."""
    write_pairs(tmp_path / "sentences", train=240)
    result = train(made(name, tmp_path / "run", "ema.decay=0.9", *more), progress=False)
    model, tokenizer = words_from_checkpoint(read_checkpoint(result.checkpoint))
    sources, targets = (
        (tmp_path / "sentences" / f"test.{end}").read_text(encoding="utf-8").splitlines()
        for end in ("en", "de")
    )

    def loss(read: list[str]) -> float:
        total, count = 0.0, 0
        for source, target in zip(read, targets, strict=True):
            given = torch.tensor([[*tokenizer.encode(source), tokenizer.eos_id]])
            words = torch.tensor([tokenizer.bos_id, *tokenizer.encode(target), tokenizer.eos_id])
            with torch.no_grad():
                log_p = model(given, words[None, :-1])[0].double().log_softmax(-1)
            total -= float(log_p.gather(1, words[1:, None]).sum())
            count += len(words) - 1
        return total / count

    own, of_others = loss(sources), loss([*sources[1:], sources[0]])
    assert own == pytest.approx(result.metrics["test/loss"], rel=1e-5)
    assert own < 0.7 * of_others


@pytest.mark.parametrize(
    ("name", "accumulate", "step"),
    [("transformer", 2, 2), ("lstm", 1, 5), ("translator", 2, 5), ("lstm_translator", 1, 2)],
)
def test_resume_after_sigterm_is_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, accumulate: int, step: int
) -> None:
    more = f"trainer.accumulate_grad_batches={accumulate}"
    whole = train(made(name, tmp_path / "whole", more), progress=False)
    with monkeypatch.context() as patch:
        stop_at(patch, step, signal.SIGTERM)
        with pytest.raises(Interrupted):
            train(made(name, tmp_path / "parts", more), progress=False)
    assert read_checkpoint(tmp_path / "parts" / "checkpoints" / "last.ckpt").step == step
    parts = resume(tmp_path / "parts", progress=False)
    assert_equal_checkpoints(whole.checkpoint, parts.checkpoint)
    assert parts.metrics == whole.metrics
    assert losses(whole.folder) == losses(parts.folder)


@pytest.fixture(scope="module")
def language_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("words") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("VITKIT_RUN_DIR", raising=False)
        train(text_run(folder, "ema.enabled=true"), progress=False)
    return folder


@pytest.fixture(scope="module")
def translation_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("VITKIT_RUN_DIR", raising=False)
        train(pair_run(folder, "trainer.max_epochs=8"), progress=False)
    return folder


def test_the_validation_loss_is_a_sum_by_hand(language_run: Path) -> None:
    """Each token but the first is predicted once, from the tokens of its window before it."""
    checkpoint = read_checkpoint(language_run / "checkpoints" / "last.ckpt")
    model, tokenizer = words_from_checkpoint(checkpoint)
    _, val = cut_parts((language_run.parent / "verses.txt").read_text(encoding="utf-8"), 0.1)
    ids = torch.tensor(tokenizer.encode(val))
    total, window = 0.0, 16
    with torch.no_grad():
        for start in range(0, len(ids) - 1, window):
            piece = ids[start : start + window + 1]
            log_p = model(piece[None, :-1])[0].double().log_softmax(-1)
            total -= float(log_p.gather(1, piece[1:, None]).sum())
    for size in (1, 7, 64):
        result = evaluate(language_run, [f"data.eval_batch_size={size}"], progress=False)
        assert result.count == len(ids) - 1 and result.unit == "tokens"
        assert result.metrics["val/loss"] == pytest.approx(total / (len(ids) - 1), rel=1e-6)
    trained = result.record.facts
    assert trained["weights"] == "averaged" and trained["split"] == "val"


def test_evaluating_gives_what_the_training_reported(
    language_run: Path, translation_run: Path
) -> None:
    for run in (language_run, translation_run):
        reported = Record.read(run / "results.json").metrics
        again = evaluate(run, progress=False).metrics
        for name, value in again.items():
            assert reported[name] == pytest.approx(value, rel=1e-6), name
        assert (run / "eval.json").exists()


def test_the_loss_of_a_translator_is_a_sum_by_hand(translation_run: Path) -> None:
    checkpoint = read_checkpoint(translation_run / "checkpoints" / "last.ckpt")
    model, tokenizer = words_from_checkpoint(checkpoint)
    pairs = translation_run.parent / "sentences"
    texts = [(pairs / f"test.{end}").read_text(encoding="utf-8") for end in ("en", "de")]
    sides = [text.splitlines() for text in texts]
    total, count = 0.0, 0
    with torch.no_grad():
        for source, target in zip(*sides, strict=True):
            read = torch.tensor([[*tokenizer.encode(source), tokenizer.eos_id]])
            words = torch.tensor([tokenizer.bos_id, *tokenizer.encode(target), tokenizer.eos_id])
            log_p = model(read, words[None, :-1])[0].double().log_softmax(-1)
            total -= float(log_p.gather(1, words[1:, None]).sum())
            count += len(words) - 1
    for size in (50, 1000):
        result = evaluate(translation_run, [f"data.eval_batch_size={size}"], progress=False)
        assert result.count == count
        assert result.metrics["test/loss"] == pytest.approx(total / count, rel=1e-6)
    bleu = sacrebleu.corpus_bleu(translate(translation_run, sides[0]), [sides[1]]).score
    assert result.metrics["test/bleu"] == pytest.approx(bleu)
    greedy = sacrebleu.corpus_bleu(translate(translation_run, sides[0], num_beams=1), [sides[1]])
    assert result.metrics["test/bleu_greedy"] == pytest.approx(greedy.score)
    written = (translation_run / "translations-test.txt").read_text(encoding="utf-8")
    assert written.splitlines() == translate(translation_run, sides[0])
    assert "tok:13a" in str(result.record.facts["bleu_signature"])


def test_the_tokeniser_travels_as_plain_values(language_run: Path, translation_run: Path) -> None:
    for run, special in ((language_run, False), (translation_run, True)):
        values = read_file(run / "checkpoints" / "last.ckpt")["vitkit"]["tokenizer"]
        assert values["kind"] == "characters" and values["special"] is special
        assert all(isinstance(value, str | bool) for value in values.values())


def test_weights_bring_their_tokeniser(language_run: Path, tmp_path: Path) -> None:
    """A new text with fewer characters is read with the old ones; the weights fit."""
    other = tmp_path / "other.txt"
    other.write_text("ROMEO draws.\n" * 40, encoding="utf-8")
    weights = f"model.weights={language_run / 'checkpoints' / 'last.ckpt'}"
    config = text_run(tmp_path / "run", weights, f"data.root={other}", "trainer.max_epochs=1")
    result = train(config, progress=False)
    before, after = (
        read_checkpoint(run / "checkpoints" / "last.ckpt") for run in (language_run, result.folder)
    )
    assert after.tokenizer == before.tokenizer
    assert result.metrics["val/loss"] < losses(language_run)[0]


@pytest.mark.parametrize("name", ["transformer", "lstm", "translator"])
def test_half_precision_and_one_batch(tmp_path: Path, name: str) -> None:
    config = made(name, tmp_path / "run", "trainer.precision=bf16-mixed", "optimizer.name=adamw")
    job = try_one_batch(config)
    assert job.unit == "tokens" and job.units_per_step > 0
    assert all(p.isfinite().all() for p in job.model.parameters())
    assert not (tmp_path / "run").exists()


def test_a_window_longer_than_the_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.window: given 40, but the model has 16"):
        train(text_run(tmp_path / "run", "data.window=40"), progress=False)
    with pytest.raises(ConfigError, match=r"model\.vocab_size: given 99, but the tokeniser"):
        train(text_run(tmp_path / "run", "model.vocab_size=99"), progress=False)
    assert not (tmp_path / "run").exists()


def test_an_epoch_is_a_pass_unless_it_is_told(tmp_path: Path) -> None:
    job = try_one_batch(text_run(tmp_path / "run", "data.steps_per_epoch=null"))
    config: Any = job.config
    text, _ = cut_parts(Path(config.data.root).read_text(encoding="utf-8"), 0.1)
    assert job.steps_per_epoch == len(text) // (8 * 16)
    assert job.units_per_step == 8 * 16


def _muon(model: Any) -> set[str]:
    config = OptimizerConfig(name="muon")
    groups = [g for g in parameter_groups(model, config) if g.get("muon")]
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)] for group in groups for p in group["params"]}


def test_muon_takes_hidden_matrices_but_no_words() -> None:
    tiny: dict[str, Any] = {"vocab_size": 11, "embed_dim": 16, "depth": 1, "num_heads": 2}
    block = {"attn.qkv.weight", "attn.proj.weight", "mlp.fc1.weight", "mlp.fc2.weight"}
    for tied in (True, False):
        model = create_model("lm_char_mini", tie_embeddings=tied, **tiny)
        assert _muon(model) == {f"blocks.0.{name}" for name in block}
    translator = _muon(create_model("transformer_tiny", **tiny))
    assert {f"encoder.0.{name}" for name in block} <= translator
    assert not any("words" in name or "head" in name for name in translator)
