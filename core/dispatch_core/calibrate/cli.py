"""``dispatcher calibrate``: a file in, a report and a line to paste out."""

from __future__ import annotations

import argparse
import json
import random
import sys
from dataclasses import replace
from pathlib import Path

from dispatch_core.calibrate import report as reports
from dispatch_core.calibrate.calibration import calibrate
from dispatch_core.calibrate.log import Log, Pairs
from dispatch_core.calibrate.plot import needs, plot
from dispatch_core.calibrate.progress import progress
from dispatch_core.calibrate.read import LIMIT, Columns, read
from dispatch_core.embed import HashingEmbedder, default_embedder
from dispatch_core.errors import ConfigError
from dispatch_core.ports import Embedder

ABOUT = """Replay questions through every cache policy: how many would be answered from the cache, how many of
these wrongly, and which setting to use. FILE holds questions with their answers in the order of asking, or labelled
pairs of questions."""

HASHING = "hashing"
"""The embedder that needs no model."""

_EMBEDDER = f"sentence-transformers model, name or path (%(default)s); {HASHING} needs none and is for tests"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``dispatcher calibrate`` on `parser`."""
    add = parser.add_argument
    add("file", metavar="FILE", help=".csv, .tsv, .jsonl or .ndjson; - reads JSON Lines from standard input")
    add("--max-error", type=float, default=0.01, metavar="SHARE", help="wrong answers per hit allowed (%(default)s)")
    add("--plot", type=Path, metavar="PNG", help="draw precision against hit rate")
    add("--json", type=Path, metavar="FILE", help="write everything for programs")
    add("--embedder", default="all-MiniLM-L6-v2", metavar="NAME", help=_EMBEDDER)
    add("--question", metavar="COL", help="column of the question (else guessed: question, query, prompt, text ...)")
    add("--answer", metavar="COL", help="column of its answer (else guessed: answer, response, label, intent ...)")
    add("--other", metavar="COL", help="of labelled pairs, column of the second question (question2, sentence2, b)")
    add("--same", metavar="COL", help="of labelled pairs, column of the label (is_duplicate, label, same)")
    add("--pairs", action="store_true", help="judge labelled pairs one by one, instead of as a log")
    add(
        "--same-answer",
        choices=("text", "cosine"),
        default="text",
        help="when two answers are the same (%(default)s)",
    )
    add("--same-cosine", type=float, default=0.9, metavar="COS", help="for --same-answer cosine (%(default)s)")
    add("--limit", type=int, default=LIMIT, metavar="ROWS", help="rows to read (%(default)s)")
    add("--shuffle", action="store_true", help="ask in a random order, for files that are sorted by answer")
    add("--seed", type=int, default=0, help="of the order and of the halves (%(default)s)")
    add("--quiet", action="store_true", help="no progress bar")


def run(options: argparse.Namespace) -> int:
    """Print the report; 0 whatever it recommends, 130 when interrupted. Raises `DispatchError`."""
    outputs = [path for path in (options.plot, options.json) if path is not None]
    for path in outputs:
        # Known before the long work and not after it.
        if not path.parent.is_dir():
            raise ConfigError(f"{path} cannot be written: {path.parent} is no folder")
    if options.plot is not None:
        needs()
    columns = Columns(options.question, options.answer, options.other, options.same)
    bars = progress(quiet=options.quiet)
    try:
        data = read(None if options.file == "-" else Path(options.file), columns=columns, limit=options.limit)
        report = calibrate(
            _shuffled(data, options.seed) if options.shuffle else data,
            _embedder(options.embedder),
            max_error=options.max_error,
            same_cosine=options.same_cosine if options.same_answer == "cosine" else None,
            pairwise=options.pairs,
            seed=options.seed,
            progress=bars,
        )
    except KeyboardInterrupt:
        print("dispatcher calibrate: interrupted", file=sys.stderr)
        return 130
    print(reports.as_text(report))
    try:
        if options.json is not None:
            options.json.write_text(json.dumps(reports.as_data(report), indent=2), encoding="utf-8")
        if options.plot is not None:
            plot(report, options.plot)
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be written: {error.strerror}") from error
    if outputs:
        print(f"\nwritten: {' and '.join(map(str, outputs))}")
    return 0


def _embedder(name: str) -> Embedder:
    return HashingEmbedder() if name == HASHING else default_embedder(name)


def _shuffled(data: Log | Pairs, seed: int) -> Log | Pairs:
    """The rows in a random order."""
    if isinstance(data, Log):
        order = random.Random(seed).sample(range(len(data.questions)), len(data.questions))
        return replace(data, questions=[data.questions[n] for n in order], answers=[data.answers[n] for n in order])
    order = random.Random(seed).sample(range(len(data.one)), len(data.one))
    one, other = ([column[n] for n in order] for column in (data.one, data.other))
    return Pairs(data.source, one, other, [data.same[n] for n in order])
