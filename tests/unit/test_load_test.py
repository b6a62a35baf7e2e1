"""The load test measures what it says: the trace, what becomes of an arrival, the figures and the verdicts."""

from __future__ import annotations

import asyncio
import csv
import importlib.util
import math
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer
from rich.console import Console

from benchmarks.demo.provider import Quota
from benchmarks.demo.trace import ANSWERS, QUESTIONS, Arrival, Question, load_answers, load_questions
from benchmarks.load_test.__main__ import _judged
from benchmarks.load_test.application import application
from benchmarks.load_test.arms import ARMS, Answer, Target
from benchmarks.load_test.context import contexts
from benchmarks.load_test.locust_rig import locust_command, run_locust
from benchmarks.load_test.outcome import Asked, Outcome, Run, figures, quantile
from benchmarks.load_test.plot import plot
from benchmarks.load_test.regime import ARTICLE, QUICK
from benchmarks.load_test.replay import replay
from benchmarks.load_test.report import rows, savings, show, tell, verdicts, write_csv
from benchmarks.load_test.stage import Cost
from benchmarks.load_test.trace import make_trace, repeated
from dispatch_core.simulate import Fault, Simulator, SimulatorConfig

HOURS = "What are the opening hours of the Ghent store on weekdays?"

# The trace


@pytest.mark.parametrize("regime", [ARTICLE, QUICK], ids=str)
@pytest.mark.parametrize("verbatim", [0.0, 0.5])
def test_a_trace_has_its_share_of_repeats_and_traps(regime, verbatim):
    trace = make_trace(load_questions(), replace(regime, verbatim=verbatim), seed=3)
    asked = [arrival.question for arrival in trace]
    assert len(trace) == regime.arrivals
    assert sum(repeated(trace)) == round(regime.arrivals * regime.repeats)
    again = sum(count - 1 for count in Counter(question.text for question in asked).values())
    assert again == round(regime.arrivals * regime.repeats * verbatim)
    assert sum(question.kind == "hard_negative" for question in asked) >= 0.15 * len(asked)
    gaps = [trace[0].at, *(late.at - early.at for early, late in pairwise(trace))]
    assert min(gaps) > 0
    assert sum(gaps) / len(gaps) == pytest.approx(1 / regime.rate, rel=0.2)


def test_a_seed_makes_one_trace_and_another_seed_another():
    questions = load_questions()
    assert make_trace(questions, QUICK, seed=1) == make_trace(questions, QUICK, seed=1)
    assert make_trace(questions, QUICK, seed=1) != make_trace(questions, QUICK, seed=2)


def test_too_few_questions_are_an_error():
    with pytest.raises(ValueError, match="too few"):
        make_trace(load_questions(), replace(ARTICLE, arrivals=1000), seed=1)


# The application and the replay


class Refused(Exception):
    status_code = 429


def test_the_replay_counts_from_the_intended_arrival_and_loses_nothing():
    held = asyncio.Event()

    async def ask(question: str) -> Answer:
        if question == "refused":
            raise Refused
        if question == "broken":
            raise ZeroDivisionError
        if question == "last":
            held.set()
        await held.wait()
        return Answer(question.upper(), hit=question == "hit")

    def arrival(at: float, text: str) -> Arrival:
        return Arrival(at, Question(text, "g", "first", "en"))

    trace = [arrival(0.0, "slow"), arrival(0.0, "refused"), arrival(0.01, "broken"), arrival(0.02, "hit")]
    trace.append(arrival(0.2, "last"))

    async def run() -> list[Asked]:
        async with TestServer(application(ask)) as server:
            return await replay(trace, str(server.make_url("")).rstrip("/"))

    slow, refused, broken, hit, last = asyncio.run(run())
    assert (slow.status, slow.answer, slow.hit) == (200, "SLOW", False)
    assert slow.seconds >= 0.2, "it was answered when the last one came"
    assert (refused.status, refused.answer, refused.error) == (429, None, "Refused")
    assert (broken.status, broken.error) == (500, "ZeroDivisionError")
    assert hit.hit
    assert last.seconds < slow.seconds


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_answers_what_the_provider_does(arm):
    async def twice(target: Target) -> list[Answer]:
        with ARMS[arm].open(target) as ask:
            return [await ask(HOURS), await ask(HOURS)]

    told = SimulatorConfig(latency=0.0, groups=QUESTIONS, answers=ANSWERS, grounded=True)
    with Simulator(told) as provider:
        first, second = asyncio.run(twice(Target(provider.url, Quota(6000, 10**6, 60.0))))
        assert provider.book.judge(HOURS, first.text)
        assert (second.text, first.hit, second.hit) == (first.text, False, ARMS[arm].limited)
        counted = provider.stats()
    calls = 1 if ARMS[arm].limited else 2
    assert counted.admitted == calls
    assert (counted.prompt_tokens < 0.6 * calls * ARTICLE.tokens) == (arm in ("full", "gateway"))


def test_the_context_of_a_question_holds_its_answer_and_is_that_of_all_its_wordings():
    context_of, answers = contexts(), load_answers()
    asked = load_questions()
    assert all(answers[question.group] in context_of(question.text) for question in asked)
    assert len({(question.group, context_of(question.text)) for question in asked}) == len(answers)
    assert context_of("Who are you?") == context_of(HOURS)


def test_the_bare_arm_is_refused_and_the_retrying_one_comes_back():
    @contextmanager
    def struck():
        with Simulator(SimulatorConfig(latency=0.0)) as provider:
            provider.inject(Fault(kind="rate_limit", count=1, seconds=0.001))
            yield Target(provider.url, Quota(6000, 10**6, 60.0))

    async def status(arm: str, target: Target) -> int:
        with ARMS[arm].open(target) as ask:
            try:
                await ask(HOURS)
            except Exception as error:
                return int(getattr(error, "status_code", 0))
            return 200

    for arm, expected in (("bare", 429), ("retries", 200), ("exact", 200)):
        with struck() as target:
            assert asyncio.run(status(arm, target)) == expected, arm


# The figures


def cost(**counted: int) -> Cost:
    counts: dict[str, Any] = {"requests": 0, "rejected_429": 0, "prompt_tokens": 0, "completion_tokens": 0}
    return Cost(0.2, 0.1, 0.1, {**counts, **counted})


def outcome(
    seconds: float, *, right: bool = True, hit: bool = False, status: int = 200, late: float = 0.0, **facts: Any
) -> Outcome:
    told: dict[str, Any] = {"at": 0.0, "group": "g", "kind": "first", "lang": "en", "repeat": False, **facts}
    return Outcome(right=right, asked=Asked(seconds, status, "a", hit, late=late), **told)


def run_of(arm: str, outcomes: list[Outcome], lasted: float = 10.0, **counted: int) -> Run:
    return Run("open loop", arm, 1, outcomes, cost(**counted), lasted)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 2), (0.51, 3), (0.75, 3), (0.99, 4), (1.0, 4)])
def test_a_quantile_is_the_smallest_value_that_enough_do_not_exceed(share, expected):
    assert quantile([1, 2, 3, 4], share) == expected


def test_times_are_those_of_right_answers_and_shares_those_of_all():
    outcomes = [outcome(1.0), outcome(3.0, repeat=True, hit=True), outcome(0.01, right=False, status=429)]
    outcomes.append(outcome(0.1, right=False, hit=True, kind="hard_negative"))
    line = figures([run_of("full", outcomes, requests=4, rejected_429=1, prompt_tokens=90, completion_tokens=10)])
    assert (line.arrivals, line.right, line.mean, line.p50, line.p99) == (4, 0.5, 2.0, 1.0, 3.0)
    assert (line.logical_429, line.attempt_429, line.attempts_429) == (0.25, 0.25, 1)
    assert (line.hits, line.wrong_hits, line.wrong_traps, line.wrong_share, line.recalled) == (2, 1, 1, 0.5, 1.0)
    assert (line.per_hour, line.tokens) == (3600 * 2 / 10.0, 50.0)


def test_runs_are_pooled_and_one_busy_process_makes_all_invalid():
    busy = replace(run_of("bare", [outcome(9.0)]), cost=replace(cost(), generator=0.71))
    line = figures([run_of("bare", [outcome(1.0)]), busy])
    assert (line.arrivals, line.mean, line.generator_cpu, line.valid) == (2, 5.0, 0.71, False)


@pytest.mark.parametrize("late", [{"cost": replace(cost(), lag=0.11)}, {"outcomes": [outcome(1.0, late=0.11)]}])
def test_a_machine_that_is_late_makes_a_run_invalid(late):
    punctual = run_of("bare", [outcome(1.0, late=0.02)])
    assert (punctual.lag, punctual.valid) == (0.02, True)
    tardy = replace(punctual, **late)
    assert (tardy.lag, tardy.valid) == (0.11, False)


def test_nothing_answered_has_no_times():
    line = figures([run_of("bare", [outcome(0.1, right=False, status=500)])])
    assert math.isnan(line.mean)
    assert math.isnan(line.p99)
    assert (line.per_hour, line.wrong_share) == (0.0, 0.0)


def test_an_answer_is_right_when_it_is_that_of_its_group():
    first = Question("a", "ghent-weekday-hours", "first", "en")
    trace = [Arrival(0.0, first), Arrival(1.0, replace(first, text="b")), Arrival(2.0, replace(first, text="c"))]
    right = load_answers()["ghent-weekday-hours"]
    judged = _judged(trace, [Asked(1.0, 200, right), Asked(1.0, 200, "another"), Asked(1.0, 429)])
    assert [(one.right, one.repeat) for one in judged] == [(True, False), (False, True), (False, True)]


# The verdicts


def found(best: Outcome, base: Outcome, *, saved: int = 40, refused: int = 0) -> dict[str, bool]:
    runs = [
        run_of("retries", [base], requests=2, rejected_429=1, prompt_tokens=100),
        run_of("full", [best], requests=2, rejected_429=refused, prompt_tokens=100 - saved),
    ]
    told = verdicts(rows(runs), 0.3)
    return {verdict.promise.removeprefix("open loop: "): verdict.holds for verdict in told}


def test_the_promises_hold_when_they_are_kept():
    assert all(found(outcome(1.0), outcome(3.0)).values())


@pytest.mark.parametrize(
    ("kept", "broken"),
    [
        ({"best": outcome(1.1)}, {"dispatched: mean at most 0.33 of bare + SDK retries"}),
        ({"saved": 29}, {"dispatched: tokens an answer down by the repeats' 30%"}),
        ({"refused": 1}, {"dispatched: no attempt is a 429"}),
        ({"best": outcome(1.0, right=False, status=429)}, {"dispatched: no question ends in a 429"}),
        ({"best": outcome(1.0, right=False, hit=True)}, {"dispatched: wrong hits at most 1 % of hits"}),
        ({"base": outcome(3.0, right=False, status=500)}, {"bare + SDK retries: all are answered"}),
    ],
)
def test_a_promise_that_is_broken_is_told(kept, broken):
    told = found(**{"best": outcome(1.0), "base": outcome(3.0), **kept})
    assert broken <= {promise for promise, holds in told.items() if not holds}


def test_what_saved_the_tokens_is_told():
    runs = [
        run_of(arm, [outcome(1.0)], prompt_tokens=tokens)
        for arm, tokens in (("retries", 100), ("uncompressed", 90), ("full", 40))
    ]
    (line,) = savings(rows(runs))
    assert line.startswith("open loop: tokens an answer -60.0%: hits -10.0%, compression -50.0%")
    assert savings(rows(runs[:2])) == []


def test_the_files_and_the_table_have_every_arm(tmp_path: Path):
    outcomes = [outcome(1.0 + step / 10, at=float(step)) for step in range(30)]
    runs = [run_of(arm, outcomes, requests=30, prompt_tokens=900) for arm in ARMS]
    measured = rows(runs)
    console = Console(record=True, width=180)
    show(measured, console)
    tell(verdicts(measured, 0.3), console)
    told = console.export_text()
    assert all(arm.title in told for arm in ARMS.values())
    plot(runs, "open loop", tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    of_runs, of_arrivals = write_csv(runs, tmp_path)
    with of_runs.open(encoding="utf-8", newline="") as file:
        assert [row["arm"] for row in csv.DictReader(file)] == list(ARMS)
    with of_arrivals.open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 30 * len(ARMS)


# Locust, in a process of its own

STAND_IN = f"""#!{sys.executable}
import json, os, sys, urllib.request
rows = [{{"cpu_seconds": 0.5}}]
texts = [json.loads(line)["text"] for line in open(os.environ["LOAD_TEST_TRACE"], encoding="utf-8")]
for turn, text in reversed(list(enumerate(texts))):
    rows.append({{"turn": turn, "at": 100.0 - turn, "seconds": 0.25, "status": 200, "answer": text, "hit": True}})
if "--host" in sys.argv and float(os.environ["LOAD_TEST_THINK"]) > 0:
    open(os.environ["LOAD_TEST_RESULTS"], "w", encoding="utf-8").write("\\n".join(map(json.dumps, rows)))
sys.exit(1)
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> str:
    """What Locust reads and writes, and its exit code when an answer was an error."""
    program = tmp_path / "locust"
    program.write_text(STAND_IN, encoding="utf-8")
    program.chmod(0o755)
    return str(program)


def test_what_locust_saw_is_told_in_its_own_order(stand_in: str):
    trace = make_trace(load_questions(), replace(QUICK, arrivals=20), seed=1)
    seen = run_locust([stand_in], trace, "http://127.0.0.1:9", QUICK, seed=1)
    assert [arrival.question for arrival in seen.trace] == [arrival.question for arrival in reversed(trace)]
    assert [arrival.at for arrival in seen.trace] == [float(step) for step in range(20)]
    assert [one.answer for one in seen.asked] == [arrival.question.text for arrival in seen.trace]
    assert {(one.seconds, one.status, one.hit) for one in seen.asked} == {(0.25, 200, True)}
    assert seen.cpu_seconds == 0.5


def test_a_locust_that_writes_nothing_is_an_error():
    with pytest.raises(RuntimeError, match="Locust failed"):
        run_locust(["false"], [], "http://127.0.0.1:9", QUICK, seed=1)


def test_the_locust_that_is_given_is_taken(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert locust_command("/elsewhere/locust") == ["/elsewhere/locust"]
    assert locust_command(None) is None
