"""What responses tell beside their answers reaches the limiter: where the quota stands, and what embeddings cost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import openai
import pytest
from llama_index.core import MockEmbedding
from llamaindex_models import FORMS, Ask, close_clients, embedding_at, openai_at

from dispatch_core import LimitExceeded, TokenLimiter
from dispatch_core.simulate import Simulator, SimulatorConfig
from llamaindex_dispatch import DispatchLLM, TokenRateLimiter, hearing

TPM = 50_000


@pytest.fixture(scope="module")
def strict() -> Iterator[Simulator]:
    with Simulator(SimulatorConfig(latency=0, tpm=TPM)) as simulator:
        yield simulator


@pytest.fixture(autouse=True)
async def _close_clients() -> AsyncIterator[None]:
    yield
    await close_clients()


def share(limiter: Any) -> float:
    granted: float = limiter.stats().gauges["tokens"].share
    return granted


@pytest.mark.parametrize("ask", FORMS)
async def test_headers_correct_a_limit_configured_too_high_through_a_wrapper(strict: Simulator, ask: Ask) -> None:
    limiter = TokenLimiter(tpm=2 * TPM)
    await ask(DispatchLLM(openai_at(strict.url), rate_limiter=limiter), "How do I pay?")
    assert share(limiter) == pytest.approx(0.5)


@pytest.mark.parametrize("ask", FORMS)
async def test_headers_correct_a_limit_configured_too_high_without_a_wrapper(strict: Simulator, ask: Ask) -> None:
    limiter = TokenRateLimiter(tpm=2 * TPM)
    await ask(openai_at(strict.url, rate_limiter=limiter), "How do I pay?")
    assert share(limiter) == pytest.approx(0.5)


def test_each_of_two_streams_tells_its_own_limiter(strict: Simulator) -> None:
    limiters = [TokenRateLimiter(tpm=2 * TPM), TokenRateLimiter(tpm=4 * TPM)]
    streams = [openai_at(strict.url, rate_limiter=limiter).stream_complete("Hi?") for limiter in limiters]
    for stream in streams:
        list(stream)
    assert list(map(share, limiters)) == pytest.approx([0.5, 0.25])


def test_a_client_that_is_made_anew_for_every_call_is_not_heard(strict: Simulator) -> None:
    limiter = TokenLimiter(tpm=2 * TPM)
    DispatchLLM(openai_at(strict.url, reuse_client=False), rate_limiter=limiter).complete("How do I pay?")
    assert share(limiter) == 1.0


def test_a_client_is_given_one_ear_and_keeps_its_own_hooks(strict: Simulator) -> None:
    seen: list[int] = []
    inner = openai_at(strict.url)
    hooks = inner._get_client()._client.event_hooks["response"]
    hooks.append(lambda response: seen.append(response.status_code))
    llm = DispatchLLM(inner, rate_limiter=TokenLimiter(tpm=2 * TPM))
    for text in ("one?", "two?", "three?"):
        llm.complete(text)
    assert seen == [200] * 3
    assert hooks.count(hearing._note) == 1


class Unmade:
    """A model whose client cannot be made."""

    reuse_client = True

    def _get_client(self) -> Any:
        raise ValueError("no key")


def test_a_client_that_cannot_be_had_fails_no_call() -> None:
    hearing.listen(Unmade())
    hearing.listen(None)
    assert hearing.heard() is None


# Embeddings

Embed = Callable[[Any, list[str]], Awaitable[None]]


async def query(model: Any, texts: list[str]) -> None:
    for text in texts:
        model.get_query_embedding(text)


async def aquery(model: Any, texts: list[str]) -> None:
    for text in texts:
        await model.aget_query_embedding(text)


async def text(model: Any, texts: list[str]) -> None:
    for one in texts:
        model.get_text_embedding(one)


async def atext(model: Any, texts: list[str]) -> None:
    for one in texts:
        await model.aget_text_embedding(one)


async def batch(model: Any, texts: list[str]) -> None:
    model.get_text_embedding_batch(texts)


async def abatch(model: Any, texts: list[str]) -> None:
    await model.aget_text_embedding_batch(texts)


EMBEDS = [query, aquery, text, atext, batch, abatch]
TEXTS = [f"The {name} shop opens at nine and closes at half past six." for name in ("Ghent", "Lyon", "Utrecht")]


@pytest.mark.parametrize("embed", EMBEDS)
async def test_an_embedding_costs_what_the_provider_counted(strict: Simulator, embed: Embed) -> None:
    strict.reset()
    limiter = TokenRateLimiter(tpm=2 * TPM)
    await embed(embedding_at(strict.url, rate_limiter=limiter, embed_batch_size=2), TEXTS)
    stats = limiter.stats()
    assert (stats.admitted, stats.open) == (strict.stats().requests, 0)
    assert stats.tokens_used == strict.stats().prompt_tokens
    assert share(limiter) == pytest.approx(0.5)


@pytest.mark.parametrize("embed", EMBEDS)
async def test_an_embedding_reserves_its_tokens_before_it_is_sent(embed: Embed) -> None:
    limiter = TokenRateLimiter(tpm=600, timeout=0)
    model = MockEmbedding(3)
    model.rate_limiter = limiter
    await embed(model, ["word " * 400])
    assert 400 <= limiter.stats().tokens_used <= 600
    with pytest.raises(LimitExceeded):
        await embed(model, ["word " * 400])
    assert limiter.stats().open == 0


@pytest.mark.parametrize("embed", EMBEDS)
async def test_a_429_of_an_embedding_closes_the_gate(embed: Embed) -> None:
    with Simulator(SimulatorConfig(latency=0, rpm=1)) as narrow:
        limiter = TokenRateLimiter(rpm=6000, burst=60, timeout=0)
        model = embedding_at(narrow.url, rate_limiter=limiter)
        await embed(model, TEXTS[:1])
        with pytest.raises(openai.RateLimitError):
            await embed(model, TEXTS[1:2])
        assert (limiter.stats().throttled, limiter.stats().open) == (1, 0)
        with pytest.raises(LimitExceeded):
            await embed(model, TEXTS[2:])
        assert narrow.stats().requests == 2


def test_a_picture_counts_as_a_request() -> None:
    """What is no text is not estimated."""
    limiter = TokenRateLimiter(rpm=600)
    limiter.acquire()
    assert (limiter.stats().requests_used, limiter.stats().open) == (1, 0)
