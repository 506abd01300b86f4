"""The commands that make words."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from vitkit.cli.options import Debug
from vitkit.cli.output import write_utf8
from vitkit.errors import DataError

__all__ = ["generate", "translate"]

STDIN = "standard input"
LAST_SEED = 2**63 - 1

Source = Annotated[str, typer.Argument(metavar="RUN|CHECKPOINT", help="A trained model.")]
NoCache = Annotated[
    bool, typer.Option("--no-cache", help="Read all anew for each token: slow, the same text.")
]


def generate(
    source: Source,
    prompt: Annotated[
        str | None,
        typer.Argument(help="The beginning; - reads it from standard input.", show_default=False),
    ] = None,
    tokens: Annotated[int, typer.Option(min=0, help="How many to add.")] = 300,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="Below 1 likelier tokens, above 1 rarer ones.")
    ] = 1.0,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Draw among the K likeliest tokens only.")
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(help="Draw among the likeliest tokens that together have this probability."),
    ] = None,
    greedy: Annotated[
        bool, typer.Option("--greedy", help="Always the likeliest token; draws nothing.")
    ] = False,
    beam: Annotated[
        int,
        typer.Option(
            min=1,
            help="Beams of the search for the likeliest text, which must fit what the model reads.",
        ),
    ] = 1,
    seed: Annotated[
        int, typer.Option(max=LAST_SEED, help="Of the draws: another seed, another text.")
    ] = 0,
    no_cache: NoCache = False,
    debug: Debug = False,
) -> None:
    """Go on with a text, by a trained language model.

    The text appears as it is made; with --beam, when it is found. Where what the model reads at a
    time is full, it goes on from the second half of that. Examples:

    \b
        vitkit generate runs/shakespeare/20260101-120000 ROMEO: --tokens 500
        vitkit generate runs/tunes/20260101-120000 X:1 --temperature 0.8 --seed 3
        vitkit generate runs/tunes/20260101-120000 - --greedy
    """
    from vitkit.app import decode_text, load_writer, require_nothing_drawn

    write_utf8()
    if beam > 1:
        require_nothing_drawn(
            temperature=temperature, top_k=top_k, top_p=top_p, seed=seed, greedy=greedy
        )
    elif greedy:
        require_nothing_drawn(
            "--greedy", temperature=temperature, top_k=top_k, top_p=top_p, seed=seed
        )
    if prompt == "-":
        prompt = decode_text(sys.stdin.buffer.read(), STDIN)
    writer = load_writer(source)
    if beam > 1:
        text = writer.search(prompt, tokens=tokens, num_beams=beam, use_cache=not no_cache)
        print(f"{prompt or ''}{text}")
        return
    pieces = writer.stream(
        prompt,
        tokens=tokens,
        temperature=0.0 if greedy else temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        use_cache=not no_cache,
    )
    sys.stdout.write(prompt or "")
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
    print()


def translate(
    source: Source,
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[TEXT_FILE]",
            help="A sentence a line; standard input without it.",
            show_default=False,
        ),
    ] = None,
    beam: Annotated[
        int | None,
        typer.Option(min=1, help="Beams of the search, 1 = greedy; default: as it was tested."),
    ] = None,
    length_penalty: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="Higher favours longer translations; default: as it was tested."
        ),
    ] = None,
    no_cache: NoCache = False,
    debug: Debug = False,
) -> None:
    """Translate sentences, a line each, by a trained translator.

    A sentence that cannot be translated leaves its line empty and is named at the end. Examples:

    \b
        vitkit translate runs/multi30k/20260101-120000 sentences.en
        vitkit translate runs/multi30k/20260101-120000 sentences.en --beam 1
    """
    from vitkit.app import load_translator, read_lines, utf8_lines

    write_utf8()
    translator = load_translator(source)
    if file is None or file == "-":
        sentences = utf8_lines(sys.stdin.buffer, STDIN)
    else:
        sentences = iter(read_lines(file))
    # Who types a sentence waits for its translation; a file goes faster in batches.
    chunk = 1 if file in (None, "-") and sys.stdin.isatty() else 512
    faults: list[str] = []
    for line in translator.lines(
        sentences,
        chunk=chunk,
        num_beams=beam,
        length_penalty=length_penalty,
        use_cache=not no_cache,
        on_fault=faults.append,
    ):
        print(line, flush=True)
    if faults:
        others = f"; so are those of {len(faults) - 1:,} others" * (len(faults) > 1)
        raise DataError(f"{faults[0]}; its line is empty{others}")
