"""The faults of the limiter that a well-known article prints: each is looked for in ours.

Where the scenario can be run on the article's own bucket, it is: a test that would not catch the fault is no test.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from virtual_time import in_virtual_time, virtual_now

from benchmarks.limiter.article import ArticleBucket
from dispatch_core import Cost, TokenLimiter, Usage

TPM = 6_000
Acquire = Callable[[int], Awaitable[object]]


def _articles() -> Acquire:
    return ArticleBucket(TPM, virtual_now).acquire


def _ours(profile: str = "window") -> Acquire:
    limiter = TokenLimiter(tpm=TPM, profile=profile, clock=virtual_now)

    async def acquire(tokens: int) -> None:
        (await limiter.aacquire(Cost(tokens))).settle()

    return acquire


def _admitted(make: Callable[[], Acquire], *, since: float, until: float, tokens: int = 100) -> float:
    """What callers who always ask for more are admitted between two instants, as a multiple of the limit."""

    async def main() -> float:
        acquire, start, times = make(), virtual_now(), []
        while (now := virtual_now() - start) < until:
            times.append(now)
            await acquire(tokens)
        # The instant of an admission is when the next one asks.
        spent = sum(tokens for at in times[1:] if since <= at < until)
        return spent / (TPM / 60 * (until - since))

    return in_virtual_time(main())


PROFILES = ["window", "openai", "anthropic", "azure", "bucket"]


@pytest.mark.parametrize("profile", PROFILES)
def test_the_steady_state_admits_the_limit_and_not_twice_of_it(profile):
    assert _admitted(_articles, since=600, until=1_800) == pytest.approx(2.0, abs=0.05)
    assert 0.95 <= _admitted(lambda: _ours(profile), since=600, until=1_800) <= 1.001


@pytest.mark.parametrize("profile", PROFILES)
def test_the_first_minute_admits_the_limit_and_not_thrice_of_it(profile):
    assert _admitted(_articles, since=0, until=60) > 2.9
    assert 0.95 <= _admitted(lambda: _ours(profile), since=0, until=60) <= 1.05


def test_any_minute_admits_no_more_than_the_limit():
    """Also after a rest, and for the largest calls."""

    async def main() -> None:
        limiter, admitted = TokenLimiter(tpm=TPM, clock=virtual_now), []
        for rest, tokens in itertools.product((0, 7, 61, 300), (100, 1_500, TPM)):
            for _ in range(8):
                (await limiter.aacquire(Cost(tokens))).settle()
                admitted.append((virtual_now(), tokens))
            await asyncio.sleep(rest)
        for end, _ in admitted:
            assert sum(tokens for at, tokens in admitted if end - 60 < at <= end) <= TPM

    in_virtual_time(main())


def test_the_tokens_of_answers_count():
    async def main() -> None:
        limiter, spent, start = TokenLimiter(tpm=TPM, clock=virtual_now), 0, virtual_now()
        while virtual_now() - start < 600:
            held = await limiter.aacquire(limiter.estimate("x" * 40, max_tokens=300))
            held.settle(Usage(10, 290))
            spent += 300
        assert spent <= 10 * TPM + 2 * TPM / 30 + 300

    in_virtual_time(main())


def test_an_answer_that_nobody_announced_counts_too():
    async def main() -> None:
        limiter = TokenLimiter(tpm=TPM, clock=virtual_now)
        (await limiter.aacquire(Cost(10))).settle(Usage(10, 1_990))
        assert limiter.stats().tokens_used == 2_000
        assert limiter.eta(100) >= 15

    in_virtual_time(main())


def test_a_small_call_does_not_wait_while_a_large_one_sleeps():
    """Of another tenant: among the calls of one, whoever comes first goes first."""

    async def waited(large: Callable[[], Awaitable[object]], small: Callable[[], Awaitable[object]]) -> float:
        sleeping = asyncio.create_task(large())
        await asyncio.sleep(1)
        start = virtual_now()
        await small()
        sleeping.cancel()
        return virtual_now() - start

    async def articles() -> float:
        bucket = ArticleBucket(TPM, virtual_now)
        await bucket.acquire(TPM)
        return await waited(lambda: bucket.acquire(5_000), lambda: bucket.acquire(1))

    async def ours() -> float:
        limiter = TokenLimiter(tpm=TPM, clock=virtual_now)
        await limiter.aacquire(Cost(900), key="batch")
        return await waited(
            lambda: limiter.aacquire(Cost(5_000), key="batch"),
            lambda: limiter.aacquire(Cost(1), key="user", priority=-1),
        )

    assert in_virtual_time(articles()) == pytest.approx(49, abs=1)
    assert in_virtual_time(ours()) < 8


def test_nobody_who_sleeps_holds_the_lock():
    async def main() -> None:
        limiter = TokenLimiter(tpm=TPM, clock=virtual_now)
        held = await limiter.aacquire(Cost(TPM))
        sleeping = asyncio.create_task(limiter.aacquire(Cost(200)))
        await asyncio.sleep(1)
        start = virtual_now()
        assert limiter.try_reserve(1) is None
        assert limiter.eta(1) > 10
        assert limiter.stats().waiting == 1
        held.cancel()
        await sleeping
        assert virtual_now() - start < 1e-3

    in_virtual_time(main())


@pytest.mark.parametrize("text", ["<|endoftext|>", "say <|im_start|>system", "<|fim_prefix|>" * 100])
def test_the_marks_of_a_tokenizer_in_a_text_are_text(text):
    limiter = TokenLimiter(tpm=TPM)
    with limiter.reserve(text, max_tokens=10) as held:
        assert held.cost.input_tokens > 1


def test_it_belongs_to_no_event_loop():
    limiter = TokenLimiter(tpm=TPM * 1_000, window=0.6)

    async def main() -> None:
        async with limiter.reserve(100):
            pass
        await asyncio.gather(*(limiter.aacquire(Cost(1_500)) for _ in range(5)))

    asyncio.run(main())
    asyncio.run(main())
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: asyncio.run(main()), range(2)))
    with limiter.reserve(100):
        pass
    assert limiter.stats().admitted == 4 * 6 + 1
