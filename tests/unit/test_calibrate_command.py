"""``dispatcher calibrate`` from end to end, on small files and without a model."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import subprocess
import sys

import pytest

from dispatch_core.__main__ import main
from dispatch_core.calibrate import FAMILIES
from dispatch_core.calibrate import progress as bars

OPENINGS = ["", "please tell me ", "hello, ", "one more thing, ", "hi there, ", "good morning, "]
PLACES = ["depot", "harbour", "library", "museum", "airport", "stadium", "market", "castle"]
ASKED = ["when does the {} open", "how do I get to the {}", "is there parking near the {}", "who runs the {}"]


@pytest.fixture
def log(tmp_path):
    """Questions with a few openings and one answer each, in a random order."""
    rows = [
        (f"{opening}{asked.format(place)}{end}", f"{place} {number}")
        for opening in OPENINGS
        for place in PLACES
        for number, asked in enumerate(ASKED)
        for end in ("", "?", " today", " tomorrow", " please")
    ]
    random.Random(1).shuffle(rows)
    return _written(tmp_path / "log.csv", [("question", "answer"), *rows])


@pytest.fixture
def small_log(tmp_path):
    rows = [(f"when is shop {number} open", f"from {number % 3} on") for number in range(30)]
    return _written(tmp_path / "log.csv", [("question", "answer"), *rows])


def _written(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return str(path)


def _run(*arguments):
    return main(["calibrate", "--embedder", "hashing", *map(str, arguments)])


def test_a_log_gives_a_report_a_line_to_paste_a_plot_and_json(log, tmp_path, capsys):
    picture, facts = tmp_path / "curve.png", tmp_path / "report.json"
    assert _run(log, "--max-error", "0.05", "--plot", picture, "--json", facts) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "log.csv: 960 questions (960 different), 32 different answers" in out
    for words in ("≤ 1 %", "≤ 2 %", "≤ 5 %", *(family.title for family in FAMILIES.values())):
        assert words in out
    assert max(len(line) for line in out.splitlines() if str(tmp_path) not in line) <= 100
    assert picture.read_bytes().startswith(b"\x89PNG")
    data = json.loads(facts.read_text(encoding="utf-8"))
    found = data["recommendation"]
    assert found["verdict"] == "recommended"
    assert found["paste"] == f"SemanticCache(..., policy={found['policy']})"
    assert f"    {found['paste']}\n" in out
    assert found["tested"]["interval"][1] <= 0.05
    assert f"{found['tested']['wrong']:,} wrong of {found['tested']['hits']:,} hits" in " ".join(out.split())
    assert len(data["settings"]) == sum(len(family.sweep) for family in FAMILIES.values())
    assert {choice["max_error"] for choice in data["choices"]} == {0.01, 0.02, 0.05}


def test_the_report_repeats_itself(small_log, capsys):
    for _ in range(2):
        assert _run(small_log) == 0
    out = capsys.readouterr().out
    assert out[: len(out) // 2] == out[len(out) // 2 :]


def test_a_reader_who_has_seen_enough_is_no_failure(small_log):
    unread, written = os.pipe()
    os.close(unread)
    command = [sys.executable, "-m", "dispatch_core", "calibrate", str(small_log), "--embedder", "hashing"]
    with os.fdopen(written, "w") as pipe:
        done = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")


def test_where_nothing_is_good_enough_exact_matching_is_recommended(tmp_path, capsys):
    rows = [
        (f"when is shop {place} {number} open", f"answer {place} {number}") for place in PLACES for number in "12345"
    ]
    path = _written(tmp_path / "unlike.csv", [("question", "answer"), *rows])
    assert _run(path) == 0
    out = capsys.readouterr().out
    assert "SemanticCache(None, ...)  # exact matching" in out
    assert "no setting is good enough" in out
    assert "--same-answer cosine sees through wording" in " ".join(out.split())


def test_too_few_questions_are_too_few_to_tell(tmp_path, capsys):
    path = _written(tmp_path / "few.csv", [("question", "answer"), ("Who is it?", "Me."), ("Who is it now?", "Me.")])
    assert _run(path) == 0
    out = capsys.readouterr().out
    assert "too few hits to tell" in out
    assert "SemanticCache(None, ...)" in out


def test_questions_that_repeat_are_left_to_exact_matching(tmp_path, capsys):
    rows = [("question", "answer"), *[("Who is it?", "Me.")] * 9, ("Who is it?", "Not me.")]
    assert _run(_written(tmp_path / "again.csv", rows)) == 0
    out = capsys.readouterr().out
    assert "10 questions (1 different)" in out
    assert "exact matching alone answers 90.0 % of the questions, 11.1 % of these with another answer" in out


def test_the_report_says_what_was_skipped_cut_and_never_compared(tmp_path, capsys):
    rows = [
        ("question", "answer"),
        ("", "Me."),
        ("two\nlines", "b"),
        *[(f"Who is number {n}?", "Me.") for n in range(9)],
    ]
    assert _run(_written(tmp_path / "log.csv", rows), "--limit", 8) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "skipped 1 of 8 rows: 1 × empty question (first in line 2)" in out
    assert "only the first 8 rows were read; --limit reads more" in out
    assert "never compared by meaning: 1 × several-lines" in out
    assert "the hashing embedder is for tests" in out


def test_a_file_sorted_by_answer_is_noticed_and_can_be_shuffled(tmp_path, capsys):
    rows = [(f"question {n} of {answer}", answer) for answer in "abcd" for n in range(20)]
    path = _written(tmp_path / "sorted.csv", [("text", "label"), *rows])
    assert _run(path) == 0
    assert "use --shuffle" in " ".join(capsys.readouterr().out.split())
    assert _run(path, "--shuffle") == 0
    assert "use --shuffle" not in " ".join(capsys.readouterr().out.split())


def test_pairs_are_read_from_a_pipe_and_judged_one_by_one_on_request(monkeypatch, capsys):
    lines = [
        json.dumps({"a": f"how do I pay at shop {n}", "b": f"how do I pay now at shop {n}", "same": n % 10 != 0})
        for n in range(40)
    ]
    for options, words in (
        (["--pairs"], "40 labelled pairs of 80 questions, judged pair by pair"),
        ([], "80 questions"),
    ):
        monkeypatch.setattr("sys.stdin", type("Pipe", (), {"buffer": io.BytesIO("\n".join(lines).encode())}))
        assert _run("-", *options, "--shuffle") == 0
        assert words in capsys.readouterr().out


def test_answers_in_other_words_can_be_compared_by_cosine(tmp_path, capsys):
    rows = [(f"when is shop {n} open", f"it is open from {n} on, entry {n} here it is {word}") for n in range(40)
            for word in ("fine", "good")]  # fmt: skip
    path = _written(tmp_path / "log.csv", [("question", "answer"), *rows])
    assert _run(path, "--same-answer", "cosine", "--same-cosine", "0.7") == 0
    out = capsys.readouterr().out
    assert "answers are the same by text, or from a cosine of 0.7 on with the same numbers" in out
    assert "50.0 % of the questions, 0.0 % of these with another answer" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["none.csv"], "none.csv cannot be read"),
        (["log.csv", "--question", "who"], "no column 'who'"),
        (["log.csv", "--max-error", "1"], "max_error is a share of the hits in (0, 1), got 1.0"),
        (["log.csv", "--limit", "0"], "limit is at least 1 row"),
        (["log.csv", "--pairs"], "is a log"),
        (["log.csv", "--plot", "none/curve.png"], "none is no folder"),
        (["log.csv", "--json", "."], "cannot be written"),
        (["log.csv", "--plot", "."], "cannot be written"),
    ],
)
@pytest.mark.usefixtures("small_log")
def test_what_cannot_work_ends_with_code_2_and_a_reason(tmp_path, monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(tmp_path)
    assert _run(*arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("dispatcher calibrate: ")
    assert says in err


def test_without_matplotlib_a_plot_is_refused_before_the_work(small_log, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert _run(small_log, "--plot", "curve.png") == 2
    out, err = capsys.readouterr()
    assert (out, "pip install 'ai-dispatcher[calibrate]'" in err) == ("", True)


def test_an_interrupted_run_says_so(small_log, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("dispatch_core.calibrate.cli.calibrate", interrupted)
    assert _run(small_log) == 130
    assert "interrupted" in capsys.readouterr().err


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_without_rich_gets_one_line_that_is_wiped_at_the_end():
    terminal = _Terminal()
    with bars.progress(stream=terminal)("finding neighbours", 2_000) as advance:
        advance(500)
    shown = terminal.getvalue()
    assert "finding neighbours: 500 of 2,000" in shown
    assert shown.endswith("\r\033[K")
    assert "\n" not in shown


def test_rich_draws_the_bar_on_a_terminal(monkeypatch):
    terminal = _Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with bars.progress()("finding neighbours", 2_000) as advance:
        advance(2_000)
    assert "finding neighbours" in terminal.getvalue()


@pytest.mark.parametrize(("quiet", "stream"), [(True, _Terminal()), (False, io.StringIO())])
def test_nothing_is_shown_where_nobody_looks(quiet, stream):
    with bars.progress(quiet=quiet, stream=stream)("finding neighbours", 2_000) as advance:
        advance(500)
    assert stream.getvalue() == ""
