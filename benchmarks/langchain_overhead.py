"""What dispatching adds to LangChain: ``python -m benchmarks.langchain_overhead``, half a minute.

The models answer at once, so that nothing is measured but LangChain and what stands around it: the thread's own
time, the median of rounds in which all take turns. Only a stream's way to its first chunk is timed, not its end. The
floor is LangChain's own: what `BaseChatModel.stream` takes for a model whose one chunk lies ready.
"""

from __future__ import annotations

import os

# Before numpy and torch are imported: threads that spin beside each other would measure themselves.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableConfig
from pydantic import Field

from dispatch_core import default_embedder
from langchain_dispatch import SemanticCache, TokenRateLimiter, dispatch
from langchain_dispatch.query import prompt_of

QUESTION, REWORDED = "What is the capital of France?", "whats the capital of France"
_ANSWER = "The capital of France is Paris."
_IN_A_ROW = 20


class Ready(FakeListChatModel):
    """Answers at once, in one chunk."""

    responses: list[str] = Field(default_factory=list)

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage(_ANSWER))])

    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        yield ChatGenerationChunk(message=AIMessageChunk(content=_ANSWER))


Call = Callable[[], Any]
"""One call, up to what is timed; what it returns is closed when the clock has stopped."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.langchain_overhead", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    options = parser.parse_args(arguments)
    for line in report(measured(contestants(), options.rounds)):
        print(line)


def contestants() -> Mapping[str, Call]:
    plain, limiter = Ready(), TokenRateLimiter(rpm=1e9, tpm=1e12)
    limited, dispatched = plain.model_copy(update={"rate_limiter": limiter}), dispatch(plain, rate_limiter=limiter)
    # Without the memo that a cache puts around its default: each wording is read each time.
    cache = SemanticCache(embedder=default_embedder())
    cached = dispatch(plain, cache=cache)
    list(cached.stream(QUESTION))
    key, heard = cached._get_llm_string(stop=None), RunnableConfig(callbacks=[BaseCallbackHandler()])
    # LangChain makes a prompt and a key of a call before it looks it up; a stream needs them too.
    exact, meaning = prompt_of([HumanMessage(QUESTION)]), prompt_of([HumanMessage(REWORDED)])
    return {
        "invoke": lambda: plain.invoke(QUESTION),
        "invoke, observer and limiter": lambda: limited.invoke(QUESTION),
        "invoke, dispatched": lambda: dispatched.invoke(QUESTION),
        "lookup, exact": lambda: cache.lookup(exact, key),
        "lookup and its key, exact": lambda: cache.lookup(
            prompt_of([HumanMessage(QUESTION)]), cached._get_llm_string(stop=None)
        ),
        "lookup, meaning": lambda: cache.lookup(meaning, key),
        "first chunk, floor": lambda: begun(plain.stream(QUESTION)),
        "first chunk, exact": lambda: begun(cached.stream(QUESTION)),
        "first chunk, exact, heard": lambda: begun(cached.stream(QUESTION, heard)),
        "first chunk, meaning": lambda: begun(cached.stream(REWORDED)),
    }


def measured(calls: Mapping[str, Call], rounds: int) -> Mapping[str, float]:
    """Microseconds of a call: the median of the rounds, in each of which all take turns, several calls in a row."""
    spent: dict[str, list[int]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            for _ in range(_IN_A_ROW):
                started = time.thread_time_ns()
                opened = call()
                spent[name].append(time.thread_time_ns() - started)
                if isinstance(opened, Generator):
                    opened.close()
    return {name: median(times) / 1e3 for name, times in spent.items()}


def begun(stream: Any) -> Any:
    next(stream)
    return stream


def report(taken: Mapping[str, float]) -> Iterator[str]:
    yield f"{'processor time, µs':<44}"
    for name, spent in taken.items():
        yield f"  {name:<42}{spent:>10,.0f}"
    yield ""
    over = taken["invoke, observer and limiter"] - taken["invoke"]
    yield f"{'observer and limiter, over a plain invoke':<44}{over:>8,.0f} µs  goal 120"
    for name in ("exact", "exact, heard", "meaning"):
        ratio = taken[f"first chunk, {name}"] / taken[f"lookup, {name.removesuffix(', heard')}"]
        yield f"{f'first chunk / lookup, {name}':<44}{ratio:>8.2f} x   goal 1.2"
    keyed = taken["first chunk, exact"] / taken["lookup and its key, exact"]
    yield f"{'first chunk / lookup and its key, exact':<44}{keyed:>8.2f} x"
    floor = taken["first chunk, floor"] / taken["lookup, exact"]
    yield f"{'LangChain alone / lookup, exact: the floor':<44}{floor:>8.2f} x"


if __name__ == "__main__":
    main()
