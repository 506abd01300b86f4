"""Tokenisers: there and back, plain values, and one clear line for what they cannot read."""

from __future__ import annotations

import builtins
import io
import tracemalloc
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import ByteLevelBPETokenizer

from vitkit.data.text import tokenizers as tokenizers_module
from vitkit.data.text.tokenizers import (
    TOKENIZERS,
    BpeTokenizer,
    ByteTokenizer,
    CharacterTokenizer,
    Tokenizer,
    require_fit,
    tokenizer_from_plain,
)
from vitkit.errors import DataError

SENTENCES = [
    "Two young men are outside near many bushes.",
    "Several men in hard hats are operating a giant pulley system.",
    "Zwei junge weiße Männer sind im Freien in der Nähe vieler Büsche.",
    "Mehrere Männer mit Schutzhelmen bedienen ein Antriebsradsystem.",
] * 3
TEXT = "".join(SENTENCES)
BPE = BpeTokenizer.train(SENTENCES, 300)
MAKERS: dict[str, Tokenizer] = {
    "characters": CharacterTokenizer(TEXT),
    "characters_special": CharacterTokenizer(TEXT, special=True),
    "bytes": ByteTokenizer(),
    "bytes_special": ByteTokenizer(special=True),
    "bpe": BPE,
    "bpe_bare": BpeTokenizer.train(SENTENCES, 300, special=False),
}
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.mark.parametrize("name", MAKERS)
def test_there_and_back_and_through_a_checkpoint(name: str) -> None:
    ours = MAKERS[name]
    file = io.BytesIO()
    torch.save(ours.to_plain(), file)
    file.seek(0)
    again = tokenizer_from_plain(torch.load(file, weights_only=True))
    assert type(again) is type(ours) and again.to_plain() == ours.to_plain()
    for text in ("", "men", SENTENCES[2], " a  b".replace("b", "m"), TEXT):
        ids = ours.encode(text)
        assert ours.decode(ids) == text and again.encode(text) == ids
        assert all(0 <= word < ours.vocab_size for word in ids)
    assert again.vocab_size == ours.vocab_size


@given(ANY_TEXT)
def test_bytes_and_pieces_know_every_text(text: str) -> None:
    for name in ("bytes", "bytes_special", "bpe", "bpe_bare"):
        assert MAKERS[name].decode(MAKERS[name].encode(text)) == text


@given(ANY_TEXT)
def test_characters_know_their_own(text: str) -> None:
    ours = CharacterTokenizer(text + "a")
    assert ours.vocab_size == len(set(text + "a"))
    assert ours.decode(ours.encode(text)) == text


@given(ANY_TEXT)
def test_a_long_text_has_the_same_ids(text: str) -> None:
    makers = [CharacterTokenizer(text + "a"), CharacterTokenizer(text + "a", special=True)]
    for ours in (*makers, *(MAKERS[name] for name in ("bytes", "bytes_special", "bpe"))):
        ids = ours.encode_tensor(text)
        assert ids.tolist() == ours.encode(text)
        assert ids.dtype == (torch.uint8 if ours.vocab_size <= 256 else torch.int32)


def test_so_has_one_of_several_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizers_module, "PIECE", 7)
    for name in MAKERS:
        assert MAKERS[name].encode_tensor(TEXT).tolist() == MAKERS[name].encode(TEXT)
    for text in ("abcabcabcé", "abcabcabcabc\U0010ffff", "\ud800"):
        with pytest.raises(DataError) as caught:
            CharacterTokenizer("abc").encode_tensor(text)
        with pytest.raises(DataError) as wanted:
            CharacterTokenizer("abc").encode(text)
        assert str(caught.value) == str(wanted.value)


@pytest.mark.parametrize("name", ["characters", "bytes"])
def test_a_long_text_takes_little_memory(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of numbers take 16 bytes a character, and more of those above 256."""
    monkeypatch.setattr(tokenizers_module, "PIECE", 2**14)
    text = TEXT * 500
    tracemalloc.start()
    try:
        MAKERS[name].encode_tensor(text)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(text)


def test_characters_stand_in_order() -> None:
    ours = CharacterTokenizer("hello, world")
    assert ours.characters == " ,dehlorw"
    assert ours.encode("led") == [5, 3, 2]
    assert CharacterTokenizer("ab", special=True).encode("ba") == [4, 3]


def test_no_text_becomes_a_special_word() -> None:
    for name in ("characters_special", "bytes_special", "bpe"):
        ours = MAKERS[name]
        assert (ours.pad_id, ours.bos_id, ours.eos_id) == (0, 1, 2)
        assert min(ours.encode(TEXT)) >= 3
        assert ours.decode([1, *ours.encode("men"), 2, 0, 0]) == "men"
    assert min(BPE.encode("<pad> <bos> <eos> [PAD] </s>")) >= 3
    assert MAKERS["bytes"].pad_id is MAKERS["bytes"].bos_id is MAKERS["bytes"].eos_id is None


def test_pieces_are_the_librarys() -> None:
    theirs = ByteLevelBPETokenizer()
    theirs.train_from_iterator(SENTENCES, vocab_size=297, min_frequency=2, show_progress=False)
    assert BPE.vocab_size <= 300 and len(BPE.merges) > 20
    for sentence in (*SENTENCES, "Männer bedienen an unseen sentence"):
        ids = [word - 3 for word in BPE.encode(sentence)]
        assert [BPE.pieces[word] for word in ids] == theirs.encode(sentence).tokens
    assert len(BPE.encode(SENTENCES[0])) < 0.7 * len(SENTENCES[0])


def test_training_twice_learns_the_same() -> None:
    assert BpeTokenizer.train(iter(SENTENCES), 300).to_plain() == BPE.to_plain()


def test_a_character_cut_in_two_is_marked() -> None:
    for name in ("bytes", "bpe_bare"):
        ours = MAKERS[name]
        ids = MAKERS["bytes"].encode("ä") if name == "bytes" else [ours.encode("€")[0]]
        assert "\ufffd" in ours.decode(ids[:1])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: CharacterTokenizer("abc").encode("cabé"),
            ["'é'", "U+00E9", "3 places", "3 that"],
        ),
        (lambda: CharacterTokenizer("abc").encode("a\nb"), [r"'\n'", "U+000A"]),
        (lambda: CharacterTokenizer(""), ["empty"]),
        (lambda: ByteTokenizer().encode("a\ud800"), [r"'\ud800'", "place 1", "UTF-8"]),
        (lambda: BPE.encode("\udfff"), ["UTF-8"]),
        (lambda: ByteTokenizer().decode([256]), ["256", "do not belong together"]),
        (lambda: CharacterTokenizer("ab").decode([-1]), ["-1"]),
        (lambda: BpeTokenizer.train(SENTENCES, 100), ["vocab_size 100", "259"]),
        (lambda: BpeTokenizer(["a", "b"], []), ["lacks 254"]),
        (lambda: BpeTokenizer([*BPE.pieces, "a"], BPE.merges), ["twice"]),
        (lambda: BpeTokenizer(BPE.pieces[:256], BPE.merges), ["disagree"]),
        (lambda: require_fit(ByteTokenizer(), 65), ["bytes", "256", "65"]),
        (lambda: tokenizer_from_plain(None), ["NoneType"]),
        (lambda: tokenizer_from_plain({}), ["'kind'"]),
        (lambda: tokenizer_from_plain({"kind": "words"}), ["'words'", "characters, bytes, bpe"]),
        (lambda: tokenizer_from_plain({"kind": "characters", "special": False}), ["'characters'"]),
        (lambda: tokenizer_from_plain({"kind": "bytes", "special": 1}), ["'special'", "int"]),
        (
            lambda: tokenizer_from_plain({**BPE.to_plain(), "merges": [["a"]]}),
            ["merges no pairs"],
        ),
    ],
)
def test_one_clear_line_for_each_fault(call: Any, words: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        call()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any) -> Any:
        if name == "tokenizers":
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(DataError, match=r"pip install 'vitkit\[text\]'"):
        tokenizer_from_plain(BPE.to_plain())
    assert tokenizer_from_plain(MAKERS["bytes"].to_plain()).vocab_size == 256


def test_kinds_travel_under_their_own_names() -> None:
    require_fit(BPE, BPE.vocab_size)
    assert all(TOKENIZERS[maker.kind] is type(maker) for maker in MAKERS.values())
    assert set(TOKENIZERS) == {maker.kind for maker in MAKERS.values()}
