"""GPT-2's weights and tokeniser, against transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model, GPT2TokenizerFast

from tests.data.text.test_tokenizers import SENTENCES
from vitkit.app import generate, load_model, train
from vitkit.config import load_config
from vitkit.data.text.tokenizers import BpeTokenizer
from vitkit.errors import DataError, WeightsError
from vitkit.models import CausalLanguageModel, create_model
from vitkit.weights import load_weights, read_checkpoint

PIECES = 280
SHAPE = {"embed_dim": 24, "depth": 2, "num_heads": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As a repository of the hub: a small GPT-2 and its tokeniser."""
    place = tmp_path_factory.mktemp("gpt2")
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=PIECES, n_positions=16, n_embd=24, n_layer=2, n_head=3)
    config.bos_token_id = config.eos_token_id = 0
    model = GPT2LMHeadModel(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(place)
    learned = ByteLevelBPETokenizer()
    learned.train_from_iterator(SENTENCES, vocab_size=PIECES, min_frequency=1, show_progress=False)
    assert learned.get_vocab_size() == PIECES
    learned.save_model(str(place))
    return place


def ours(**more: object) -> CausalLanguageModel:
    model = create_model("gpt2", **{"vocab_size": PIECES, "max_len": 16, **SHAPE, **more})
    assert isinstance(model, CausalLanguageModel)
    return model.eval()


def worst(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float(((found - expected).abs().max() / expected.abs().max()).detach())


@pytest.mark.parametrize("what", ["folder", "state dict", "bare"])
def test_equals_transformers(folder: Path, what: str) -> None:
    theirs = GPT2LMHeadModel.from_pretrained(folder).eval()
    state = theirs.state_dict()
    if what == "bare":  # of the model without its head, with the masks that old files hold
        state = dict(GPT2Model.from_pretrained(folder).state_dict())
        state["h.0.attn.bias"] = torch.ones(1, 1, 16, 16)
    model = ours()
    report = load_weights(model, folder if what == "folder" else state)
    assert report.format == "GPT-2" and not report.new
    assert set(report.loaded) == set(model.state_dict())
    left = {"folder": [], "state dict": ["lm_head.weight"], "bare": ["h.0.attn.bias"]}[what]
    assert report.unused == left
    ids = torch.randint(PIECES, (2, 16), generator=torch.Generator().manual_seed(1))
    assert worst(model(ids), theirs(ids).logits) <= 1e-5


def test_a_head_of_its_own_goes_into_a_model_that_has_one(folder: Path) -> None:
    theirs = GPT2LMHeadModel.from_pretrained(folder).eval()
    state = dict(theirs.state_dict())
    state["lm_head.weight"] = torch.randn(PIECES, 24)
    model = ours(tie_embeddings=False)
    assert not load_weights(model, state).unused
    assert torch.equal(model.state_dict()["head.weight"], state["lm_head.weight"])
    with pytest.raises(WeightsError, match=r"head.weight: not in the model"):
        load_weights(ours(), state)


@pytest.mark.parametrize("bare", [False, True])
def test_a_head_apart_begins_as_the_embedding(folder: Path, bare: bool) -> None:
    theirs = GPT2LMHeadModel.from_pretrained(folder).eval()
    state = theirs.transformer.state_dict() if bare else theirs.state_dict()
    model = ours(tie_embeddings=False)
    assert not load_weights(model, state).new
    ids = torch.arange(16)[None]
    assert worst(model(ids), theirs(ids).logits) <= 1e-5


def test_a_shorter_model_keeps_the_first_positions(folder: Path) -> None:
    model = ours(max_len=9)
    assert load_weights(model, folder).resized == ["words.pos_embed"]
    whole = ours()
    load_weights(whole, folder)
    ids = torch.arange(9)[None]
    assert worst(model(ids), whole(ids)) <= 1e-6
    with pytest.raises(WeightsError, match=r"words.pos_embed: given \(1, 16, 24\)"):
        load_weights(ours(max_len=17), folder)


def test_what_cannot_be_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is GPT-2, which reads words, not pictures"):
        load_model(folder)
    other = {"activation_function": "relu", "add_cross_attention": True}
    for key, value in {**other, "layer_norm_epsilon": 1e-6, "scale_attn_weights": False}.items():
        model = GPT2LMHeadModel.from_pretrained(folder)
        setattr(model.config, key, value)
        model.save_pretrained(tmp_path / key)
        with pytest.raises(WeightsError, match=key):
            load_weights(ours(), tmp_path / key)


def test_the_tokeniser_is_gpt2s(folder: Path) -> None:
    vocab, merges = str(folder / "vocab.json"), str(folder / "merges.txt")
    theirs = GPT2TokenizerFast(vocab=vocab, merges=merges)
    own = BpeTokenizer.read(folder / "vocab.json", folder / "merges.txt")
    assert own.vocab_size == PIECES
    for text in (*SENTENCES, " two  blanks\n\tand é, 日本 1234's"):
        assert own.encode(text) == theirs(text)["input_ids"]
        assert own.decode(own.encode(text)) == text


@pytest.mark.parametrize(
    ("vocab", "merges"),
    [("[1]", ""), ('{"a": "x"}', ""), ('{"a": 0, "b": 2}', ""), ('{"a": 0}', "a b c"), ("{", "")],
)
def test_damaged_files_of_a_tokeniser_are_one_line(tmp_path: Path, vocab: str, merges: str) -> None:
    (tmp_path / "vocab.json").write_text(vocab)
    (tmp_path / "merges.txt").write_text(merges)
    with pytest.raises(DataError, match=r"no tokeniser of GPT-2's") as caught:
        BpeTokenizer.read(tmp_path / "vocab.json", tmp_path / "merges.txt")
    assert "\n" not in str(caught.value)


def test_a_training_goes_on_from_it(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(" ".join(SENTENCES * 40))
    model = [f"model.{key}={value}" for key, value in SHAPE.items()]
    rest = ["task.name=language_model", "data.name=text", f"data.root={tmp_path / 'text.txt'}"]
    rest += ["data.batch_size=4", "data.steps_per_epoch=2", "trainer.max_epochs=1"]
    rest += ["trainer.accelerator=cpu", f"run.dir={tmp_path / 'run'}", "optimizer.lr=1e-9"]
    names = ["model.name=gpt2", "model.max_len=16", f"model.weights={folder}"]
    result = train(load_config([], [*names, *model, *rest]), progress=False)
    kept = read_checkpoint(result.checkpoint)
    assert kept.tokenizer is not None and len(kept.tokenizer["pieces"]) == PIECES
    whole = ours()
    load_weights(whole, folder)
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(kept.trained[name], tensor, atol=1e-6, rtol=1e-5)
    assert generate(result.folder, "the", tokens=3).startswith("the")
