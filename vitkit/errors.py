"""What can go wrong for a person, as one tree.

    VitkitError
    +-- ConfigError          the command line or a config file (exit code 2)
    +-- UnknownNameError     a model, data set, ... that is not registered (exit code 2)
    +-- DataError            missing, damaged or contradictory data
    +-- WeightsError         a weights file or checkpoint that cannot be used
    +-- RunError             the run folder: not writable, full, nothing to resume
    +-- TrainingError        training cannot go on: non-finite loss, out of memory
    +-- EvaluationError      a number that cannot be had: NaN logits, other images than needed
    +-- Interrupted          Ctrl-C, SIGTERM or a closed terminal (exit code 130, 143, 129)

Every message is one line that says what was given, what is allowed and what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "ConfigError",
    "DataError",
    "EvaluationError",
    "Interrupted",
    "RunError",
    "TrainingError",
    "UnknownNameError",
    "VitkitError",
    "WeightsError",
    "first_line",
    "nearest",
]


class VitkitError(Exception):
    """Base of every error that is shown to a person as one line, without a traceback."""

    exit_code = 1


class ConfigError(VitkitError):
    """One or more faults in a configuration; all of them are listed, a line each.

    Args:
        faults: one line per fault, each naming the key, what was given and what is allowed.
    """

    exit_code = 2

    def __init__(self, faults: str | Iterable[str]) -> None:
        self.faults = [faults] if isinstance(faults, str) else list(faults)
        super().__init__("\n".join(self.faults))


class UnknownNameError(VitkitError):
    """A name that no registry knows; the message offers the nearest ones.

    Args:
        kind: what the name stands for, such as ``"model"``.
        name: the name that was given.
        known: the names that exist.
        hint: how to see all of them.
    """

    exit_code = 2

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        self.name = name
        close = nearest(name, known)
        text = f"unknown {kind} {name!r}"
        if close:
            text += f"; did you mean {' or '.join(close)}?"
        super().__init__(f"{text} {hint}".rstrip())


class DataError(VitkitError):
    """Data that is missing, damaged, or contradicts the model."""


class WeightsError(VitkitError):
    """A weights file or checkpoint that is missing, damaged, unsafe, or of another architecture."""


class RunError(VitkitError):
    """The run folder cannot be written or resumed."""


class TrainingError(VitkitError):
    """Training cannot go on; the message names the step and what to try."""


class EvaluationError(VitkitError):
    """A number about a model that cannot be had, or would mislead."""


class Interrupted(VitkitError):
    """A signal stopped the run after its checkpoint was written.

    Args:
        message: what was left on disk and how to go on.
        signum: the signal's number; the exit code is 128 + signum, as shells expect.
    """

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signum


def first_line(error: BaseException) -> str:
    """The first line of what an error says; the name of its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def nearest(name: str, known: Iterable[str], n: int = 3) -> list[str]:
    """The up to ``n`` known names most like ``name``, best first.

    A name may also be like the beginning of a longer one: ``vit_tinny`` like
    ``vit_tiny_patch16_224``.
    """
    scores = {candidate: _likeness(name.lower(), candidate.lower()) for candidate in known}
    close = [candidate for candidate, score in scores.items() if score >= 0.6]
    return sorted(close, key=lambda candidate: -scores[candidate])[:n]


def _likeness(name: str, candidate: str) -> float:
    """From 0 to 1; of a beginning only a good match counts, and a little less than of a whole."""
    matcher = difflib.SequenceMatcher(b=name)
    matcher.set_seq1(candidate)
    score = matcher.ratio()
    if len(candidate) <= len(name) + 1:
        return score
    for length in (len(name) - 1, len(name), len(name) + 1):
        matcher.set_seq1(candidate[:length])
        start = matcher.ratio()
        if start >= 0.8:
            score = max(score, 0.98 * start)
    return score
