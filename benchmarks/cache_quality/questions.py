"""The public questions: who asks what, and which of them have one answer. Nothing here is part of the project."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from dispatch_core import keys
from dispatch_core.calibrate.log import Pairs
from dispatch_core.calibrate.read import read

PAIRS_LIMIT = 20_000
"""Questions taken from a file of pairs."""

_ROWS = 1_000_000
"""Pairs read for the chains of duplicates."""

WHERE = """\
--data DIR is a folder with at least one of
  banking77_train.csv  PolyAI-LDN/task-specific-datasets on GitHub, banking_data/train.csv (CC-BY-4.0)
  clinc150_val.json    clinc/oos-eval on GitHub, data/data_full.json (CC-BY-3.0); its "val" and "oos_val" are read
  *.csv, *.tsv         pairs with columns question1, question2, is_duplicate, as in Quora Question Pairs
under these names or their own. They are not part of this project."""


class NoData(Exception):
    """Says what is missing and where it is to be had."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Different questions, each with the name of its right answer."""

    name: str
    title: str
    texts: Sequence[str]
    answers: Sequence[str]


def load(folder: Path | None) -> list[Corpus]:
    """Every corpus in the folder. Raises `NoData`."""
    if folder is None or not folder.is_dir():
        raise NoData(WHERE if folder is None else f"{folder} is no folder.\n{WHERE}")
    found: dict[str, Corpus] = {}
    for path in sorted(folder.iterdir()):
        try:
            reader = _reader(path)
            if reader is not None:
                corpus = reader(path)
                found.setdefault(corpus.name, corpus)
        except (KeyError, ValueError, TypeError, UnicodeDecodeError, csv.Error) as error:
            raise NoData(f"{path} has another form than expected ({error!r}).\n{WHERE}") from error
    if not found:
        raise NoData(f"Nothing to read in {folder}.\n{WHERE}")
    return list(found.values())


def _reader(path: Path) -> Callable[[Path], Corpus] | None:
    if path.name in ("clinc150_val.json", "data_full.json"):
        return _clinc
    if path.suffix not in (".csv", ".tsv"):
        return None
    with path.open(encoding="utf-8", newline="") as file:
        head = file.readline()
    if all(name in head for name in ("question1", "question2", "is_duplicate")):
        return _pairs
    return _banking if head.strip() == "text,category" else None


def _banking(path: Path) -> Corpus:
    with path.open(encoding="utf-8", newline="") as file:
        rows = [(row["text"], row["category"]) for row in csv.DictReader(file)]
    return _corpus("banking77", "BANKING77: customers of a bank, 77 intents", rows)


def _clinc(path: Path) -> Corpus:
    data = json.loads(path.read_text(encoding="utf-8"))
    rows = [(text, intent) for text, intent in data["val"]]
    rows += [(text, f"out of scope {number}") for number, (text, _) in enumerate(data["oos_val"])]
    return _corpus("clinc150", "CLINC150: requests to an assistant, 150 intents, the rest out of scope", rows)


def _pairs(path: Path) -> Corpus:
    """Questions joined by a chain of duplicates have one answer. Duplicates that nobody labelled count as errors."""
    pairs = read(path, limit=_ROWS)
    if not isinstance(pairs, Pairs):
        raise ValueError("its rows are no pairs of questions")
    log = pairs.log()
    rows = islice(zip(log.questions, log.answers, strict=True), PAIRS_LIMIT)
    return _corpus(path.stem, f"{path.stem}: pairs of questions, answers by duplicates", rows)


def _corpus(name: str, title: str, rows: Iterable[tuple[str, str]]) -> Corpus:
    """Without repeated texts, which are the exact tier's."""
    answers: dict[str, str] = {}
    for text, answer in rows:
        answers.setdefault(keys.canonical(text), answer)
    return Corpus(name, title, list(answers), list(answers.values()))
