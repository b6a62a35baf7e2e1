"""What the gateway keeps and when it answers from it: streams, errors, requests for control, callers who leave."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
from gateways import Client, Gateway, deployment, eventually, to
from upstreams import Upstream, answers, chunks, held, refuses, says, sse, stalls, streams

MESSAGES = [{"role": "user", "content": "How do I greet a cat?"}]
ASKING = {"model": "m", "messages": MESSAGES}
STREAMING = {**ASKING, "stream": True}


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture
def gateway(upstream: Upstream) -> Iterator[Gateway]:
    with Gateway({"models": to(upstream.url)}) as running:
        yield running


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as session:
        yield Client(session, gateway.url)


# Signals


async def test_a_miss_a_hit_and_what_their_headers_say(client: Client, upstream: Upstream) -> None:
    _, miss, first = await client.ask(ASKING)
    _, hit, second = await client.ask(ASKING)
    assert miss["cache-status"] == "dispatch; fwd=miss; stored"
    assert hit["cache-status"] == 'dispatch; hit; detail="exact"'
    assert (hit["age"], hit["x-dispatch-tokens-saved"], hit["x-dispatch-similarity"]) == ("0", "12", "1.0000")
    assert miss["x-dispatch-cache-id"] == hit["x-dispatch-cache-id"]
    assert miss["cache-control"] == hit["cache-control"] == "private, no-store"
    assert miss["openai-version"] == "v"
    assert "x-ratelimit-remaining-tokens" not in miss, "the upstream's quota is not the caller's"
    assert (first["usage"]["total_tokens"], second["usage"]["total_tokens"]) == (12, 0)
    assert first["choices"] == second["choices"]
    assert len(upstream.seen) == 1


async def test_the_upstream_gets_the_body_as_it_came_and_its_own_key(client: Client, upstream: Upstream) -> None:
    await client.ask({**ASKING, "future_option": {"a": [1]}}, authorization="Bearer mine", openai_beta="b=1")
    seen = upstream.seen[0]
    assert seen.body == {**ASKING, "future_option": {"a": [1]}}
    assert seen.headers["authorization"] == "Bearer upstream-key"
    assert seen.headers["openai-beta"] == "b=1"


async def test_a_stream_whose_usage_nobody_asked_for_has_none_and_is_settled_by_it(
    client: Client, upstream: Upstream, gateway: Gateway
) -> None:
    _, _, text = await client.ask(STREAMING)
    assert upstream.seen[0].body["stream_options"] == {"include_usage": True}
    assert '"usage"' not in text
    assert text.endswith("data: [DONE]\n\n")
    assert gateway.service.meters.amounts["provider"] == 12


async def test_one_who_asks_for_the_usage_gets_it(client: Client) -> None:
    _, _, text = await client.ask({**STREAMING, "stream_options": {"include_usage": True}})
    assert '"total_tokens": 12' in text


async def test_what_depends_on_the_moment_goes_past_the_cache(client: Client, upstream: Upstream) -> None:
    body = {**ASKING, "messages": [{"role": "user", "content": "What time is it?"}]}
    for _ in range(2):
        _, headers, _ = await client.ask(body)
        assert headers["cache-status"] == 'dispatch; fwd=bypass; detail="volatile"'
    picture = [{"type": "image_url", "image_url": {"url": "http://x/y"}}]
    body = {**ASKING, "messages": [{"role": "user", "content": picture}]}
    for _ in range(2):
        _, headers, _ = await client.ask(body)
        assert headers["cache-status"] == 'dispatch; fwd=bypass; detail="url"'
    assert len(upstream.seen) == 4


# What is kept


@pytest.mark.parametrize("ending", ["length", "content_filter"])
@pytest.mark.parametrize("asking", [ASKING, STREAMING])
async def test_an_answer_that_is_cut_off_or_withheld_is_not_kept(
    client: Client, upstream: Upstream, ending: str, asking: Any
) -> None:
    cut = [event.replace(b'"stop"', f'"{ending}"'.encode()) for event in chunks("yes")]
    upstream.next(streams(*cut) if "stream" in asking else says("yes", finish_reason=ending))
    await client.ask(asking)
    await client.ask(asking)
    assert len(upstream.seen) == 2


async def test_a_stream_that_breaks_off_says_so_and_is_not_kept(client: Client, upstream: Upstream) -> None:
    upstream.next(streams(*chunks("yes")[:2], ends=False), streams(*chunks("yes", done=False)))
    for _ in range(2):
        status, _, text = await client.ask(STREAMING)
        assert status == 200
        *_, last, end = text.split("\n\n")
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "upstream_error"
        assert (end, "[DONE]" in text) == ("", False)
    await client.ask(STREAMING)
    assert len(upstream.seen) == 3


async def test_an_error_inside_a_stream_is_passed_on_and_not_kept(client: Client, upstream: Upstream) -> None:
    first, *_ = chunks("yes")
    upstream.next(streams(first, sse({"error": {"message": "sorry"}}), b"data: [DONE]\n\n"))
    _, _, text = await client.ask(STREAMING)
    assert '"sorry"' in text
    await client.ask(STREAMING)
    assert len(upstream.seen) == 2


@pytest.mark.parametrize("status", [400, 401, 404, 500, 503])
async def test_an_upstreams_error_keeps_its_status_and_words_and_is_not_kept(
    client: Client, upstream: Upstream, status: int
) -> None:
    upstream.next(refuses(status), refuses(status))
    for _ in range(2):
        told, _, body = await client.ask(ASKING)
        assert (told, body["error"]["message"]) == (status, "no")
    assert (await client.ask(ASKING))[0] == 200


async def test_what_is_no_json_becomes_an_error_in_openais_form(client: Client, upstream: Upstream) -> None:
    upstream.next(answers(b"<html>bad gateway</html>", 502))
    status, headers, body = await client.ask(ASKING)
    assert (status, headers["content-type"], body["error"]["code"]) == (502, "application/json", "upstream_error")


async def test_an_upstream_that_is_not_there_is_a_502(upstream: Upstream) -> None:
    async with aiohttp.ClientSession() as session:
        with Gateway({"models": to("http://127.0.0.1:9/v1")}) as gateway:
            status, _, body = await Client(session, gateway.url).ask(ASKING)
    assert (status, body["error"]["code"]) == (502, "upstream_unreachable")


async def test_log_probabilities_and_reasoning_survive_a_stream(client: Client, upstream: Upstream) -> None:
    choices: list[Any] = [
        {"delta": {"role": "assistant", "reasoning_content": "Hm"}},
        {"delta": {"reasoning_content": "m."}},
        {"delta": {"content": "a"}, "logprobs": {"content": [{"token": "a"}]}},
        {"delta": {"content": "b"}, "logprobs": {"content": [{"token": "b"}]}},
        {"delta": {}, "finish_reason": "stop"},
    ]
    upstream.next(streams(*(sse({"choices": [{"index": 0, **one}]}) for one in choices), b"data: [DONE]\n\n"))
    await client.ask(STREAMING)
    _, _, body = await client.ask(ASKING)
    choice = body["choices"][0]
    assert (choice["message"]["reasoning_content"], choice["message"]["content"]) == ("Hmm.", "ab")
    assert choice["logprobs"] == {"content": [{"token": "a"}, {"token": "b"}]}
    assert len(upstream.seen) == 1


async def test_an_old_answer_is_better_than_an_upstreams_error(upstream: Upstream) -> None:
    settings = {"models": to(upstream.url), "cache": {"ttl": 0.05, "stale": 3600}}
    upstream.next(says("old"))
    upstream.usual = refuses(500)
    with Gateway(settings) as gateway:
        async with aiohttp.ClientSession() as session:
            client = Client(session, gateway.url)
            while len(upstream.seen) < 3:
                status, headers, body = await client.ask(ASKING)
                assert (status, body["choices"][0]["message"]["content"]) == (200, "old")
                assert len(upstream.seen) == 1 or "hit" in headers["cache-status"]


async def test_the_ttl_of_a_hit_is_how_long_it_is_fresh_not_how_long_it_may_be_served(upstream: Upstream) -> None:
    with Gateway({"models": to(upstream.url), "cache": {"ttl": 100, "stale": 3600}}) as gateway:
        async with aiohttp.ClientSession() as session:
            client = Client(session, gateway.url)
            await client.ask(ASKING)
            _, headers, _ = await client.ask(ASKING)
    assert 0 < int(headers["cache-status"].partition("ttl=")[2].partition(";")[0]) <= 100


# Control


async def test_no_cache_asks_anew_and_the_new_answer_takes_the_place_of_the_old(
    client: Client, upstream: Upstream
) -> None:
    upstream.next(says("old"), says("new"))
    await client.ask(ASKING)
    _, headers, _ = await client.ask(ASKING, cache_control="no-cache")
    assert headers["cache-status"] == "dispatch; fwd=request; stored"
    _, _, body = await client.ask(ASKING)
    assert body["choices"][0]["message"]["content"] == "new"
    assert len(upstream.seen) == 2


@pytest.mark.parametrize("how", [{"cache_control": "no-store"}, {}])
async def test_no_store_keeps_nothing(client: Client, upstream: Upstream, how: dict[str, str]) -> None:
    body = ASKING if how else {**ASKING, "cache": {"no-store": True}}
    for _ in range(2):
        _, headers, _ = await client.ask(body, **how)
        assert headers["cache-status"] == "dispatch; fwd=miss"
    assert len(upstream.seen) == 2
    assert all("cache" not in seen.body for seen in upstream.seen)


async def test_only_if_cached_never_goes_upstream(client: Client, upstream: Upstream) -> None:
    status, headers, body = await client.ask(ASKING, cache_control="only-if-cached")
    assert (status, headers["x-should-retry"], body["error"]["code"]) == (504, "false", "not_cached")
    assert not upstream.seen
    await client.ask(ASKING)
    assert (await client.ask(ASKING, cache_control="only-if-cached"))[0] == 200
    assert (await client.ask(ASKING, cache_control="only-if-cached, max-age=0"))[0] == 504


async def test_max_age_asks_anew_what_is_older(client: Client, upstream: Upstream) -> None:
    await client.ask(ASKING)
    _, fresh, _ = await client.ask(ASKING, cache_control="max-age=3600")
    _, old, _ = await client.ask(ASKING, cache_control="max-age=0")
    assert fresh["cache-status"] == 'dispatch; hit; detail="exact"'
    assert old["cache-status"] == "dispatch; fwd=stale; stored"
    assert len(upstream.seen) == 2


async def test_a_life_may_be_given_with_the_request(client: Client, upstream: Upstream) -> None:
    await client.ask({**ASKING, "cache": {"ttl": 3600}})
    _, headers, _ = await client.ask(ASKING)
    left = int(headers["cache-status"].partition("ttl=")[2].partition(";")[0])
    assert 3000 < left <= 3600
    assert len(upstream.seen) == 1


@pytest.mark.parametrize("name", ["ttl", "s-maxage"])
async def test_a_time_without_end_is_told_as_a_number_that_a_header_may_hold(client: Client, name: str) -> None:
    for _ in range(2):
        status, headers, _ = await client.ask({**ASKING, "cache": {name: 10**400}})
        assert status == 200
    left = headers["cache-status"].partition("ttl=")[2].partition(";")[0]
    assert "hit" in headers["cache-status"]
    assert len(left) <= 15, "RFC 8941"


@pytest.mark.parametrize("ttl", [5e-324, 1e-9, 0])
async def test_a_life_of_no_time_is_none(client: Client, ttl: float) -> None:
    for _ in range(2):
        status, headers, _ = await client.ask({**ASKING, "cache": {"ttl": ttl}})
        assert (status, headers["cache-status"]) == (200, "dispatch; fwd=miss")


async def test_a_threshold_may_be_raised_and_not_lowered(client: Client, upstream: Upstream) -> None:
    await client.ask(ASKING)
    other = {**ASKING, "messages": [{"role": "user", "content": "how do I greet a cat"}]}
    far = {**ASKING, "messages": [{"role": "user", "content": "How do I wash a car?"}]}
    assert (await client.ask(other, x_dispatch_threshold="1"))[1]["cache-status"] == "dispatch; fwd=miss; stored"
    assert "hit" in (await client.ask(other, x_dispatch_threshold="0.99"))[1]["cache-status"]
    assert "fwd=miss" in (await client.ask(far, x_dispatch_threshold="-1"))[1]["cache-status"]


async def test_below_a_threshold_that_was_raised_nothing_is_served_however_many_agree(client: Client) -> None:
    def asking(how: str) -> dict[str, Any]:
        question = f"How do I reset the password of my account on the website of the shop {how}?"
        return {"model": "m", "messages": [{"role": "user", "content": question}]}

    for how in ("please", "quickly", "easily", "myself", "properly"):
        await client.ask(asking(how), cache_control="no-cache")
    served = {}
    for threshold in ("0.92", "0.94", "0.98"):
        headers = {"cache_control": "only-if-cached", "x_dispatch_threshold": threshold}
        status, told, _ = await client.ask(asking("safely"), **headers)
        served[threshold] = status == 200
        assert status == 504 or float(told["x-dispatch-similarity"]) >= float(threshold)
    assert served == {"0.92": True, "0.94": True, "0.98": False}


async def test_a_namespace_is_narrowed(client: Client, upstream: Upstream) -> None:
    for namespace in ("a", "b", "a", "b"):
        await client.ask({**ASKING, "cache": {"namespace": namespace}})
    await client.ask(ASKING, x_dispatch_namespace="b")
    assert len(upstream.seen) == 2
    await client.ask(ASKING)
    assert len(upstream.seen) == 3


@pytest.mark.parametrize(
    ("told", "param"),
    [
        ("yes", "cache"),
        ({"ttl": "soon"}, "cache.ttl"),
        ({"ttl": -1}, "cache.ttl"),
        ({"no-cache": 1}, "cache.no-cache"),
        ({"namespace": 7}, "cache.namespace"),
        ({"threshold": 2}, "cache.threshold"),
        ({"threshold": 10**400}, "cache.threshold"),
        ({"tags": ["a", 1]}, "cache.tags"),
    ],
)
async def test_control_that_makes_no_sense_is_refused(client: Client, told: Any, param: str) -> None:
    status, _, body = await client.ask({**ASKING, "cache": told})
    assert (status, body["error"]["param"]) == (400, param)


async def test_entries_are_forgotten_by_id_tag_namespace_or_all(client: Client, upstream: Upstream) -> None:
    def about(what: str) -> dict[str, Any]:
        return {**ASKING, "messages": [{"role": "user", "content": f"How do I paint {what}?"}]}

    _, headers, _ = await client.ask(about("a cat"))
    await client.ask(about("a house"), x_dispatch_tags="houses, prices")
    await client.ask({**about("a boat"), "cache": {"namespace": "boats"}})
    await client.ask(about("a fence"))
    assert await client.forget(id=headers["x-dispatch-cache-id"]) == {"deleted": 1}
    assert await client.forget(id=headers["x-dispatch-cache-id"]) == {"deleted": 0}
    assert await client.forget(tag="prices") == {"deleted": 1}
    assert await client.forget(namespace="boats") == {"deleted": 1}
    assert await client.forget() == {"deleted": 1}
    assert (await client.forget(id="a", tag="b"))["error"]["type"] == "invalid_request_error"


# At the same moment


@pytest.mark.parametrize("asking", [ASKING, STREAMING])
async def test_of_many_who_ask_at_once_one_goes_upstream(
    client: Client, upstream: Upstream, gateway: Gateway, asking: Any
) -> None:
    may_answer = threading.Event()
    upstream.usual = held(may_answer, says("yes"))
    asked = [asyncio.create_task(client.ask(asking)) for _ in range(20)]
    await eventually(lambda: gateway.service.under_way == 20)
    may_answer.set()
    statuses = [headers["cache-status"] for _, headers, _ in await asyncio.gather(*asked)]
    assert len(upstream.seen) == 1
    assert sum("fwd=miss" in status and "collapsed" not in status for status in statuses) == 1


async def test_when_the_one_who_goes_leaves_the_next_goes(
    client: Client, upstream: Upstream, gateway: Gateway
) -> None:
    upstream.next(stalls())
    first = asyncio.create_task(client.ask(ASKING))
    await eventually(lambda: len(upstream.seen) == 1)
    second = asyncio.create_task(client.ask(ASKING))
    await eventually(lambda: gateway.service.under_way == 2)
    first.cancel()
    _, _, body = await second
    assert body["choices"][0]["message"]["content"] == "yes"
    assert upstream.seen[0].left.wait(30)


@pytest.mark.parametrize("events", [[], chunks("yes")[:2]])
async def test_a_caller_who_leaves_closes_the_upstream_and_gives_his_place_back(
    upstream: Upstream, events: list[bytes]
) -> None:
    upstream.next(stalls(*events))
    settings = {"models": {"*": [deployment(upstream.url, limits={"concurrency": 1})]}}
    with Gateway(settings) as gateway:
        async with aiohttp.ClientSession() as session:
            client = Client(session, gateway.url)
            asked = asyncio.create_task(client.ask(STREAMING))
            await eventually(lambda: len(upstream.seen) == 1)
            asked.cancel()
            assert await asyncio.to_thread(upstream.seen[0].left.wait, 30)
            status, _, _ = await client.ask(ASKING)
            assert (status, len(upstream.seen)) == (200, 2)
            await eventually(lambda: gateway.service.under_way == 0)
        assert gateway.service.meters.amounts["wasted"] > 0


@pytest.mark.parametrize("events", [[], chunks("yes")[:2]])
async def test_an_upstream_that_stalls_ends_at_the_deadline(upstream: Upstream, events: list[bytes]) -> None:
    upstream.next(stalls(*events))
    with Gateway({"models": to(upstream.url), "timeouts": {"total": 0.2}}) as gateway:
        async with aiohttp.ClientSession() as session:
            status, _, body = await Client(session, gateway.url).ask(STREAMING)
    if events:
        assert (status, "timeout" in body, "[DONE]" in body) == (200, True, False)
    else:
        assert (status, body["error"]["code"]) == (504, "timeout")
    assert upstream.seen[0].left.wait(30)
