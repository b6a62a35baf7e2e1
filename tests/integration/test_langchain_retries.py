"""`RetryPolicy`: what is tried again, after which wait, and that every attempt reserves for itself."""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import openai
import pytest
from fakes import FORMS, CountingEmbedder
from langchain_core.language_models import BaseChatModel, FakeListChatModel, FakeListLLM
from langchain_core.messages import HumanMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_models import PLENTY, QUESTION, Heard, Scripted, asked, left_nothing, model_of, streamed, summed
from langchain_openai import ChatOpenAI

from dispatch_core import ConfigError, LimitExceeded
from dispatch_core.simulate import Simulator, SimulatorConfig
from langchain_dispatch import RetryPolicy, SemanticCache, TokenRateLimiter, dispatch


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def limiter() -> TokenRateLimiter:
    return TokenRateLimiter(**PLENTY)


class Waits(list[float]):
    """A policy's sleep: notes the wait and does ``then`` instead."""

    def __init__(self, then: Any = lambda: None) -> None:
        self.then = then

    def __hash__(self) -> int:
        return id(self)

    def __call__(self, seconds: float) -> None:
        self.append(seconds)
        self.then()

    async def asleep(self, seconds: float) -> None:
        self(seconds)
        await asyncio.sleep(0)

    def policy(self, **settings: Any) -> RetryPolicy:
        return RetryPolicy(sleep=self.__call__, asleep=self.asleep, random=zero, **settings)


def zero() -> float:
    return 0.0


class Refused(Exception):
    """An SDK's error, by its shape."""

    def __init__(self, status: int, code: str | None = None, **headers: str) -> None:
        super().__init__(str(status))
        self.status_code = status
        self.code = code
        self.response = type("Response", (), {"headers": {n.replace("_", "-"): v for n, v in headers.items()}})()


class APITimeoutError(Exception):
    """As an SDK names it."""


WAITS = [
    (Refused(429, retry_after="7"), 7.0),
    (Refused(429, retry_after_ms="250", retry_after="7"), 0.25),
    (Refused(503, retry_after="2"), 2.0),
    (Refused(429), 0.5),
    (Refused(500), 0.5),
    (Refused(529), 0.5),
    (Refused(408), 0.5),
    (ConnectionResetError("gone"), 0.5),
    (APITimeoutError("late"), 0.5),
    (Refused(400, x_should_retry="true"), 0.5),
    (Refused(429, retry_after="61"), None),
    (Refused(400), None),
    (Refused(401), None),
    (Refused(429, code="insufficient_quota"), None),
    (Refused(503, x_should_retry="false"), None),
    (ValueError("ours"), None),
    (LimitExceeded("full", 1.0), None),
]


@pytest.mark.parametrize(("error", "wait"), WAITS, ids=str)
def test_what_is_worth_another_attempt_and_after_which_wait(error: Exception, wait: float | None) -> None:
    assert RetryPolicy(random=zero).wait_after(error, 1) == wait


def test_without_a_hint_the_wait_doubles_up_to_the_longest() -> None:
    policy = RetryPolicy(attempts=99, base=1.0, max_wait=10.0, random=zero)
    assert [policy.wait_after(Refused(500), attempt) for attempt in (1, 2, 3, 4, 5, 90)] == [1, 2, 4, 8, 10, 10]


def test_waits_are_spread_and_never_shorter_than_what_the_provider_says() -> None:
    policy = RetryPolicy()
    waits = {policy.wait_after(Refused(429, retry_after="8"), 1) for _ in range(50)}
    assert len(waits) > 1
    assert all(wait is not None and 8 <= wait <= 10 for wait in waits)


def test_the_last_attempt_is_the_last() -> None:
    assert RetryPolicy(attempts=2, random=zero).wait_after(Refused(500), 2) is None


def test_chance_makes_no_wait_longer_than_the_longest() -> None:
    policy = RetryPolicy(attempts=99, base=1.0, max_wait=10.0, random=lambda: 0.99)
    waits = [policy.wait_after(ConnectionError(), attempt) for attempt in range(1, 20)]
    assert max(wait for wait in waits if wait is not None) == 10.0


@pytest.mark.parametrize("settings", [{"attempts": 0}, {"attempts": 1.5}, {"max_wait": -1}, {"base": float("nan")}])
def test_settings_that_cannot_work_are_refused(settings: Any) -> None:
    with pytest.raises(ConfigError):
        RetryPolicy(**settings)


async def call(model: Any, form: str, how: str, **kwargs: Any) -> Any:
    return await asked(model, form, **kwargs) if how == "invoke" else summed(await streamed(model, form, **kwargs))


class Failing(Scripted):
    """Fails before its first chunk, too."""

    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        self._said(args[0])
        self._fail()
        self.calls.pop()
        yield from super()._stream(*args, **kwargs)


@pytest.mark.parametrize("how", ["invoke", "stream"])
async def test_every_attempt_reserves_anew_and_the_trace_shows_one_call(
    how: str, form: str, limiter: TokenRateLimiter
) -> None:
    waits = Waits()
    plain = Failing(failures=[ConnectionError("gone"), Refused(500)])
    model = dispatch(plain, rate_limiter=limiter, retries=waits.policy())
    heard = Heard()
    answer = await call(model, form, how, config={"callbacks": [heard]})
    assert answer.content == "answer 3"
    assert waits == [0.5, 1.0]
    assert (limiter.stats().admitted, limiter.stats().open) == (3, 0)
    assert [event for event in heard.events if event != "tokens"] == ["start", "end"]


@pytest.mark.parametrize("how", ["invoke", "stream"])
async def test_when_no_attempt_succeeds_the_last_error_is_raised(
    how: str, form: str, limiter: TokenRateLimiter
) -> None:
    failures: list[BaseException] = [Refused(500), Refused(503), Refused(502)]
    model = dispatch(Failing(failures=list(failures)), rate_limiter=limiter, retries=Waits().policy())
    with pytest.raises(Refused) as raised:
        await call(model, form, how)
    assert raised.value is failures[-1]
    assert (limiter.stats().admitted, limiter.stats().open) == (3, 0)


@pytest.mark.parametrize("how", ["invoke", "stream"])
async def test_a_real_provider_is_asked_again_when_it_says_so(how: str, form: str) -> None:
    with Simulator(SimulatorConfig(latency=0, rpm=1)) as strict:
        waits = Waits(then=strict.reset)
        plain = model_of(strict)
        model = dispatch(plain, retries=waits.policy())
        assert isinstance(model, ChatOpenAI)
        plain.invoke("the only one")
        answer = await call(model, form, how)
    assert answer.content
    assert len(waits) == 1
    assert 1 < waits[0] <= 60, "what the provider's header said"


async def test_a_refusal_is_charged_nothing_and_its_attempt_waits_at_the_gate(form: str) -> None:
    limiter = TokenRateLimiter(**PLENTY)
    plain = Failing(failures=[Refused(429, retry_after_ms="1")])
    await asked(dispatch(plain, rate_limiter=limiter, retries=Waits().policy()), form)
    stats = limiter.stats()
    assert (stats.admitted, stats.throttled, stats.open, stats.requests_used) == (2, 1, 0, 1)


async def test_a_stream_that_has_begun_is_not_begun_again(form: str, limiter: TokenRateLimiter) -> None:
    waits = Waits()
    model = dispatch(Scripted(failures=[ConnectionError("gone")]), rate_limiter=limiter, retries=waits.policy())
    with pytest.raises(ConnectionError):
        await streamed(model, form)
    assert waits == []
    assert (limiter.stats().admitted, limiter.stats().open) == (1, 0)


async def test_an_error_of_the_caller_is_raised_at_once(form: str, limiter: TokenRateLimiter) -> None:
    waits = Waits()
    model = dispatch(Failing(failures=[Refused(400)]), rate_limiter=limiter, retries=waits.policy())
    with pytest.raises(Refused):
        await asked(model, form)
    assert waits == []
    assert limiter.stats().open == 0


async def test_no_turn_in_time_ends_the_attempts(form: str) -> None:
    limiter = TokenRateLimiter(rpm=1, timeout=0.0)
    model = dispatch(Failing(failures=[Refused(500)]), rate_limiter=limiter, retries=Waits().policy())
    with pytest.raises(LimitExceeded):
        await asked(model, form)
    assert (limiter.stats().admitted, limiter.stats().open) == (1, 0)


async def test_a_call_cancelled_between_two_attempts_leaves_nothing(limiter: TokenRateLimiter) -> None:
    waiting = asyncio.Event()

    async def forever(seconds: float) -> None:
        waiting.set()
        await asyncio.Event().wait()

    plain = Failing(failures=[Refused(500)])
    cache = SemanticCache(embedder=CountingEmbedder())
    model = dispatch(plain, cache=cache, rate_limiter=limiter, retries=RetryPolicy(asleep=forever))
    calling = asyncio.ensure_future(streamed(model, "async"))
    await waiting.wait()
    assert limiter.stats().open == 0, "nothing is held meanwhile"
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert left_nothing(cache, limiter)


async def test_langchains_own_limiter_is_asked_for_every_attempt(form: str) -> None:
    class Counting(InMemoryRateLimiter):
        acquired = 0

        def acquire(self, *, blocking: bool = True) -> bool:
            self.acquired += 1
            return True

        async def aacquire(self, *, blocking: bool = True) -> bool:
            return self.acquire()

    limiter = Counting()
    await asked(dispatch(Failing(failures=[Refused(500)]), rate_limiter=limiter, retries=Waits().policy()), form)
    assert limiter.acquired == 2


async def test_calls_of_a_batch_are_retried_each_for_itself(limiter: TokenRateLimiter) -> None:
    plain = Failing(failures=[Refused(500) for _ in range(4)])
    model = dispatch(plain, rate_limiter=limiter, retries=Waits().policy(attempts=9))
    answers = await model.agenerate([[HumanMessage(f"q{n}")] for n in range(5)])
    assert len(answers.generations) == 5
    assert (limiter.stats().admitted, limiter.stats().open) == (9, 0)


async def test_an_answer_that_came_at_last_is_cached(form: str, limiter: TokenRateLimiter) -> None:
    cache = SemanticCache(embedder=CountingEmbedder())
    plain = Failing(failures=[Refused(500)])
    model = dispatch(plain, cache=cache, rate_limiter=limiter, retries=Waits().policy())
    first = await asked(model, form)
    assert (await asked(model, form)).content == first.content
    assert limiter.stats().admitted == 2
    assert left_nothing(cache, limiter)


class Failure(BaseHTTPRequestHandler):
    """A provider that always fails and says when to come back: soon."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.requests += 1  # type: ignore[attr-defined]
        self.send_response(500)
        self.send_header("retry-after-ms", "1")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def failing() -> Iterator[Any]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Failure) as server:
        server.requests = 0  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("sdk", "ours", "reserved"), [(2, 1, 1), (0, 3, 3)], ids=["the SDK's retries", "ours"])
def test_an_sdks_own_retries_ask_no_limiter_and_ours_do(
    sdk: int, ours: int, reserved: int, failing: Any, limiter: TokenRateLimiter
) -> None:
    url = f"http://127.0.0.1:{failing.server_port}/v1"
    plain = ChatOpenAI(model="m", base_url=url, api_key="k", max_retries=sdk)
    waits = Waits()
    with pytest.raises(openai.InternalServerError):
        dispatch(plain, rate_limiter=limiter, retries=waits.policy(attempts=ours)).invoke(QUESTION)
    assert failing.requests == 3
    assert (limiter.stats().admitted, limiter.stats().open) == (reserved, 0)
    assert waits == [0.001] * (ours - 1)


def test_a_model_that_does_not_stream_does_not_pretend_to() -> None:
    class Whole(FakeListChatModel):
        _stream = BaseChatModel._stream
        _astream = BaseChatModel._astream

    model = dispatch(Whole(responses=["a"]), retries=RetryPolicy())
    assert not model._should_stream(async_api=True, stream=True)


def test_the_policy_survives_copies_and_pickling() -> None:
    model = dispatch(FakeListChatModel(responses=["a", "b"]), retries=RetryPolicy(attempts=5))
    again = pickle.loads(pickle.dumps(model))  # noqa: S301
    assert type(again) is type(model)
    assert type(dispatch(model, stream_chunk=3)).dispatched.retries == RetryPolicy(attempts=5)  # type: ignore[attr-defined]
    assert again.invoke("q").content == "a"


def test_retries_are_for_chat_models() -> None:
    with pytest.raises(TypeError, match="retries are for chat models"):
        dispatch(FakeListLLM(responses=["a"]), retries=RetryPolicy())
