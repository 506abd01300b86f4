"""Does a config still give the result that its opening comment states?

    python -m benchmarks.verify configs/text_pixels_mini_cifar10.yaml data.root=data

Reads the first sentence of the comment that begins with ``Measured:``, trains again with the
settings and the seeds that it names, and compares. Settings on the command line come last. Exit
code 0: it holds. 1: it does not. 2: the comment states nothing that could be compared.

The sentence may run over several lines and ends with a full stop; in brackets what may be absent:

    Measured: 65.60 % test accuracy[ with KEY=VALUE[, KEY=VALUE]...][, seed N][
    (mean of N seeds[ from N], sd X[, spread X])][ (anything)]...[; anything].

In place of ``% test accuracy`` may stand ``% k-NN accuracy``, ``test BLEU`` or ``validation loss``,
of which less is better. One seed, 0, unless it says otherwise; ``from`` is the first of several.
Values hold no blanks. It holds if the mean is no worse than the stated one by more than the larger
of three standard deviations (sd) and the spread, which is 0.5 (1.0 of k-NN accuracy, 0.03 of a
loss) unless stated; a spread belongs to recipes whose length is a time, on another machine than the
one that was measured. Better is no failure, but is said.

The runs lie in ``runs/verify-<config>-<commit and settings>``: the same command goes on where it
stopped, and starts anew once a change was committed, or always while one is not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from benchmarks.timing import machine
from vitkit.app import train_seeds
from vitkit.app.facts import environment_facts
from vitkit.config import RunConfig, dump_yaml, load_config, split_arguments
from vitkit.errors import ConfigError, VitkitError
from vitkit.records import write_text

__all__ = ["Claim", "main", "opening", "read_claim"]


@dataclass(frozen=True)
class Quantity:
    """What is measured.

    Attributes:
        metric: its name in ``results.json``.
        scale: from there to what is stated.
        sign: 1 where more is better, else -1.
        spread: what a run may differ by for no reason that a recipe names.
    """

    metric: str
    scale: float = 1.0
    sign: int = 1
    spread: float = 0.5


ACCURACY = "% test accuracy"
QUANTITIES = {
    ACCURACY: Quantity("test/acc", scale=100.0),
    "% k-NN accuracy": Quantity("test/knn_acc", scale=100.0, spread=1.0),
    "test BLEU": Quantity("test/bleu"),
    "validation loss": Quantity("val/loss", sign=-1, spread=0.03),
}
"""As a sentence names it -> what it is."""

SENTENCE = re.compile(r"\bMeasured: (.*?)\.(?= |$)")
NUMBER = r"\d+(?:\.\d+)?"
SETTING = r"\w+(?:\.\w+)+=[^\s,;]+"
CLAIM = re.compile(
    rf"(?P<value>{NUMBER}) ?(?P<what>{'|'.join(QUANTITIES)})"
    rf"(?: with (?P<settings>{SETTING}(?:, {SETTING})*))?"
    r"(?:, seed (?P<seed>\d+))?"
    rf"(?: \(mean of (?P<count>\d+) seeds(?: from (?P<first>\d+))?, sd (?P<sd>{NUMBER})"
    rf"(?:, spread (?P<spread>{NUMBER}))?\))?"
    r"(?P<rest>(?: \([^()]*\))*(?:; .*)?)"
)
MISPLACED = re.compile(r"\bseeds?\b|\bmean of\b|\bsd\b|\bspread\b|\w=\w")


@dataclass(frozen=True)
class Claim:
    """What an opening comment states.

    Attributes:
        value: what was measured.
        what: one of :data:`QUANTITIES`.
        settings: overrides to train with.
        seeds: how many, from ``first`` on.
        first: the first seed.
        sd: standard deviation over the seeds.
        spread: difference that is allowed whatever the deviation; the quantity's unless stated.
    """

    value: float
    settings: tuple[str, ...] = ()
    seeds: int = 1
    first: int = 0
    sd: float = 0.0
    spread: float | None = None
    what: str = ACCURACY

    @property
    def quantity(self) -> Quantity:
        """What is stated."""
        return QUANTITIES[self.what]

    @property
    def tolerance(self) -> float:
        """Largest difference that still holds."""
        return max(3.0 * self.sd, self.quantity.spread if self.spread is None else self.spread)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train again and compare; returns the exit code."""
    options = _options(arguments)
    try:
        return _verify(options)
    except VitkitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("settings", nargs="+", metavar="FILE | KEY=VALUE")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    parser.add_argument("--quiet", action="store_true", help="print results only")
    return parser.parse_args(arguments)


def _verify(options: argparse.Namespace) -> int:
    files, overrides = split_arguments(options.settings)
    if len(files) != 1:
        raise ConfigError(f"verify takes one config file and KEY=VALUE settings, not {files}")
    path = Path(files[0])
    claim = read_claim(opening(path), path.name)
    config = load_config([path], [*claim.settings, f"run.seed={claim.first}", *overrides])
    if config.run.name is None:
        name = f"run.name=verify-{path.stem}-{_fingerprint(config)}"
        config = load_config([path], [*claim.settings, f"run.seed={claim.first}", *overrides, name])
    summary = train_seeds(config, claim.seeds, quiet=options.quiet)
    quantity, metrics = claim.quantity, summary.record.metrics
    value = quantity.scale * metrics[f"{quantity.metric}/mean"]
    deviation = quantity.scale * metrics[f"{quantity.metric}/sd"]
    better = quantity.sign * (value - claim.value)
    holds = better >= -claim.tolerance
    print(f"\n{path}, {claim.seeds} seed{'s' * (claim.seeds > 1)} on {machine()}")
    print(f"stated   {claim.value:.2f} {claim.what}, sd {claim.sd:.2f}")
    print(f"now      {value:.2f}, sd {deviation:.2f}")
    print(f"better by {better:+.3f}; tolerance {claim.tolerance:.2f}")
    print(_verdict(better, claim.tolerance))
    if options.json is not None:
        found = {"value": value, "sd": deviation, "holds": holds}
        facts = {"config": str(path), "settings": options.settings, "stated": asdict(claim)}
        whole = {**facts, "now": found, "environment": environment_facts()}
        write_text(options.json, json.dumps(whole, indent=2) + "\n")
    return 0 if holds else 1


def _verdict(better: float, tolerance: float) -> str:
    if better < -tolerance:
        return "It does NOT hold."
    return "It holds." if better <= tolerance else "It holds; state the better number."


def opening(path: Path) -> str:
    """The comment that a config opens with, on one line.

    Raises:
        ConfigError: there is no such file.
    """
    if not path.is_file():
        raise ConfigError(f"there is no config file {path}")
    words: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        words += line.lstrip("#").split()
    return " ".join(words)


def read_claim(comment: str, name: str = "the config") -> Claim:
    """What the first sentence with ``Measured:`` states.

    Args:
        comment: on one line.
        name: for the message.

    Raises:
        ConfigError: nothing was measured, or the sentence does not follow the grammar.
    """
    sentence = SENTENCE.search(comment)
    if sentence is None:
        raise ConfigError(f"{name}: its opening comment has no sentence 'Measured: ... .'")
    found = CLAIM.fullmatch(sentence[1])
    if found is None or MISPLACED.search(found["rest"]):
        raise ConfigError(
            f"{name}: cannot read 'Measured: {sentence[1]}.'; write it as 'Measured: 65.60 % test "
            "accuracy with trainer.max_epochs=3 (mean of 3 seeds, sd 0.30) (where, when).', see "
            "benchmarks/verify.py"
        )
    if found["seed"] is not None and found["count"] is not None:
        raise ConfigError(f"{name}: 'seed' is one seed, 'mean of' several; leave one of them out")
    return Claim(
        value=float(found["value"]),
        what=found["what"],
        settings=tuple((found["settings"] or "").split(", ")) if found["settings"] else (),
        seeds=int(found["count"] or 1),
        first=int(found["seed"] or found["first"] or 0),
        sd=float(found["sd"] or 0.0),
        spread=float(found["spread"]) if found["spread"] else None,
    )


def _fingerprint(config: RunConfig) -> str:
    """Of commit and settings; of the moment where the code has changes that are in no commit."""
    commit = environment_facts()["git_commit"]
    if not isinstance(commit, str) or commit.endswith("+"):
        return f"{datetime.now():%Y%m%d-%H%M%S}"
    settings = hashlib.blake2b(dump_yaml(config).encode(), digest_size=3).hexdigest()
    return f"{commit}-{settings}"


if __name__ == "__main__":
    sys.exit(main())
