"""Read a log or labelled pairs from CSV, TSV or JSON Lines. Bad rows are counted; a file of only these is refused."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

from dispatch_core import keys
from dispatch_core.calibrate.log import Log, Pairs, Source
from dispatch_core.errors import ConfigError

LIMIT = 100_000
"""Rows read unless told otherwise."""

QUESTION = ("question", "query", "prompt", "text", "input", "user")
ANSWER = ("answer", "response", "output", "completion", "label", "category", "intent")
ONE = ("question1", "sentence1", "text1", "q1", "a")
OTHER = ("question2", "sentence2", "text2", "q2", "b")
SAME = ("is_duplicate", "duplicate", "same", "label")

_YES = frozenset({"1", "1.0", "true", "yes", "y", "same", "duplicate"})
_NO = frozenset({"0", "0.0", "false", "no", "n", "different", "not_duplicate"})
_HEAD = 50
"""Rows in which the columns are looked for: objects of JSON Lines need not all have them."""

Row = tuple[int, Mapping[str, str] | str]
"""The line, and the fields by column or what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns to read; None for those that their usual names tell. ``other`` and ``same`` make pairs."""

    question: str | None = None
    answer: str | None = None
    other: str | None = None
    same: str | None = None


def read(path: Path | None, *, columns: Columns | None = None, limit: int = LIMIT) -> Log | Pairs:
    """At most ``limit`` rows of a file by its extension; None reads JSON Lines from standard input.

    Raises `ConfigError` for a file that cannot be read, an unknown extension, no such columns, and no good row.
    """
    if limit < 1:
        raise ConfigError(f"limit is at least 1 row, got {limit}")
    name = "standard input" if path is None else str(path)
    with ExitStack() as stack:
        if path is None:
            rows = _jsonl(_lines(sys.stdin.buffer, name))
        else:
            parse = _parser(path)
            try:
                file = stack.enter_context(path.open("rb"))
            except OSError as error:
                raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
            rows = parse(_lines(file, name))
        return _read(rows, name, columns or Columns(), limit)


def _parser(path: Path) -> Callable[[Iterator[str]], Iterator[Row]]:
    match path.suffix.lower():
        case ".csv" | ".tsv":
            return _table
        case ".jsonl" | ".ndjson":
            return _jsonl
    raise ConfigError(f"{path} is none of .csv, .tsv, .jsonl and .ndjson (JSON: one object a line); - reads a pipe")


def _lines(file: BinaryIO, name: str) -> Iterator[str]:
    """Decoded one by one, so that an error can name its line."""
    for number, line in enumerate(file, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            wide = number == 1 and line[:2] in (b"\xff\xfe", b"\xfe\xff")
            raise ConfigError(
                f"{name}, line {number} is not UTF-8: byte 0x{line[error.start]:02x} at {error.start + 1}"
                f"{', it looks like UTF-16' if wide else ''}; save the file as UTF-8"
            ) from error


def _table(lines: Iterator[str]) -> Iterator[Row]:
    head = next(lines, "")
    # Spreadsheets of some countries separate by semicolons and call it CSV.
    delimiter = max(",\t;", key=head.count)
    reader = csv.reader(chain([head], lines), delimiter=delimiter)
    try:
        names = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise ConfigError(f"the first line of a table names its columns: {error}") from error
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error:
            # The rest of the line, and all that the field had swallowed, is gone.
            yield line, f"a quote that nothing closes within {csv.field_size_limit():,} characters"
            continue
        if not fields:
            continue
        if len(fields) > len(names):
            yield line, "more fields than columns"
        else:
            yield line, dict(zip(names, fields, strict=False))


def _jsonl(lines: Iterator[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
        except (ValueError, RecursionError):
            data = None
        if isinstance(data, dict):
            yield number, {name: _text(value) for name, value in data.items()}
        else:
            yield number, "not a JSON object"


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _read(rows: Iterator[Row], name: str, columns: Columns, limit: int) -> Log | Pairs:
    head = list(islice(rows, min(_HEAD, limit)))
    if not head:
        raise ConfigError(f"{name} has no rows")
    known = {column: None for _, row in head if not isinstance(row, str) for column in row}
    taken = _columns(list(known), columns, name)
    every = chain(head, rows)
    good: list[tuple[str, ...]] = []
    skipped: Counter[str] = Counter()
    first: dict[str, int] = {}
    count = 0
    for line, row in islice(every, limit):
        count += 1
        fields = row if isinstance(row, str) else _fields(row, taken)
        if isinstance(fields, str):
            skipped[fields] += 1
            first.setdefault(fields, line)
        else:
            good.append(fields)
    source = Source(name, taken, count, skipped, first, next(every, None) is not None)
    if not good:
        reasons = ", ".join(f"{reason} ({number})" for reason, number in skipped.most_common(3))
        raise ConfigError(f"{name} has no good row: {reasons}")
    if len(taken) == 2:
        return Log(source, *_lists(good, 2))
    one, other, same = _lists(good, 3)
    return Pairs(source, one, other, [label == "1" for label in same])


def _columns(known: Sequence[str], named: Columns, name: str) -> tuple[str, ...]:
    """Question and answer, or two questions and a label: as named, else pairs if all three have usual names."""
    pairs = named.other is not None or named.same is not None
    if pairs and named.answer is not None:
        raise ConfigError("a log has an answer, a pair has another question and a label: not both")
    asked = (named.question, named.other, named.same) if pairs else (named.question, named.answer)
    for column in asked:
        if column is not None and known and column not in known:
            raise ConfigError(f"{name} has no column {column!r}; it has {', '.join(known)}")
    usual = tuple(_usual(known, names) for names in (ONE, OTHER, SAME))
    if pairs or (named == Columns() and None not in usual):
        found = tuple(given or guess for given, guess in zip((*asked, None)[:3], usual, strict=True))
    else:
        taken = named.question or _usual(known, QUESTION, named.answer)
        found = (taken, named.answer or _usual(known, ANSWER, taken))
    if None in found:
        raise ConfigError(
            f"{name} has columns {', '.join(known) or '(none)'}: name those of the question and of its answer with "
            "--question and --answer, or of pairs with --question, --other and --same"
        )
    return tuple(column for column in found if column is not None)


def _usual(known: Sequence[str], names: Sequence[str], taken: str | None = None) -> str | None:
    columns = {column.lower(): column for column in reversed(known) if column != taken}
    return next((columns[name] for name in names if name in columns), None)


def _fields(row: Mapping[str, str], columns: Sequence[str]) -> tuple[str, ...] | str:
    """The row's texts in their canonical form, or what is wrong with it."""
    values = []
    for column in columns:
        if column not in row:
            return f"no {column}"
        text = keys.canonical(row[column])
        if not text:
            return f"empty {column}"
        values.append(text)
    if len(columns) == 2:
        return tuple(values)
    label = values[2].lower()
    if label not in _YES | _NO:
        return f"{columns[2]} is neither yes nor no"
    if values[0] == values[1]:
        return "a question paired with itself"
    return values[0], values[1], "1" if label in _YES else "0"


def _lists(rows: Iterable[tuple[str, ...]], width: int) -> list[list[str]]:
    """Columns of the rows. The same text is kept once: answers repeat."""
    once: dict[str, str] = {}
    lists: list[list[str]] = [[] for _ in range(width)]
    for row in rows:
        for column, text in zip(lists, row, strict=True):
            column.append(once.setdefault(text, text))
    return lists
