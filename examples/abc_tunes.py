"""Tunes by a language model that learned ABC notation, and how many of them can be read.

    python -m examples.abc_tunes runs/lstm_music-text/20260101-120000
    python -m examples.abc_tunes runs/lstm_music-text/20260101-120000 --tunes 50 --temperature 0.8

Prints the first tune, then the share of tunes that are whole: a head from X: to K:, behind it lines
of notes, rests, chords and bars alone, and an empty line as their end.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence

from vitkit.app import load_writer

LENGTH = r"\d*(?:/+\d*)?"
NOTE = rf"[_=^]{{0,2}}[A-Ga-gxz][,']*{LENGTH}"
MUSIC = rf"(?:{NOTE}|[|:\[\]]{LENGTH}|\(\d?|\"[^\"\n]*\"|[ )\-<>~!.\\])++"
FIELD = r"[KLMNPQRSTXZ]:.*"
HEAD = r"X: *\d+\n(?:[B-JL-Z]:.*\n)*K: *[A-G].*\n"
TUNE = re.compile(rf"{HEAD}(?:(?:{FIELD}|{MUSIC})\n)+\n")
LONGEST = 1000
"""Characters of a tune; the longest of the lab's has 603."""


def main(arguments: Sequence[str] = ()) -> float:
    """The share of tunes that can be read."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", help="run folder or checkpoint")
    parser.add_argument("--tunes", type=int, default=20)
    parser.add_argument("--temperature", type=float, default=1.0)
    options = parser.parse_args(arguments)
    writer, readable = load_writer(options.run), 0
    for seed in range(options.tunes):
        pieces = writer.stream("X:", tokens=LONGEST, temperature=options.temperature, seed=seed)
        tune = first_tune(pieces)
        readable += TUNE.fullmatch(tune) is not None
        if seed == 0:
            print(tune)
    print(f"{readable / options.tunes:.0%} of {options.tunes} tunes can be read")
    return readable / options.tunes


def first_tune(pieces: Iterable[str]) -> str:
    """What follows X:, up to an empty line."""
    tune = "X:"
    for piece in pieces:
        tune += piece
        if tune.endswith("\n\n"):
            break
    return tune


if __name__ == "__main__":
    main(sys.argv[1:])
