"""Pairs of sentences: two files line by line, in batches of about as many tokens each."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from vitkit.data.epochs import EpochLoader
from vitkit.data.random import epoch_permutation
from vitkit.data.text.corpus import IGNORED, read_text
from vitkit.data.text.tokenizers import Tokenizer
from vitkit.errors import DataError

__all__ = [
    "PairBatch",
    "PairEvalLoader",
    "PairTrainLoader",
    "SentencePairs",
    "encode_fitting_pairs",
    "encode_pairs",
    "read_lines",
    "read_pairs",
]

BATCH_ORDER = 1 << 32
"""Keeps the shuffling of batches apart from that of pairs: no epoch reaches it."""

NO_PAIRS = "no pairs of sentences given"


class PairBatch(NamedTuple):
    """What a loader of pairs yields, on the training device.

    Attributes:
        source: tokens and the end token, then padding, int64 (B, M).
        source_lengths: of them, int64 (B,).
        inputs: the start token and the target's, then padding, int64 (B, N).
        targets: the target's tokens and the end's, then :data:`IGNORED`, int64 (B, N).
        positions: int64 (B,), on the CPU: places of the pairs in the split.
    """

    source: Tensor
    source_lengths: Tensor
    inputs: Tensor
    targets: Tensor
    positions: Tensor


@dataclass(frozen=True)
class SentencePairs:
    """Pairs as ids: all sentences of a side in one row.

    Attributes:
        source, target: ids, each sentence with the end token behind it, int32 (S,) and (T,).
        source_lengths, target_lengths: with the end token, int64 (P,).
        pad_id, bos_id: tokens for padding and for a target's beginning.
    """

    source: Tensor
    target: Tensor
    source_lengths: Tensor
    target_lengths: Tensor
    pad_id: int
    bos_id: int

    def __len__(self) -> int:
        return len(self.source_lengths)

    @property
    def sizes(self) -> Tensor:
        """What a pair takes of a batch: the tokens of its longer side, int64 (P,)."""
        return torch.maximum(self.source_lengths, self.target_lengths)


def read_lines(path: str | Path) -> list[str]:
    """The lines of a text file in UTF-8: broken at line feeds alone, as other tools count them.

    Raises:
        DataError: see :func:`vitkit.data.text.corpus.read_text`.
    """
    lines = read_text(path).split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def read_pairs(
    source: str | Path, target: str | Path, *, empty: bool = False
) -> list[tuple[str, str]]:
    """Line by line the sentences of two files.

    Args:
        source: file of the one language.
        target: file of the other.
        empty: lines may be.

    Raises:
        DataError: a file that cannot be read, another number of lines, or an empty line.
    """
    sources, targets = read_lines(source), read_lines(target)
    if len(sources) != len(targets):
        raise DataError(
            f"{source} has {len(sources)} lines, {target} has {len(targets)}; line n of one must "
            "translate line n of the other"
        )
    pairs = list(zip(sources, targets, strict=True))
    if empty:
        return pairs
    for number, pair in enumerate(pairs, start=1):
        for path, line in zip((source, target), pair, strict=True):
            if not line.strip():
                raise DataError(
                    f"{path}: line {number} is empty; take it out of both files, or fill it, or "
                    "leave such training pairs out with data.on_bad_pair=skip"
                )
    return pairs


def encode_pairs(
    pairs: Sequence[tuple[str, str]], tokenizer: Tokenizer, *, max_len: int | None = None
) -> SentencePairs:
    """Pairs of sentences as ids.

    Args:
        pairs: source and target.
        tokenizer: of both, with special tokens.
        max_len: most tokens of a sentence, the special one included; None: any number.

    Raises:
        DataError: no pairs, a tokeniser without special tokens, a character that it does not know,
            or a longer sentence.
    """
    pad_id, bos_id, eos_id = _special_tokens(tokenizer)
    if not pairs:
        raise DataError(NO_PAIRS)
    sides: list[tuple[Tensor, Tensor]] = []
    for side in (0, 1):
        row, lengths = _row([[*tokenizer.encode(pair[side]), eos_id] for pair in pairs])
        longest = int(lengths.argmax())
        if max_len is not None and lengths[longest] > max_len:
            name = ("source", "target")[side]
            raise DataError(
                f"the {name} of pair {longest + 1} has {int(lengths[longest])} tokens with its "
                f"end, the model takes {max_len}; raise model.max_len, or leave the pair out, as "
                "data.on_bad_pair=skip does in training"
            )
        sides.append((row, lengths))
    (source, source_lengths), (target, target_lengths) = sides
    return SentencePairs(source, target, source_lengths, target_lengths, pad_id, bos_id)


def encode_fitting_pairs(
    pairs: Sequence[tuple[str, str]], tokenizer: Tokenizer, *, max_len: int
) -> tuple[SentencePairs, list[tuple[str, str]]]:
    """Those pairs of which no sentence is too long: as ids, and as they are.

    Args:
        pairs, tokenizer, max_len: as of :func:`encode_pairs`.

    Raises:
        DataError: no pairs, a tokeniser without special tokens, or a character that it does not
            know.
    """
    pad_id, bos_id, eos_id = _special_tokens(tokenizer)
    kept: list[tuple[str, str]] = []
    sources: list[array[int]] = []
    targets: list[array[int]] = []
    for pair in pairs:
        sides = _fitting(pair, tokenizer, max_len, eos_id)
        if sides is not None:
            kept.append(pair)
            sources.append(sides[0])
            targets.append(sides[1])
    if not kept:
        raise DataError(NO_PAIRS)
    (source, source_lengths), (target, target_lengths) = _row(sources), _row(targets)
    rows = SentencePairs(source, target, source_lengths, target_lengths, pad_id, bos_id)
    return rows, kept


def _fitting(
    pair: tuple[str, str], tokenizer: Tokenizer, max_len: int, eos_id: int
) -> list[array[int]] | None:
    """Ids of both sides; None if one is too long. In little memory, for many pairs are held."""
    sides = []
    for text in pair:
        ids = [*tokenizer.encode(text), eos_id]
        if len(ids) > max_len:
            return None
        sides.append(array("i", ids))
    return sides


def _special_tokens(tokenizer: Tokenizer) -> tuple[int, int, int]:
    """Those for padding, beginning and end.

    Raises:
        DataError: there are none.
    """
    if tokenizer.pad_id is None or tokenizer.bos_id is None or tokenizer.eos_id is None:
        raise DataError(
            f"a tokeniser ({tokenizer.kind}) without tokens for padding, beginning and end cannot "
            "serve pairs of sentences; make it with special=True"
        )
    return tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id


def _row(sentences: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Sentences one behind the other, int32 (S,), and the length of each, int64 (P,)."""
    lengths = torch.tensor([len(sentence) for sentence in sentences])
    flat = torch.tensor([word for sentence in sentences for word in sentence], dtype=torch.int32)
    return flat, lengths


class PairTrainLoader(EpochLoader[PairBatch]):
    """Micro-batches of pairs alike in length, one epoch after the other.

    The order of an epoch is a function of (seed, epoch): pairs are permuted, sorted as
    :func:`_shapes` says (those alike stay in the order of the permutation), cut into batches, and
    the batches permuted. A batch is full where one more pair would make more than its share of
    ``tokens`` tokens of the longer side, padding included. Sizes do not depend on the epoch, so
    every epoch has the same number of batches. A step takes micro_batches x world_size of them in a
    row; those left over at an epoch's end are dropped.

    Args:
        pairs: the split; it lies on the device.
        tokens: tokens of the longer side in one optimiser step, over all processes.
        micro_batches: parts in which a process takes its share of a step.
        seed: of the permutations.
        rank, world_size: which process this is, of how many.
        device: where batches are yielded.

    Raises:
        DataError: a pair longer than a batch, or an epoch without a step.
    """

    def __init__(
        self,
        pairs: SentencePairs,
        *,
        tokens: int,
        micro_batches: int = 1,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.micro_batches = micro_batches
        self._parts = micro_batches * world_size
        self._sizes, self._shapes = pairs.sizes, _shapes(pairs)
        self._cuts = _cuts(
            self._sizes.sort().values, tokens // self._parts, self._parts, "data.batch_size"
        )
        if len(self._cuts) < self._parts:
            raise DataError(
                f"an epoch would have no step: {len(pairs)} pairs make {len(self._cuts)} "
                f"micro-batches, a step takes {self._parts}; lower the tokens of a step"
            )
        self._table = _PairTable(pairs, device)

    def __len__(self) -> int:
        """Micro-batches of a full epoch, also where only its rest will be yielded."""
        return len(self._cuts) // self._parts * self.micro_batches

    def batches(self, epoch: int, first: int) -> Iterator[PairBatch]:
        """See :meth:`EpochLoader.batches`."""
        batches = self._batches(epoch)
        for index in range(first, len(self)):
            yield self._table.batch(batches[index * self.world_size + self.rank])

    def _batches(self, epoch: int) -> list[Tensor]:
        """Places of the pairs of each batch, in the order of the epoch."""
        order = epoch_permutation(len(self._sizes), self.seed, epoch)
        order = order[self._shapes[order].sort(stable=True).indices]
        parts = order.split(self._cuts)
        shuffled = epoch_permutation(len(parts), self.seed, BATCH_ORDER + epoch)
        return [parts[place] for place in shuffled.tolist()]


class PairEvalLoader:
    """Every pair exactly once over all processes, those alike in length together.

    Every process gets the same number of batches, as collective operations need; a pair's place in
    the split is in the batch's ``positions``.

    Args:
        pairs: the split.
        tokens: tokens of the longer side in one process's batch, padding included.
        rank, world_size, device: as in :class:`PairTrainLoader`.

    Raises:
        DataError: fewer pairs than processes, or a pair longer than a batch.
    """

    def __init__(
        self,
        pairs: SentencePairs,
        *,
        tokens: int,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        if len(pairs) < world_size:
            raise DataError(f"{len(pairs)} pairs cannot be shared by {world_size} processes")
        order = _shapes(pairs).sort(stable=True).indices
        sizes = pairs.sizes[order]
        # Round by round each process gets a pair; an incomplete round comes first, among the short.
        rest = len(pairs) % world_size
        rounds = torch.cat([sizes[:rest][-1:], sizes[rest:][world_size - 1 :: world_size]])
        counts = _cuts(rounds, tokens, 1, "data.eval_batch_size")
        if rest and counts[0] == 1:
            counts[:2] = [1 + counts[1]]  # or some would have nothing in their first batch
        counts[0] -= int(0 < rest <= rank)
        mine = torch.cat([order[:rest][rank : rank + 1], order[rest:][rank::world_size]])
        self._batches = mine.split(counts)
        self._table = _PairTable(pairs, device)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[PairBatch]:
        for places in self._batches:
            yield self._table.batch(places)


class _PairTable:
    """Batches cut out of the rows of ids on the device."""

    def __init__(self, pairs: SentencePairs, device: torch.device | str) -> None:
        self.pad_id, self.bos_id, self.device = pairs.pad_id, pairs.bos_id, device
        self.sides = [
            (ids.to(device), (lengths.cumsum(0) - lengths).to(device), lengths)
            for ids, lengths in (
                (pairs.source, pairs.source_lengths),
                (pairs.target, pairs.target_lengths),
            )
        ]

    def batch(self, places: Tensor) -> PairBatch:
        """The pairs at ``places``, int64 (B,) on the CPU."""
        source, source_lengths = self._padded(0, places, self.pad_id)
        targets, _ = self._padded(1, places, IGNORED)
        inputs = torch.full_like(targets, self.bos_id)
        # The end token is never an input: behind it there is padding alone.
        inputs[:, 1:] = targets[:, :-1]
        ended = targets == IGNORED
        return PairBatch(
            source,
            source_lengths,
            inputs.masked_fill(ended, self.pad_id),
            targets,
            places,
        )

    def _padded(self, side: int, places: Tensor, fill: int) -> tuple[Tensor, Tensor]:
        ids, starts, lengths = self.sides[side]
        # Lengths are known on the CPU, so that no batch waits for the device.
        longest = int(lengths[places].max())
        known, rows = (
            some.to(self.device, non_blocking=True) for some in (lengths[places], places)
        )
        inside = torch.arange(longest, device=self.device)
        at = starts[rows][:, None] + inside
        words = ids[at.clamp(max=len(ids) - 1)].long()
        return words.masked_fill(inside >= known[:, None], fill), known


def _shapes(pairs: SentencePairs) -> Tensor:
    """Numbers, int64 (P,), that grow with the longer side, and among equals run from the longest
    target to the longest source; back again for the next size, so that neighbours are alike in both
    languages and little of a batch is padding.
    """
    sizes, longer_source = pairs.sizes, pairs.source_lengths - pairs.target_lengths
    return sizes * (2 * int(sizes.max()) + 1) + longer_source * (1 - 2 * (sizes % 2))


def _cuts(sizes: Tensor, tokens: int, parts: int, setting: str) -> list[int]:
    """Pairs of each batch, of ascending sizes: as many as stay within ``tokens`` when padded.

    A setting of ``parts`` times as many says how many these are.
    """
    longest = int(sizes[-1])
    if longest > tokens:
        raise DataError(
            f"a sentence of {longest} tokens with its end does not fit into a batch of {tokens}; "
            f"raise {setting} to {longest * parts} or more, or leave its pair out"
        )
    counts, count = [], 0
    for size in sizes.tolist():
        if (count + 1) * size > tokens:
            counts.append(count)
            count = 0
        count += 1
    return [*counts, count]
