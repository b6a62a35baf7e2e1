"""``make bench-compression``: tokens saved against answers kept, on questions with planted facts."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence

from benchmarks.compression.prompts import LAYOUTS, Question, questions
from benchmarks.compression.run import Row, TimedEmbedder, arms, floor, measured
from dispatch_core import Lossless, MemoEmbedder, SentenceTransformerEmbedder
from dispatch_core.ports import Embedder

SHARES = (0.5, 0.35, 0.2)
_SPACE = re.compile(r"\s+")


def main(arguments: Sequence[str] | None = None, embedder: Embedder | None = None) -> None:
    options = _options(arguments)
    # One prompt serves many questions: without a memo, the same sentences would be embedded for each.
    timed = TimedEmbedder(MemoEmbedder(embedder or SentenceTransformerEmbedder(), size=20_000))
    for half in options.halves:
        asked = list(questions(half))[:: options.every]
        print(f"\n{half}: {len(asked)} questions about {len({one.topic for one in asked})} kinds of documents\n")
        rows = [
            measured(name, arm, timed, asked, share)
            for share in (SHARES if not options.quick else SHARES[:1])
            for name, arm in arms(timed, parts=share == SHARES[0]).items()
        ]
        print(_table(rows))
        print(f"\n{_parts(rows[0], asked)}")
        if options.lost:
            for one in rows[0].lost:
                print(f"  lost: {one.topic}, {one.layout}: {one.text} {one.line}")
        print(f"\n{_speed(timed, asked)}")
        print(f"\n{_lossless(asked)}")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compression", description=__doc__)
    both = ["develop", "report"]
    parser.add_argument("--halves", nargs="+", choices=both, default=both, help="which topics; default: both")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only each N-th question")
    parser.add_argument("--quick", action="store_true", help="one budget only")
    parser.add_argument("--lost", action="store_true", help="name the questions whose answer was lost")
    return parser.parse_args(arguments)


def _table(rows: Sequence[Row]) -> str:
    lines = ["budget  kept of the prompt by      answers that survive  tokens saved"]
    lines += [
        f"{row.share:5.0%}   {row.name:<26} {row.survived:>6} ({row.survived / row.asked:6.1%})  {row.saved:>12.1%}"
        for row in rows
    ]
    return "\n".join(lines)


def _parts(row: Row, asked: Sequence[Question]) -> str:
    """The first row by language and by the way in which the context was put together."""
    lines = []
    for name, part in [
        *((language, [one for one in asked if one.language == language]) for language in ("en", "de", "zh")),
        *((layout, [one for one in asked if one.layout == layout]) for layout in LAYOUTS),
    ]:
        lost = sum(one in row.lost for one in part)
        if part:
            lines.append(f"  {name}: {len(part) - lost} of {len(part)}")
    return f"{row.name} at {row.share:.0%}\n" + "\n".join(lines)


def _speed(embedder: TimedEmbedder, asked: Sequence[Question]) -> str:
    few = asked[:: max(1, len(asked) // 40)]
    row = measured("extractive", arms(embedder, parts=False)["extractive"], embedder, few, 0.5, repeats=5)
    sentences = [one for one in few[0].context.split(". ") if one]
    least = floor(few[0], embedder.embed(sentences))
    return f"a prompt of 4k tokens beyond its embedding: {row.milliseconds:.1f} ms (floor here: {least:.1f} ms)"


def _lossless(asked: Sequence[Question]) -> str:
    """Prompts as they are untidily put together, and whether each fact and each word of them is still there."""
    before = after = facts = words = 0
    for one in asked:
        context = _untidy(one)
        done = Lossless().compress(one.messages(context))
        before += done.tokens_before
        after += done.tokens_after
        left = done.messages[1].text
        facts += one.line in left
        words += _same(one, context, left)
    return (
        f"lossless, on untidy prompts: {1 - after / before:.1%} of the tokens saved, "
        f"{facts} of {len(asked)} answers and the words of {words} of {len(asked)} prompts unchanged"
    )


_RECORD = {"id": 17, "price": 12.5, "tags": ["a", "b  c"], "note": "two  spaces\nand a line"}


def _untidy(question: Question) -> str:
    """Spaces at the ends of lines and between sentences, empty lines, a chunk that comes twice, a record as JSON."""
    blocks = question.context.split("\n\n")
    middle = len(blocks) // 2
    twice = "\n\n".join(blocks[middle : middle + 4])
    record = json.dumps(_RECORD, indent=4)
    return _spaced("\n\n\n\n".join([*blocks[:middle], twice, *blocks[middle:], record, twice]))


def _spaced(context: str) -> str:
    """Wider gaps in prose; where they say something, in code, tables and records, all stays."""
    pieces = re.split(r"(```.*?```|^\|.*?$|^\{.*?^\})", context, flags=re.DOTALL | re.MULTILINE)
    return "".join(
        piece if at % 2 else piece.replace(". ", ".  ").replace("\n", "  \n") for at, piece in enumerate(pieces)
    )


def _same(question: Question, context: str, after: str) -> bool:
    """Does the frame stand around what is left, every paragraph in it, its white space apart, and the same record?"""
    above, below = question.messages("\0")[1].text.split("\0")
    if not (after.startswith(above) and after.endswith(below)):
        return False
    inside = after[len(above) : len(after) - len(below)]
    records = [json.loads(line) for line in inside.splitlines() if line.startswith('{"id"')]
    prose = [one for one in re.split(r"\n\s*\n", context) if not one.startswith("{")]
    left = _SPACE.sub("", inside)
    return all(_SPACE.sub("", one) in left for one in prose) and records == [_RECORD]


if __name__ == "__main__":
    main()
