"""The limiter of one process, as its callers see it: tasks in virtual time, threads in short windows."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fakes import FORMS, Clock, Either
from virtual_time import in_virtual_time, virtual_now

from dispatch_core import ConfigError, Cost, Feedback, LimitExceeded, RequestTooLarge, TokenLimiter, Usage
from dispatch_core.limit.count import TokenEstimator


def _virtual(**settings: float) -> TokenLimiter:
    return TokenLimiter(**settings, clock=virtual_now)


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def clock() -> Clock:
    return Clock(1_000.0)


@pytest.fixture
def limiter(clock: Clock) -> TokenLimiter:
    """100 tokens a second, 200 at once; nobody waits on this clock."""
    return TokenLimiter(tpm=6_000, clock=clock)


# Admission


async def test_a_call_that_fits_is_admitted_at_once(limiter, form):
    reservation = await Either(_Acquiring(limiter), form).acquire(Cost(100, 50), timeout=0)
    assert reservation.cost == Cost(100, 50)
    stats = limiter.stats()
    assert (stats.admitted, stats.open, stats.waiting, stats.tokens_used) == (1, 1, 0, 150)


class _Acquiring:
    """`acquire` and `aacquire` as a pair that `Either` can choose from."""

    def __init__(self, limiter: TokenLimiter) -> None:
        self.acquire = limiter.acquire
        self.aacquire = limiter.aacquire


async def test_now_or_never_refuses_what_does_not_fit(limiter, clock, form):
    acquiring = Either(_Acquiring(limiter), form)
    await acquiring.acquire(Cost(200), timeout=0)
    with pytest.raises(LimitExceeded) as refused:
        await acquiring.acquire(Cost(100), timeout=0)
    assert refused.value.retry_after == pytest.approx(1.0)
    assert (limiter.stats().rejected, limiter.stats().waiting) == (1, 0)
    clock.now += refused.value.retry_after
    await acquiring.acquire(Cost(100), timeout=0)


async def test_a_turn_that_would_come_too_late_is_refused_at_once(limiter, form):
    acquiring = Either(_Acquiring(limiter), form)
    await acquiring.acquire(Cost(200))
    with pytest.raises(LimitExceeded, match="too late"):
        await acquiring.acquire(Cost(100), timeout=0.9)


@pytest.mark.parametrize("tpm", [60, 100])
async def test_a_call_that_never_fits_is_refused_with_both_numbers(tpm, form):
    limiter = TokenLimiter(tpm=tpm)
    with pytest.raises(RequestTooLarge, match=rf"\b150\b.*\b{tpm}\b") as refused:
        await Either(_Acquiring(limiter), form).acquire(Cost(100, 50))
    assert (refused.value.requested, refused.value.limit) == (150, tpm)
    assert limiter.stats().waiting == 0


def test_the_largest_call_that_fits_never_hangs():
    async def main() -> None:
        limiter = _virtual(tpm=6_000, rpm=60)
        for _ in range(3):
            (await limiter.aacquire(Cost(6_000))).settle()

    in_virtual_time(main())


def test_max_wait_bounds_every_wait(clock):
    limiter = TokenLimiter(tpm=6_000, max_wait=0.5, clock=clock)
    limiter.acquire(Cost(200))
    with pytest.raises(LimitExceeded):
        limiter.acquire(Cost(100))
    with pytest.raises(LimitExceeded):
        limiter.acquire(Cost(100), timeout=60)


def test_a_full_queue_refuses_the_next():
    async def main() -> None:
        limiter = _virtual(tpm=6_000, max_queue=2)
        await limiter.aacquire(Cost(200))
        waiting = [asyncio.create_task(limiter.aacquire(Cost(100))) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(LimitExceeded, match="queue is full") as refused:
            await limiter.aacquire(Cost(100))
        assert refused.value.retry_after > 1
        await asyncio.gather(*waiting)
        await limiter.aacquire(Cost(100))

    in_virtual_time(main())


def test_a_queue_of_none_still_admits_what_fits(clock):
    limiter = TokenLimiter(tpm=6_000, max_queue=0, clock=clock)
    limiter.acquire(Cost(200))
    with pytest.raises(LimitExceeded):
        limiter.acquire(Cost(1))
    clock.now += 1
    limiter.acquire(Cost(1))


@pytest.mark.parametrize("name", ["rpm", "tpm", "window", "burst"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_a_limit_that_is_no_positive_number_is_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        TokenLimiter(**{"tpm": 100, name: value})


@pytest.mark.parametrize("settings", [{}, {"rpm": 0.5}, {"rpm": 30, "window": 1}, {"tpm": 1, "max_queue": -1}])
def test_settings_that_cannot_work_are_refused(settings):
    with pytest.raises(ConfigError):
        TokenLimiter(**settings)


@pytest.mark.parametrize("name", ["max_queue", "max_wait"])
@pytest.mark.parametrize("value", [-1, float("nan")])
def test_a_bound_that_is_negative_is_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        TokenLimiter(**{"tpm": 100, name: value})


@pytest.mark.parametrize("cost", [Cost(-1), Cost(5, -1)])
def test_a_negative_cost_is_refused(limiter, cost):
    with pytest.raises(ConfigError, match="negative"):
        limiter.acquire(cost)


# Waiting


def test_calls_are_admitted_in_their_order_and_at_the_rate():
    async def main() -> None:
        limiter, order, start = _virtual(tpm=6_000), [], virtual_now()

        async def ask(number: int) -> float:
            await limiter.aacquire(Cost(100))
            order.append(number)
            return virtual_now() - start

        times = await asyncio.gather(*map(ask, range(20)))
        assert order == list(range(20))
        # Two at once from the burst, then one a second.
        assert times == pytest.approx([0, 0, *range(1, 19)], abs=1e-3)

    in_virtual_time(main())


def test_a_small_call_waits_behind_a_large_one():
    async def main() -> None:
        limiter, order = _virtual(tpm=6_000), []

        async def ask(tokens: int) -> None:
            await limiter.aacquire(Cost(tokens))
            order.append(tokens)

        await asyncio.gather(*map(ask, (200, 150, 1, 50)))
        assert order == [200, 150, 1, 50]

    in_virtual_time(main())


def test_what_is_given_back_wakes_who_waits_for_it():
    async def main() -> None:
        limiter = _virtual(tpm=6_000)
        held = await limiter.aacquire(Cost(6_000))
        waiting = asyncio.create_task(limiter.aacquire(Cost(200)))
        await asyncio.sleep(1)
        start = virtual_now()
        held.cancel()
        await waiting
        assert virtual_now() - start < 1e-3

    in_virtual_time(main())


def test_a_wait_that_became_shorter_is_not_slept_out():
    async def main() -> None:
        limiter = _virtual(tpm=6_000)
        held = await limiter.aacquire(Cost(6_000))
        waiting = asyncio.create_task(limiter.aacquire(Cost(200)))
        await asyncio.sleep(1)
        start = virtual_now()
        # Not enough for the one who waits to go at once, but enough to go in two seconds instead of an hour.
        held.settle(Usage(400, 0))
        await waiting
        assert virtual_now() - start == pytest.approx(3.0, abs=1e-2)

    in_virtual_time(main())


def test_a_timeout_ends_a_wait_that_took_longer_than_foreseen():
    async def main() -> None:
        limiter, start = _virtual(tpm=6_000), virtual_now()
        await limiter.aacquire(Cost(200))
        waiting = asyncio.create_task(limiter.aacquire(Cost(200), timeout=5))
        await asyncio.sleep(0.5)
        limiter.observe(Feedback(429, 30))
        with pytest.raises(LimitExceeded, match="within the timeout") as refused:
            await waiting
        assert virtual_now() - start == pytest.approx(5, abs=1e-3)
        assert refused.value.retry_after == pytest.approx(25.5, abs=1e-3)
        assert limiter.stats().waiting == 0

    in_virtual_time(main())


def test_a_cancelled_wait_lets_the_next_go():
    async def main() -> None:
        limiter, start = _virtual(tpm=6_000), virtual_now()
        await limiter.aacquire(Cost(200))
        large = asyncio.create_task(limiter.aacquire(Cost(5_000)))
        small = asyncio.create_task(limiter.aacquire(Cost(10)))
        await asyncio.sleep(0.05)
        large.cancel()
        await small
        assert virtual_now() - start == pytest.approx(0.1, abs=1e-3)
        assert large.cancelled()
        assert limiter.stats().tokens_used == 210

    in_virtual_time(main())


def test_a_cancellation_after_the_admission_gives_everything_back():
    async def main() -> None:
        limiter = _virtual(tpm=6_000)
        held = await limiter.aacquire(Cost(6_000))
        waiting = asyncio.create_task(limiter.aacquire(Cost(150)))
        await asyncio.sleep(0)
        held.cancel()
        assert limiter.stats().admitted == 2
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (limiter.stats().open, limiter.stats().tokens_used) == (0, 0)

    in_virtual_time(main())


def test_any_order_of_cancellations_loses_no_wake_up():
    async def main() -> None:
        limiter = _virtual(tpm=6_000, rpm=600)
        tasks = [asyncio.create_task(limiter.aacquire(Cost(50 + 37 * n % 400))) for n in range(60)]
        for number in range(0, 60, 3):
            await asyncio.sleep(0.3)
            tasks[number].cancel()
        # A lost wake-up ends the virtual loop with an error.
        done = await asyncio.gather(*tasks, return_exceptions=True)
        for reservation in done:
            if not isinstance(reservation, BaseException):
                reservation.settle(Usage(1, 1))
        stats = limiter.stats()
        assert (stats.open, stats.waiting) == (0, 0)

    in_virtual_time(main())


# Threads and loops


def test_threads_tasks_and_two_loops_share_one_quota():
    limiter = TokenLimiter(rpm=60_000, tpm=6_000_000, window=0.05, burst=0.01)
    settled = []

    def blocking(number: int) -> None:
        with limiter.reserve(400, timeout=30) as reservation:
            reservation.settle(Usage(300, 0))
        settled.append(number)

    async def awaited(number: int) -> None:
        async with limiter.reserve(400, timeout=30) as reservation:
            reservation.settle(Usage(300, 0))
        settled.append(number)

    async def many(first: int) -> None:
        await asyncio.gather(*map(awaited, range(first, first + 50)))

    with ThreadPoolExecutor(12) as threads:
        jobs = [threads.submit(blocking, number) for number in range(100)]
        jobs += [threads.submit(asyncio.run, many(first)) for first in (100, 150)]
        for job in jobs:
            job.result()
    assert sorted(settled) == list(range(200))
    stats = limiter.stats()
    assert (stats.admitted, stats.open, stats.waiting, stats.rejected) == (200, 0, 0, 0)


def test_a_task_is_woken_by_a_thread_that_gives_back():
    limiter = TokenLimiter(tpm=6_000)
    held = limiter.acquire(Cost(6_000))

    async def main() -> None:
        waiting = asyncio.create_task(limiter.aacquire(Cost(10)))
        await asyncio.sleep(0)
        await asyncio.to_thread(held.cancel)
        (await waiting).settle()

    asyncio.run(main())
    assert limiter.stats().open == 0


def test_a_thread_is_woken_by_a_task_that_gives_back():
    limiter = TokenLimiter(tpm=6_000)
    held = limiter.acquire(Cost(6_000))
    waiting = threading.Thread(target=lambda: limiter.acquire(Cost(10)).settle())
    waiting.start()

    async def main() -> None:
        held.cancel()

    asyncio.run(main())
    waiting.join()
    assert limiter.stats().open == 0


def test_a_loop_that_ended_while_a_call_waited_does_not_block_the_others():
    limiter = TokenLimiter(tpm=6_000)
    held = limiter.acquire(Cost(6_000))

    async def main() -> None:
        asyncio.get_running_loop().create_task(limiter.aacquire(Cost(10)))
        await asyncio.sleep(0)

    asyncio.run(main())
    assert limiter.stats().waiting == 0
    held.cancel()
    limiter.acquire(Cost(10), timeout=0)


# Reservations


async def test_a_context_keeps_the_estimate_of_what_was_not_settled(limiter, form):
    if form == "sync":
        with limiter.reserve(40, max_tokens=60) as reservation:
            assert limiter.stats().open == 1
    else:
        async with limiter.reserve(40, max_tokens=60) as reservation:
            assert limiter.stats().open == 1
    assert reservation.cost.tokens == 100
    assert (limiter.stats().open, limiter.stats().tokens_used) == (0, 100)


@pytest.mark.parametrize("prompt", ["x" * 160, 40, Cost(40, 60)], ids=["text", "tokens", "cost"])
def test_a_prompt_is_a_text_a_number_or_a_cost(limiter, prompt):
    with limiter.reserve(prompt, max_tokens=60) as reservation:
        assert reservation.cost.tokens == 100
        reservation.settle(Usage(10, 20))
    assert (limiter.stats().open, limiter.stats().tokens_used) == (0, 30)


async def _fail_inside(limiter: TokenLimiter, form: str) -> None:
    """Hold a place, now or never, and fail."""
    if form == "sync":
        with limiter.reserve(50, timeout=0):
            raise ValueError("upstream")
    async with limiter.reserve(50, timeout=0):
        raise ValueError("upstream")


async def test_a_context_that_raises_keeps_its_charge(limiter, form):
    for _ in range(2):
        with pytest.raises(ValueError, match="upstream"):
            await _fail_inside(limiter, form)
    assert (limiter.stats().open, limiter.stats().tokens_used) == (0, 100)


def test_what_was_never_sent_is_given_back_inside_the_context(limiter):
    with limiter.reserve(150) as reservation:
        reservation.cancel()
    assert (limiter.stats().open, limiter.stats().tokens_used) == (0, 0)


async def test_a_context_that_is_not_admitted_holds_nothing(limiter, form):
    limiter.acquire(Cost(200)).settle()
    for _ in range(2):
        with pytest.raises(LimitExceeded):
            await _fail_inside(limiter, form)
    assert limiter.stats().open == 0


# Feedback


@pytest.mark.parametrize("status", [429, 529])
def test_after_a_refusal_of_the_provider_nobody_is_admitted_for_a_while(limiter, clock, status):
    limiter.observe(Feedback(status, 3.0))
    assert limiter.eta(Cost(1)) == pytest.approx(3.0)
    with pytest.raises(LimitExceeded):
        limiter.acquire(Cost(1), timeout=2.9)
    clock.now += 3
    limiter.acquire(Cost(1), timeout=0)
    assert limiter.stats().throttled == 1


@pytest.mark.parametrize(
    ("retry_after", "pause"), [(None, 1), (float("nan"), 1), (-5, 1), (float("inf"), 1), (0, 0), (1e9, 60)]
)
def test_a_strange_retry_after_is_bounded(limiter, retry_after, pause):
    limiter.observe(Feedback(429, retry_after))
    assert limiter.eta(Cost(1)) == pytest.approx(pause)


@pytest.mark.parametrize("status", [200, 400, 401, 500, 503])
def test_other_answers_close_no_gate(limiter, status):
    limiter.observe(Feedback(status, 30.0))
    assert limiter.eta(Cost(1)) == 0
    assert limiter.stats().throttled == 0


def test_a_shorter_gate_never_opens_a_longer_one(limiter):
    limiter.observe(Feedback(429, 30.0))
    limiter.observe(Feedback(429, 1.0))
    assert limiter.eta(Cost(1)) == pytest.approx(30)


def test_those_who_wait_at_the_gate_go_when_it_opens():
    async def main() -> None:
        limiter, start = _virtual(tpm=6_000), virtual_now()
        await limiter.aacquire(Cost(200))
        waiting = [asyncio.create_task(limiter.aacquire(Cost(10))) for _ in range(3)]
        await asyncio.sleep(0)
        limiter.observe(Feedback(429, 20))
        await asyncio.gather(*waiting)
        assert virtual_now() - start == pytest.approx(20, abs=1e-2)

    in_virtual_time(main())


def test_the_eta_is_how_long_a_call_will_wait():
    async def main() -> None:
        limiter = _virtual(tpm=6_000)
        assert limiter.eta(Cost(200)) == 0
        await limiter.aacquire(Cost(200))
        ahead = [asyncio.create_task(limiter.aacquire(Cost(150))) for _ in range(4)]
        await asyncio.sleep(0)
        foreseen, start = limiter.eta(Cost(50)), virtual_now()
        await limiter.aacquire(Cost(50))
        assert virtual_now() - start == pytest.approx(foreseen, rel=0.01)
        await asyncio.gather(*ahead)

    in_virtual_time(main())


# Estimates


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        *[("", 1), ("abcd" * 10, 10), ("a\x00b\x00", 1), ("你好世界" * 10, 30)],
        *[("<|endoftext|>", 3), ("lone \ud800 surrogate", 4)],
    ],
)
def test_every_text_has_an_estimate(limiter, text, tokens):
    assert limiter.estimate(text, max_tokens=7) == Cost(tokens, 7, "", pytest.approx(tokens, abs=1))


def test_a_megabyte_has_an_estimate(limiter):
    assert limiter.estimate("x" * 1_000_000, max_tokens=0).tokens == 250_000


def test_the_estimate_learns_what_a_model_counts():
    estimator = TokenEstimator(default_output=100)
    text = "x" * 400
    for _ in range(100):
        cost = estimator.estimate(text, max_tokens=None, model="talkative")
        estimator.learn(cost, Usage(250, 900))
    assert estimator.estimate(text, max_tokens=None, model="talkative").tokens == pytest.approx(1_150, rel=0.01)
    assert estimator.estimate(text, max_tokens=5, model="talkative").output_tokens == 5
    unknown = estimator.estimate(text, max_tokens=None, model="another")
    assert (unknown.input_tokens, unknown.output_tokens) == (100, 100)


@pytest.mark.parametrize("usage", [Usage(0, 0), Usage(10**9, 0), Usage(1, 0)])
def test_strange_usage_never_ruins_the_estimate(usage):
    estimator = TokenEstimator()
    for _ in range(500):
        estimator.learn(estimator.estimate("x" * 400, max_tokens=0, model=""), usage)
    assert 20 <= estimator.estimate("x" * 400, max_tokens=0, model="").input_tokens <= 500


def test_a_counted_cost_teaches_nothing():
    estimator = TokenEstimator()
    estimator.learn(Cost(100, 0), Usage(500, 0))
    assert estimator.estimate("x" * 400, max_tokens=0, model="").input_tokens == 100


def test_settling_teaches_the_limiter(limiter):
    before = limiter.estimate("x" * 400, max_tokens=10).input_tokens
    for _ in range(20):
        limiter.acquire(limiter.estimate("x" * 40, max_tokens=0), timeout=0).settle(Usage(1, 0))
    assert limiter.estimate("x" * 400, max_tokens=10).input_tokens < before
