"""The speed benchmark measures what it says: turns, processor time on both sides, lines with a verdict."""

from __future__ import annotations

import csv
import os
import time

import pytest

from benchmarks.cache_speed.__main__ import main
from benchmarks.cache_speed.lines import LINES, Figures, Line, judged
from benchmarks.cache_speed.measure import Arm, Sample, _busy_of, measured
from benchmarks.cache_speed.report import table


def test_every_contestant_has_its_turn_in_each_round():
    calls: list[tuple[str, int]] = []
    arms = [Arm(name, lambda count, name=name: calls.append((name, count)), 7) for name in ("a", "b", "c")]
    samples = measured(arms, rounds=5)
    assert calls[:3] == [("a", 1), ("b", 1), ("c", 1)]
    rounds = [calls[start : start + 3] for start in range(3, len(calls), 3)]
    assert len(rounds) == 5
    assert all(sorted(turns) == [("a", 7), ("b", 7), ("c", 7)] for turns in rounds)
    assert len({tuple(turns) for turns in rounds}) > 1
    assert set(samples) == {"a", "b", "c"}


def test_waiting_is_no_processor_time_and_the_time_of_a_server_is():
    def work(count: int) -> None:
        end = time.process_time() + 0.02
        while time.process_time() < end:
            pass

    arms = [Arm("sleeps", lambda count: time.sleep(0.02), 1), Arm("works", work, 1)]
    alone, doubled = measured(arms, rounds=1), measured(arms, rounds=1, servers=[os.getpid()])
    assert alone["sleeps"].cpu < alone["works"].cpu < doubled["works"].cpu
    assert alone["sleeps"].wall > 19_000
    assert _busy_of(os.getpid()) > 0


@pytest.mark.parametrize(("at_least", "verdict"), [(False, "ok"), (True, "missed")])
def test_a_line_is_judged_by_its_direction(at_least, verdict):
    figures = Figures({"ours": Sample(1.0, 9.0), "theirs": Sample(4.0, 9.0)})
    line = Line("ours : theirs", 0.5, lambda its: its.samples["ours"].cpu / its.samples["theirs"].cpu, at_least)
    assert line.measured(figures) == 0.25
    assert line.reached(0.25) is (verdict == "ok")


def test_what_was_not_measured_is_said():
    assert set(judged(Figures()).values()) == {None}
    assert table(Figures()).count("not measured") == len(LINES)


def test_all_of_it_runs(tmp_path, capsys):
    main(["--quick", "--out", str(tmp_path)])
    shown = capsys.readouterr().out
    assert all(line.title in shown for line in LINES)
    with (tmp_path / "cache_speed.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows if row["kind"] == "line"] == [line.title for line in LINES]
    assert {row["verdict"] for row in rows if row["kind"] == "line"} <= {"ok", "missed", "not measured"}
