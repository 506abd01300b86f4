"""From a section to ids: what is read, which tokeniser, and what is told where it cannot be."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.small_data import write_pairs, write_verses
from vitkit.data.text.config import ParallelDataConfig, TextDataConfig
from vitkit.data.text.corpus import cut_parts, read_texts
from vitkit.data.text.sources import load_pairs, load_text
from vitkit.data.text.tokenizers import ByteTokenizer, CharacterTokenizer, Tokenizer
from vitkit.errors import DataError

UMLAUTS = "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.\n" * 9


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "umlauts.txt"
    path.write_text(UMLAUTS, encoding="utf-8")
    return path


@pytest.mark.parametrize("tokenizer", ["char", "byte", "bpe"])
def test_a_text_comes_back_from_its_ids(text: Path, tokenizer: Any) -> None:
    data = load_text(TextDataConfig(root=str(text), tokenizer=tokenizer, vocab_size=300))
    assert data.splits.val is not None
    ids = [*data.splits.train.tolist(), *data.splits.val.tolist()]
    assert data.tokenizer.decode(ids) == UMLAUTS
    train, val = cut_parts(UMLAUTS, 0.1)
    assert data.characters == (len(train), len(val))
    first = len(data.tokenizer.decode(data.splits.val[:1].tolist()))
    want = (len(val) - first) / (len(data.splits.val) - 1)
    assert data.characters_per_token() == pytest.approx(want)
    assert (data.characters_per_token() == 1) == (tokenizer == "char")
    learned = (len(train) - len(data.tokenizer.decode(ids[:1]))) / (len(data.splits.train) - 1)
    assert data.characters_per_token("train") == pytest.approx(learned)
    assert data.facts()["num_val"] == len(data.splits.val)


def test_a_text_is_cut_in_order(tmp_path: Path) -> None:
    text = "the quick brown fox jumps over the lazy dog " * 5
    path = tmp_path / "fox.txt"
    path.write_text(text, encoding="utf-8")
    config = TextDataConfig(root=str(path))
    data = load_text(config)
    splits = data.splits
    assert splits.val is not None and splits.train.dtype == torch.uint8
    assert data.tokenizer.decode(splits.train.tolist()) == text[:198]
    assert data.tokenizer.decode(splits.val.tolist()) == text[198:]
    whole = load_text(config.model_copy(update={"val_fraction": 0.0})).splits
    assert len(whole.train) == len(text) and whole.val is None
    wide = load_text(config, ByteTokenizer(special=True)).splits
    assert wide.train.dtype == torch.int32 and wide.train.max() > 3


def test_the_last_characters_are_set_aside() -> None:
    assert cut_parts("abcdefghij", 0.2) == ("abcdefgh", "ij")
    assert cut_parts("abcdefghij", 0.0) == ("abcdefghij", "")
    for bad in (0.01, 0.99):
        with pytest.raises(DataError, match="cannot be cut"):
            cut_parts("ab" if bad > 0.5 else "", bad)


def test_bpe_learns_from_the_training_part_alone(tmp_path: Path) -> None:
    path = tmp_path / "two.txt"
    path.write_text("aaaa " * 90 + "zyzy " * 10, encoding="utf-8")
    data = load_text(TextDataConfig(root=str(path), tokenizer="bpe", vocab_size=400))
    assert data.splits.val is not None
    assert len(data.splits.train) < 150  # pieces of the training part are long
    assert len(data.splits.val) >= 40  # each character of the other is a token of its own


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("second", encoding="utf-8")
    (tmp_path / "a.ABC").write_text("first\n", encoding="utf-8")
    (tmp_path / "c.md").write_text("not read", encoding="utf-8")
    assert read_texts(tmp_path) == "first\nsecond"
    (tmp_path / "sub").mkdir()
    with pytest.raises(DataError, match=r"no file \.txt or \.abc in this folder"):
        read_texts(tmp_path / "sub")


def test_each_file_of_a_folder_begins_a_line(tmp_path: Path) -> None:
    contents = {"a": "the end", "b": "", "c": "Start\r\n", "d": "\ufeff", "e": "last"}
    for name, content in contents.items():
        (tmp_path / f"{name}.txt").write_bytes(content.encode())
    assert read_texts(tmp_path) == "the end\nStart\r\nlast"
    for name in "ace":
        (tmp_path / f"{name}.txt").write_bytes(b"")
    assert read_texts(tmp_path) == ""  # a mark alone
    (tmp_path / "d.txt").write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.txt is empty; give a file with text"):
        read_texts(tmp_path)


def test_a_model_brings_its_own_tokeniser(text: Path) -> None:
    own = CharacterTokenizer(UMLAUTS + "#")
    assert load_text(TextDataConfig(root=str(text)), own).tokenizer is own
    with pytest.raises(DataError, match="is none of the 3 that the model was trained on"):
        load_text(TextDataConfig(root=str(text)), CharacterTokenizer("abc"))


def test_pairs_of_a_folder(tmp_path: Path) -> None:
    write_pairs(tmp_path, train=20, other=5)
    config = ParallelDataConfig(root=str(tmp_path), vocab_size=300)
    data = load_pairs(config)
    assert {split: len(pairs) for split, pairs in data.splits.items()} == {
        "train": 20,
        "val": 5,
        "test": 5,
    }
    assert data.tokenizer.kind == "bpe" and data.tokenizer.vocab_size <= 300
    assert data.name == f"{tmp_path.name} en-de"
    english = (tmp_path / "val.en").read_text(encoding="utf-8").splitlines()
    assert [source for source, _ in data.texts["val"]] == english
    target = data.splits["val"].target.tolist()
    german = (tmp_path / "val.de").read_text(encoding="utf-8")
    assert data.tokenizer.decode(target) == german.replace("\n", "")
    assert data.characters_per_token("val") == pytest.approx(len(german) / len(target))
    back = load_pairs(config.model_copy(update={"source": "de", "target": "en", "test": None}))
    assert list(back.splits) == ["train", "val"]
    assert [target for _, target in back.texts["val"]] == english


def test_only_the_splits_that_are_asked_for_are_read(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    (tmp_path / "train.en").unlink()
    config = ParallelDataConfig(root=str(tmp_path))
    data = load_pairs(config, ByteTokenizer(special=True), splits=["test"])
    assert list(data.splits) == ["test"]
    with pytest.raises(DataError, match=r"no file .*train\.en; .* has test\.de, test\.en"):
        load_pairs(config)


@pytest.mark.parametrize("tokenizer", ["char", "byte", "bpe"])
def test_bad_training_pairs_stop_or_are_left_out(tmp_path: Path, tokenizer: Any) -> None:
    write_pairs(tmp_path, train=20, other=5)
    config = ParallelDataConfig(root=str(tmp_path), tokenizer=tokenizer, vocab_size=300)
    whole = load_pairs(config, max_len=64)
    assert config.on_bad_pair == "stop" and whole.num_skipped == 0
    letters = sorted(set((tmp_path / "train.de").read_text("utf-8")) - set("\n "))
    long = "".join(random.Random(0).choices(letters, k=200))
    for language, more in (("en", " \n\none\ntwo\n"), ("de", f"eins\n\n{long}\nzwei\n")):
        path = tmp_path / f"train.{language}"
        path.write_text(path.read_text("utf-8") + more, "utf-8")
    with pytest.raises(DataError, match=r"train\.en: line 21 is empty; .* data\.on_bad_pair=skip"):
        load_pairs(config, max_len=64)
    skipping = config.model_copy(update={"on_bad_pair": "skip"})
    data = load_pairs(skipping, whole.tokenizer, max_len=64)
    assert data.num_skipped == 3
    assert data.texts["train"] == [*whole.texts["train"], ("two", "zwei")]
    assert len(data.splits["train"]) == 21
    assert load_pairs(skipping, whole.tokenizer).num_skipped == 2  # any length is read
    assert load_pairs(skipping, whole.tokenizer, max_len=64, splits=["val"]).num_skipped == 0
    if tokenizer == "char":
        with pytest.raises(DataError, match=r"train: character .* none of the 3"):
            load_pairs(skipping, CharacterTokenizer("abc", special=True), max_len=64)
    learned = load_pairs(skipping, max_len=64)
    assert learned.texts["train"] == data.texts["train"]
    # What is measured on stays whole.
    (tmp_path / "val.en").write_text("one\n\n", "utf-8")
    (tmp_path / "val.de").write_text("eins\nzwei\n", "utf-8")
    with pytest.raises(DataError, match=r"val\.en: line 2 is empty"):
        load_pairs(skipping, max_len=64)


def test_each_sentence_is_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pairs(tmp_path, train=20, other=5)
    config = ParallelDataConfig(root=str(tmp_path), on_bad_pair="skip")
    heard: list[str] = []

    def listening(self: ByteTokenizer, text: str) -> list[int]:
        heard.append(text)
        return Tokenizer.encode(self, text)

    monkeypatch.setattr(ByteTokenizer, "encode", listening, raising=False)
    for max_len in (None, 512):
        heard.clear()
        data = load_pairs(config, ByteTokenizer(special=True), max_len=max_len, splits=["train"])
        assert sorted(heard) == sorted(side for pair in data.texts["train"] for side in pair)
        assert len(data.splits["train"]) == 20


def test_a_digest_tells_texts_of_one_length_apart(tmp_path: Path) -> None:
    write_verses(tmp_path / "verses.txt")
    before = load_text(TextDataConfig(root=str(tmp_path / "verses.txt")))
    assert load_text(TextDataConfig(root=str(tmp_path / "verses.txt"))).facts() == before.facts()
    verses = (tmp_path / "verses.txt").read_text("utf-8")
    (tmp_path / "verses.txt").write_text(verses.replace("moon", "noom", 1), "utf-8")
    after = load_text(TextDataConfig(root=str(tmp_path / "verses.txt")), before.tokenizer)
    changed = {key for key, value in after.facts().items() if value != before.facts()[key]}
    assert changed == {"digest_train"}
    assert (
        "digest_val"
        not in load_text(
            TextDataConfig(root=str(tmp_path / "verses.txt"), val_fraction=0.0)
        ).facts()
    )


def test_a_sentence_that_is_too_long_is_named(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    (tmp_path / "test.en").write_text("one\n" * 7 + "x" * 70 + "\n", encoding="utf-8")
    config = ParallelDataConfig(root=str(tmp_path), tokenizer="char")
    with pytest.raises(DataError, match=r"test: the source of pair 8 has 71 tokens"):
        load_pairs(config, max_len=64)


def test_another_number_of_lines_is_told(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    (tmp_path / "val.de").write_text("eins\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"val\.en has 8 lines, .*val\.de has 1"):
        load_pairs(ParallelDataConfig(root=str(tmp_path)))
    with pytest.raises(DataError, match="there is no folder"):
        load_pairs(ParallelDataConfig(root=str(tmp_path / "nowhere")))
