"""`DispatchLLM(..., retries=RetryPolicy())`: every attempt reserves anew, and not all is worth one."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator
from typing import Any

import pytest
from llamaindex_models import FORMS, Ask, Gated, close_clients, hit, openai_at
from scripted import Scripted, failure

from dispatch_core import ConfigError, HashingEmbedder, LimitExceeded, MemoryStore, SemanticCache, TokenLimiter
from dispatch_core.lifetime import Lifetime
from llamaindex_dispatch import DispatchLLM, RetryPolicy


@pytest.fixture(autouse=True)
async def _close_clients() -> AsyncIterator[None]:
    yield
    await close_clients()


class Waits(list[float]):
    """A policy's sleep: notes the wait instead."""

    async def asleep(self, seconds: float) -> None:
        self.append(seconds)
        await asyncio.sleep(0)

    def policy(self, **settings: Any) -> RetryPolicy:
        return RetryPolicy(sleep=self.append, asleep=self.asleep, random=lambda: 0.0, **settings)


def cached() -> SemanticCache:
    return SemanticCache(HashingEmbedder(), MemoryStore())


def plenty() -> TokenLimiter:
    return TokenLimiter(rpm=6000, tpm=1_000_000, burst=60)


@pytest.mark.parametrize("ask", FORMS)
async def test_every_attempt_reserves_anew(ask: Ask) -> None:
    waits, limiter = Waits(), plenty()
    inner = Gated.made(failures=[ConnectionError("gone"), ConnectionError("gone")])
    llm = DispatchLLM(inner, cache=cached(), rate_limiter=limiter, retries=waits.policy())
    await ask(llm, "How do I pay?")
    assert hit(await ask(llm, "How do I pay?")) == "exact"
    assert inner.asked == 3
    assert waits == [0.5, 1.0]
    assert (limiter.stats().admitted, limiter.stats().open) == (3, 0)


@pytest.mark.parametrize("ask", FORMS)
async def test_the_last_error_reaches_the_caller_and_leaves_nothing_open(ask: Ask) -> None:
    waits, limiter = Waits(), plenty()
    inner = Gated.made(failures=[ConnectionError(str(number)) for number in range(9)])
    llm = DispatchLLM(inner, cache=cached(), rate_limiter=limiter, retries=waits.policy(attempts=2))
    with pytest.raises(ConnectionError, match="1"):
        await ask(llm, "How do I pay?")
    assert (inner.asked, limiter.stats().open, len(llm.dispatcher._flights)) == (2, 0, 0)


@pytest.mark.parametrize("ask", FORMS)
async def test_what_no_attempt_will_mend_is_not_made_again(ask: Ask) -> None:
    inner = Gated.made(failures=[ValueError("ours")])
    with pytest.raises(ValueError, match="ours"):
        await ask(DispatchLLM(inner, retries=Waits().policy()), "How do I pay?")
    assert inner.asked == 1


@pytest.mark.parametrize("ask", FORMS)
async def test_an_attempt_that_gets_no_turn_in_time_is_refused(ask: Ask) -> None:
    limiter = TokenLimiter(rpm=60, burst=1, max_wait=0)
    inner = Gated.made(failures=[ConnectionError("gone")])
    llm = DispatchLLM(inner, cache=cached(), rate_limiter=limiter, retries=Waits().policy())
    with pytest.raises(LimitExceeded):
        await ask(llm, "How do I pay?")
    assert (limiter.stats().open, len(llm.dispatcher._flights)) == (0, 0)


class Breaking(Gated):
    """A stream that breaks after its first chunk."""

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        def chunks() -> Any:
            yield from list(super(Breaking, self).stream_complete(prompt))[:1]
            raise ConnectionError("gone")

        return chunks()


def test_a_stream_that_has_begun_is_not_asked_again() -> None:
    inner = Breaking.made()
    with pytest.raises(ConnectionError):
        list(DispatchLLM(inner, retries=Waits().policy()).stream_complete("How do I pay?"))
    assert inner.asked == 1


def test_the_answers_of_a_provider_are_what_the_waits_follow() -> None:
    waits = Waits()
    with Scripted(failure(500), (429, {"retry-after-ms": "250"}, {"error": {}}), failure(401)) as provider:
        llm = DispatchLLM(openai_at(provider.url), rate_limiter=plenty(), retries=waits.policy(attempts=5))
        with pytest.raises(Exception, match="401"):
            llm.complete("How do I pay?")
    assert waits == [0.5, 0.25]
    assert (llm.rate_limiter.stats().admitted, llm.rate_limiter.stats().throttled) == (3, 1)


def test_a_policy_is_checked_survives_copies_and_warns_of_others() -> None:
    with pytest.raises(ConfigError, match="retries= takes a RetryPolicy, not int"):
        DispatchLLM(Gated.made(), retries=3)  # type: ignore[arg-type]
    llm = DispatchLLM(Gated.made(), retries=RetryPolicy(attempts=7))
    assert pickle.loads(pickle.dumps(llm)).retries == RetryPolicy(attempts=7)  # noqa: S301
    assert "retries" not in llm.to_dict()
    with pytest.warns(UserWarning, match="retries past retries="):
        DispatchLLM(openai_at("http://127.0.0.1:9/v1", max_retries=2), retries=RetryPolicy())


@pytest.mark.parametrize("ask", FORMS)
async def test_an_old_answer_is_better_than_an_error(ask: Ask) -> None:
    now = 1000.0
    cache = SemanticCache(
        HashingEmbedder(), MemoryStore(), ttl=Lifetime(100.0, stale=50.0, jitter=0), clock=lambda: now
    )
    inner = Gated.made()
    llm = DispatchLLM(inner, cache=cache)
    first = await ask(llm, "How do I pay?")
    now += 125.0
    inner._script.failures.append(ConnectionError("gone"))
    again = await ask(llm, "How do I pay?")
    assert str(again) == str(first)
    assert inner.asked == 2
