"""`OpenAIEmbedder` and servers that answer, refuse, fail and vanish."""

from __future__ import annotations

import asyncio
import base64
import gc
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import openai
import pytest
import scripted
from fakes import FORMS, Either, in_another_process
from scripted import CLOSE, HANG, Scripted, answer, failure, refusal

from dispatch_core import ConfigError, EmbeddingError, LimitExceeded, OpenAIEmbedder, TokenLimiter, Usage
from dispatch_core.limit.tokenizer import counter_at_hand
from dispatch_core.simulate import Simulator, SimulatorConfig

SECRET = "the secret text"


@pytest.fixture(params=FORMS)
async def opened(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., Either]]:
    made: list[OpenAIEmbedder] = []

    def open_one(url: str, model: str = "m", **settings: Any) -> Either:
        made.append(OpenAIEmbedder(model, **{"base_url": url, "api_key": "any", "max_tokens": 512, **settings}))
        return Either(made[-1], request.param)

    yield open_one
    for embedder in made:
        await embedder.aclose()


def limiter(**limits: Any) -> TokenLimiter:
    return TokenLimiter(**{"rpm": 60_000, "burst": 60.0, **limits})


# What is asked, and what comes back


def test_the_name_tells_the_space_and_the_size_is_known_without_a_call():
    assert (OpenAIEmbedder().model, OpenAIEmbedder().dims) == ("openai:text-embedding-3-small", 1536)
    assert OpenAIEmbedder("text-embedding-3-large").dims == 3072
    assert OpenAIEmbedder("text-embedding-ada-002").dims == 1536
    short = OpenAIEmbedder(dimensions=256)
    assert (short.model, short.dims) == ("openai:text-embedding-3-small:256", 256)
    assert OpenAIEmbedder(dimensions=1536).model == OpenAIEmbedder().model


async def test_the_size_of_an_unknown_model_is_learned_once(opened):
    with Scripted() as api:
        embedder = opened(api.url)
        assert (await embedder.embed([])).shape == (0, scripted.DIMS)
        assert embedder.target.dims == scripted.DIMS
        assert (await embedder.embed([])).shape == (0, scripted.DIMS)
        assert len(api.requests) == 1


async def test_many_texts_go_in_as_few_requests_as_the_api_takes(opened):
    with Scripted() as api:
        rows = await opened(api.url, max_batch=2).embed(["a", "bb", "ccc"])
        assert [asked["input"] for asked in api.requests] == [["a", "bb"], ["ccc"]]
        assert rows[:, 1] / rows[:, 0] == pytest.approx([1, 2, 3])
    with Scripted() as api:
        long = "word " * 3_000
        assert len(await opened(api.url, max_tokens=8191).embed([long] * 50)) == 50
        assert [len(asked["input"]) for asked in api.requests] == [39, 11]


async def test_the_places_of_the_answer_count_and_base64_is_understood(opened):
    def turned(texts: list[str]) -> dict[str, Any]:
        body = answer(texts)
        for one in body["data"]:
            one["embedding"] = base64.b64encode(np.array(one["embedding"], dtype="<f4").tobytes()).decode()
        return {**body, "data": body["data"][::-1]}

    with Scripted(forever=turned) as api:
        rows = await opened(api.url).embed(["a", "bb", "ccc"])
    assert rows[:, 1] / rows[:, 0] == pytest.approx([1, 2, 3])
    assert api.requests[0]["encoding_format"] == "base64"


async def test_what_the_api_would_refuse_is_sent_otherwise(opened):
    with Scripted() as api:
        embedder = opened(api.url)
        await embedder.embed(["", "x" * 10_000])
        assert api.requests[0]["input"] == [" ", "x" * 512]
        assert (await embedder.fit("x" * 10_000)).tokens > 512


@pytest.mark.parametrize("text", ["How do I return it? ", "Wie gebe ich es zurück? ", "怎么退货？", "x y "])
async def test_as_much_of_a_long_text_is_sent_as_the_model_reads(opened, text):
    count = counter_at_hand("text-embedding-3-small")
    assert count is not None
    with Scripted() as api:
        embedder = opened(api.url, "text-embedding-3-small", dimensions=scripted.DIMS, max_tokens=512)
        await embedder.embed([text * 1_000])
        [sent] = api.requests[0]["input"]
    assert (text * 1_000).startswith(sent)
    assert 480 <= count(sent) <= 512


async def test_a_clients_own_settings_are_kept(opened):
    with Scripted(failure(500)) as api, openai.OpenAI(base_url=api.url, api_key="mine", max_retries=0) as client:
        embedder = opened(None, api_key=None, client=client)
        with pytest.raises(EmbeddingError, match="InternalServerError, HTTP 500"):
            await embedder.embed(["a"])
        assert (await embedder.embed(["a"])).shape == (1, scripted.DIMS)


async def test_both_clients_may_be_given():
    with Scripted() as api, openai.OpenAI(base_url=api.url, api_key="any") as client:
        async with openai.AsyncOpenAI(base_url=api.url, api_key="any") as async_client:
            embedder = OpenAIEmbedder("m", client=client, async_client=async_client, max_tokens=512)
            assert np.array_equal(embedder.embed(["a"]), await embedder.aembed(["a"]))
            await embedder.aclose()
            assert not client.is_closed()
            assert not async_client.is_closed()


# Failures


BROKEN = {
    "no JSON": (200, {}, b"{"),
    "no object": (200, {"content-type": "text/html"}, b"<p>Welcome</p>"),
    "nothing": lambda texts: {**answer(texts), "data": []},
    "one too many": lambda texts: answer([*texts, "more"]),
    "a place that was not asked for": lambda texts: {**answer(texts), "data": answer([*texts, "more"])["data"][1:]},
    "half a number": lambda texts: {**answer(texts), "data": [{"index": 0, "embedding": "AAA="}] * len(texts)},
    "not finite": lambda texts: {**answer(texts), "data": [{"index": 0, "embedding": [float("nan")] * 4}]},
    "no direction": lambda texts: {**answer(texts), "data": [{"index": 0, "embedding": [0.0] * 4}]},
    "a refusal of the key": failure(401),
    "an error of ours": failure(400),
    "an error of theirs": failure(503),
    "too many": refusal(),
    "a closed line": CLOSE,
}


@pytest.mark.parametrize("limited", [False, True], ids=["alone", "limited"])
@pytest.mark.parametrize("reply", BROKEN.values(), ids=BROKEN)
async def test_every_failure_is_an_embedding_error_that_quotes_nothing(opened, reply, limited):
    quota = limiter() if limited else None
    with Scripted(forever=reply) as api:
        embedder = opened(api.url, max_retries=0, limiter=quota)
        with pytest.raises(EmbeddingError, match="openai:m") as failed:
            await embedder.embed([SECRET])
    assert "secret" not in str(failed.value)
    assert quota is None or quota.stats().open == 0


async def test_a_server_that_does_not_answer_in_time_is_an_embedding_error(opened):
    with Scripted(forever=HANG) as api:
        with pytest.raises(EmbeddingError, match="APITimeoutError") as failed:
            await opened(api.url, timeout=0.05, max_retries=0).embed([SECRET])
        api.released.set()
    assert isinstance(failed.value.__cause__, openai.APITimeoutError)


async def test_nobody_there_is_an_embedding_error(opened):
    with Scripted() as api:
        gone = api.url
    with pytest.raises(EmbeddingError, match="APIConnectionError"):
        await opened(gone, max_retries=0).embed([SECRET])


async def test_a_model_that_changes_its_size_is_an_embedding_error(opened):
    with Scripted() as api:
        with pytest.raises(EmbeddingError, match="4 dimensions instead of 8"):
            await opened(api.url, dimensions=8).embed(["a"])
        assert api.requests[0]["dimensions"] == 8


async def test_a_text_that_is_no_unicode_is_an_embedding_error(opened):
    with Scripted() as api, pytest.raises(EmbeddingError) as failed:
        await opened(api.url).embed(["lone \ud800 surrogate"])
    assert "surrogate" not in str(failed.value)


async def test_without_a_key_it_says_what_to_give(opened, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(EmbeddingError, match="OPENAI_API_KEY"):
        await opened("http://127.0.0.1:1/v1", api_key=None).embed(["a"])


def test_without_the_sdk_it_says_what_to_install():
    code = """
import importlib.util as util
from dispatch_core import MissingExtra, OpenAIEmbedder
find = util.find_spec
util.find_spec = lambda name, *rest: None if name == "openai" else find(name, *rest)
try:
    OpenAIEmbedder(api_key="any").embed(["a"])
except MissingExtra as missing:
    print(missing)
"""
    assert "pip install 'ai-dispatcher[openai]'" in in_another_process(code)


@pytest.mark.parametrize(
    "settings",
    [
        {"dimensions": 0},
        {"dimensions": 1537},
        {"model": "text-embedding-ada-002", "dimensions": 256},
        {"max_batch": 0},
        {"max_batch": 2049},
        {"max_tokens": 0},
        {"timeout": 0},
        {"timeout": float("inf")},
        {"max_retries": -1},
        {"limiter": object()},
        {"client": object(), "api_key": "both"},
        {"async_client": object()},
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(settings):
    with pytest.raises(ConfigError):
        OpenAIEmbedder(**settings)


# Quotas


async def test_without_a_limiter_the_sdk_comes_back_when_it_is_told_to(opened):
    with Scripted(refusal(), refusal()) as api:
        assert len(await opened(api.url).embed(["a"])) == 1
        assert len(api.requests) == 3


async def test_a_limiter_hears_of_every_refusal_and_of_what_was_used(opened):
    quota = limiter(tpm=100_000)
    with Scripted(refusal(), refusal(), refusal()) as api:
        assert len(await opened(api.url, limiter=quota, max_retries=3).embed(["a"])) == 1
        assert len(api.requests) == 4
    stats = quota.stats()
    assert (stats.throttled, stats.open, stats.tokens_used) == (3, 0, 7)


async def test_with_a_limiter_what_may_pass_is_tried_again_and_what_may_not_is_not(opened, monkeypatch):
    monkeypatch.setattr("dispatch_core.embed.openai._FIRST_PAUSE", 0.0)
    with Scripted(failure(500), CLOSE) as api:
        assert len(await opened(api.url, limiter=limiter()).embed(["a"])) == 1
        assert len(api.requests) == 3
    with Scripted(failure(400)) as api:
        with pytest.raises(EmbeddingError):
            await opened(api.url, limiter=limiter()).embed(["a"])
        assert len(api.requests) == 1


async def test_a_storm_of_refusals_ends(opened):
    quota = limiter()
    with Scripted(forever=refusal()) as api:
        with pytest.raises(EmbeddingError, match="RateLimitError, HTTP 429") as failed:
            await opened(api.url, limiter=quota, max_retries=4).embed(["a"])
        assert len(api.requests) == 5
    assert isinstance(failed.value.__cause__, openai.RateLimitError)
    assert (quota.stats().throttled, quota.stats().open) == (5, 0)


async def test_who_gets_no_turn_in_time_asks_nobody(opened):
    quota = limiter(rpm=1, max_wait=0)
    with Scripted() as api:
        embedder = opened(api.url, limiter=quota)
        await embedder.embed(["a"])
        with pytest.raises(EmbeddingError) as failed:
            await embedder.embed(["a"])
        assert len(api.requests) == 1
    assert isinstance(failed.value.__cause__, LimitExceeded)


async def test_a_batch_that_no_quota_holds_is_sent_in_parts(opened):
    with Scripted() as api:
        texts = ["x" * 200] * 8
        assert len(await opened(api.url, limiter=limiter(tpm=120)).embed(texts)) == 8
        # And in fewer, once the answers told that these texts have fewer tokens than it seemed.
        assert [len(asked["input"]) for asked in api.requests] == [2, 2, 4]


async def test_with_a_limiter_all_get_their_answer_from_a_provider_with_a_quota():
    quota = TokenLimiter(rpm=1_200, window=0.5)
    with Simulator(SimulatorConfig(rpm=1_200, window=0.5, latency=0.0)) as provider:
        embedder = OpenAIEmbedder(base_url=provider.url, api_key="any", limiter=quota, timeout=60.0)
        await asyncio.gather(*(embedder.aembed([f"question {number}"]) for number in range(25)))
        await embedder.aclose()
        assert provider.stats().admitted == 25
        assert (quota.stats().throttled, quota.stats().open) == (provider.stats().rejected_429, 0)


async def test_who_is_cancelled_leaves_nothing_open():
    quota = limiter()
    with Scripted(forever=HANG) as api:
        embedder = OpenAIEmbedder("m", base_url=api.url, api_key="any", limiter=quota, timeout=60.0)
        asking = asyncio.create_task(embedder.aembed(["a"]))
        await asyncio.to_thread(api.reached.wait, 30)
        assert quota.stats().open == 1
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert quota.stats().open == 0
        await embedder.aclose()


# Clients belong to loops


def test_a_client_is_closed_with_its_loop_or_with_its_embedder():
    with Scripted() as api:
        embedder = OpenAIEmbedder("m", base_url=api.url, api_key="any")

        async def ask() -> openai.AsyncOpenAI:
            await embedder.aembed(["a"])
            [(client, _)] = embedder._clients._keepers.values()
            assert not client.is_closed()
            return client

        clients = [asyncio.run(ask()) for _ in range(2)]
        assert [client.is_closed() for client in clients] == [True, True]

        async def forget() -> openai.AsyncOpenAI:
            other = OpenAIEmbedder("m", base_url=api.url, api_key="any")
            await other.aembed(["a"])
            client = next(client for client, _ in other._clients._keepers.values())
            del other
            gc.collect()
            while not client.is_closed():
                await asyncio.sleep(0)
            return client

        asyncio.run(forget())
        embedder.close()


def test_a_forked_child_uses_connections_of_its_own():
    with Scripted() as api:
        embedder = OpenAIEmbedder("m", base_url=api.url, api_key="any")
        embedder.embed(["a"])
        parents = embedder._clients._client
        embedder._clients.start_anew()
        assert embedder.embed(["a"]).shape == (1, scripted.DIMS)
        assert embedder._clients._client is not parents
        assert parents is not None
        assert not parents.is_closed()
        parents.close()
        embedder.close()


# Counting


def test_tokens_are_counted_where_the_vocabulary_is_at_hand_and_estimated_elsewhere(monkeypatch):
    count = counter_at_hand("text-embedding-3-small")
    assert count is not None
    assert OpenAIEmbedder().fit("Hello there, world!").tokens == count("Hello there, world!") == 5
    assert counter_at_hand("nobody-knows-this") is None
    assert OpenAIEmbedder("nobody-knows-this").fit("Hello there, world!").tokens == 7


def test_a_vocabulary_is_never_downloaded_to_count(tmp_path):
    code = """
import socket
def refuse(*args): raise AssertionError("the network was asked")
socket.getaddrinfo = refuse
from dispatch_core import OpenAIEmbedder
print(OpenAIEmbedder().fit("Hello there, world!").tokens)
"""
    assert in_another_process(f"import os; os.environ['TIKTOKEN_CACHE_DIR'] = {str(tmp_path)!r}\n{code}") == "7"
    assert in_another_process(f"import os; os.environ['TIKTOKEN_CACHE_DIR'] = ''\n{code}") == "7"
    assert in_another_process(code) == "5"


def test_the_estimate_is_settled_by_the_real_usage():
    quota = limiter(tpm=100_000)
    with Scripted() as api:
        embedder = OpenAIEmbedder("m", base_url=api.url, api_key="any", limiter=quota)
        embedder.embed(["x" * 400])
        embedder.close()
    assert quota.stats().tokens_used == Usage(7).total
