"""The closed loop, for Locust: users who ask the next question of the trace, read the answer, think, and go on.

Locust runs it in a process of its own (and may live in an environment of its own): nothing of the project is imported
here. What it reads and writes are JSON Lines, named by the environment.
"""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path
from typing import Any

import gevent
from locust import HttpUser, events, task

QUESTIONS = [json.loads(line)["text"] for line in Path(os.environ["LOAD_TEST_TRACE"]).read_text("utf-8").splitlines()]
RESULTS = Path(os.environ["LOAD_TEST_RESULTS"])
THINK = float(os.environ["LOAD_TEST_THINK"])
DICE = random.Random(os.environ["LOAD_TEST_SEED"])

_turns = iter(range(len(QUESTIONS)))
_rows: list[dict[str, Any]] = []


class Reader(HttpUser):
    """Thinks for an exponential time before every question, the first one too: the load is even from the start."""

    def wait_time(self) -> float:
        return DICE.expovariate(1 / THINK)

    def on_start(self) -> None:
        gevent.sleep(self.wait_time())

    @task
    def ask(self) -> None:
        turn = next(_turns, None)
        if turn is None:
            return
        began = time.time()
        with self.client.post("/ask", json={"question": QUESTIONS[turn]}, catch_response=True) as response:
            told = response.json() if response.status_code else {"error": "NoResponse"}
            response.success() if response.status_code == 200 else response.failure(told.get("error"))
        _rows.append(
            {"turn": turn, "at": began, "seconds": time.time() - began, "status": response.status_code} | told
        )
        if len(_rows) == len(QUESTIONS):
            # Not from here: to quit kills the users, this one too.
            gevent.spawn(self.environment.runner.quit)


@events.quitting.add_listener
def write(**_: Any) -> None:
    cpu = {"cpu_seconds": time.process_time()}
    RESULTS.write_text("\n".join(map(json.dumps, [cpu, *_rows])) + "\n", encoding="utf-8")
