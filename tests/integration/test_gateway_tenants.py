"""Virtual keys, limits of tenants and deployments, pools."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
from gateways import Client, Gateway, deployment, eventually, to
from upstreams import Upstream, answers, held, refuses, says

from dispatch_gateway.config import hash_of
from dispatch_gateway.service import _forget_old

ANN, BOB, EVE = (f"key-of-{name}-0123456789" for name in ("ann", "bob", "eve"))


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


def asking(what: str = "a cat", **options: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": f"How do I greet {what}?"}], **options}


def key(name: str, secret: str, **settings: Any) -> dict[str, Any]:
    return {"name": name, "hash": hash_of(secret), "namespace": name, **settings}


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


async def test_nobody_gets_in_without_a_key_that_is_known(upstream: Upstream, session: Any) -> None:
    with Gateway({"models": to(upstream.url), "keys": [key("ann", ANN)]}) as gateway:
        client = Client(session, gateway.url)
        for headers in ({}, bearer("wrong"), bearer(""), {"authorization": ANN}):
            status, _, body = await client.ask(asking(), **headers)
            assert (status, body["error"]["code"][-7:]) == (401, "api_key")
        assert (await client.ask(asking(), **bearer(ANN)))[0] == 200
        assert (await client.ask(asking(), x_api_key=ANN))[0] == 200
        assert len(upstream.seen) == 1
        async with session.get(f"{gateway.url}/models") as response:
            assert response.status == 401
        async with session.delete(f"{gateway.url}/cache") as response:
            assert response.status == 401


async def test_tenants_never_see_each_others_answers_nor_forget_them(upstream: Upstream, session: Any) -> None:
    with Gateway({"models": to(upstream.url), "keys": [key("ann", ANN), key("bob", BOB)]}) as gateway:
        client = Client(session, gateway.url)
        _, headers, _ = await client.ask(asking(), **bearer(ANN))
        _, of_bob, _ = await client.ask(asking(), **bearer(BOB))
        assert of_bob["cache-status"] == "dispatch; fwd=miss; stored"
        _, narrowed, _ = await client.ask(asking(cache={"namespace": "ann"}), **bearer(BOB))
        assert narrowed["cache-status"] == "dispatch; fwd=miss; stored"
        for query in ({"id": headers["x-dispatch-cache-id"]}, {"namespace": "ann"}, {}):
            async with session.delete(f"{gateway.url}/cache", params=query, headers=bearer(BOB)) as response:
                assert response.status == 200
        _, again, _ = await client.ask(asking(), **bearer(ANN))
        assert again["cache-status"] == 'dispatch; hit; detail="exact"'


async def test_without_a_key_of_its_own_an_upstream_answers_to_the_callers(upstream: Upstream, session: Any) -> None:
    with Gateway({"models": {"*": [{"base_url": upstream.url}]}}) as gateway:
        client = Client(session, gateway.url)
        for secret in ("one", "two", "one"):
            await client.ask(asking(), **bearer(secret))
    assert [seen.headers["authorization"] for seen in upstream.seen] == ["Bearer one", "Bearer two"]


async def test_a_tenant_uses_the_models_that_he_may(upstream: Upstream, session: Any) -> None:
    settings = {
        "models": {"m": [deployment(upstream.url, model="theirs")], "n": [deployment(upstream.url)]},
        "keys": [key("ann", ANN, models=["m"])],
    }
    with Gateway(settings) as gateway:
        client = Client(session, gateway.url)
        assert (await client.ask(asking(), **bearer(ANN)))[0] == 200
        assert upstream.seen[0].body["model"] == "theirs"
        for model in ("n", "unheard-of"):
            status, _, body = await client.ask({**asking(), "model": model}, **bearer(ANN))
            assert (status, body["error"]["code"]) == (404, "model_not_found")
        async with session.get(f"{gateway.url}/models", headers=bearer(ANN)) as response:
            assert [model["id"] for model in (await response.json())["data"]] == ["m"]


async def test_beyond_a_tenants_limit_comes_a_429_that_says_when_to_come_back(
    upstream: Upstream, session: Any
) -> None:
    settings = {
        "models": to(upstream.url),
        "keys": [key("ann", ANN, limits={"rpm": 2, "burst": 60}), key("bob", BOB)],
        "timeouts": {"queue": 0.01},
    }
    with Gateway(settings) as gateway:
        client = Client(session, gateway.url)
        for number in range(2):
            assert (await client.ask(asking(f"cat {number}"), **bearer(ANN)))[0] == 200
        status, headers, body = await client.ask(asking("a dog"), **bearer(ANN))
        assert (status, body["error"]["type"], body["error"]["code"]) == (
            429,
            "rate_limit_error",
            "rate_limit_exceeded",
        )
        assert 0 < int(headers["retry-after"]) <= 61
        assert 0 < int(headers["retry-after-ms"]) <= 61_000
        assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("2", "0")
        assert headers["x-ratelimit-reset-requests"].endswith("s")
        assert (await client.ask(asking("cat 0"), **bearer(ANN)))[0] == 200, "what is kept costs nothing"
        assert (await client.ask(asking("a dog"), **bearer(BOB)))[0] == 200, "his limit is his alone"
        assert len(upstream.seen) == 3


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"concurrency": 1}, {"limit-requests": "1", "remaining-requests": "0"}),
        ({"concurrency": 1, "rpm": 60, "burst": 60}, {"limit-requests": "60", "remaining-requests": "59"}),
        (
            {"concurrency": 1, "itpm": 6000},
            {"limit-requests": "1", "remaining-requests": "0", "limit-tokens": "6000"},
        ),
    ],
)
async def test_every_429_says_what_is_left_of_the_limits(
    upstream: Upstream, session: Any, limits: dict[str, Any], told: dict[str, str]
) -> None:
    may_answer = threading.Event()
    upstream.usual = held(may_answer, says("yes"))
    with Gateway({"models": to(upstream.url, limits=limits), "timeouts": {"queue": 0.01}}) as gateway:
        client = Client(session, gateway.url)
        first = asyncio.create_task(client.ask(asking()))
        await eventually(lambda: len(upstream.seen) == 1)
        status, headers, _ = await client.ask(asking("a dog"))
        may_answer.set()
        await first
    assert status == 429
    assert {name: headers[f"x-ratelimit-{name}"] for name in told} == told
    assert headers["x-ratelimit-reset-requests"].endswith("s")


async def test_a_429_of_an_upstream_without_limits_says_that_nothing_is_left(
    upstream: Upstream, session: Any
) -> None:
    upstream.usual = refuses(429, retry_after="3")
    with Gateway({"models": to(upstream.url)}) as gateway:
        status, headers, _ = await Client(session, gateway.url).ask(asking())
    assert (status, headers["retry-after"], headers["retry-after-ms"]) == (429, "3", "3000")
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert headers["x-ratelimit-reset-requests"] == "3.000s"


async def test_a_refusal_at_the_deployment_leaves_the_tenant_uncharged(upstream: Upstream, session: Any) -> None:
    settings = {
        "models": to(upstream.url, limits={"concurrency": 1}),
        "keys": [key("ann", ANN, limits={"rpm": 100, "burst": 60})],
        "timeouts": {"queue": 0.01},
    }
    may_answer = threading.Event()
    upstream.usual = held(may_answer, says("yes"))
    with Gateway(settings) as gateway:
        client = Client(session, gateway.url)
        first = asyncio.create_task(client.ask(asking(), **bearer(ANN)))
        await eventually(lambda: len(upstream.seen) == 1)
        for number in range(5):
            assert (await client.ask(asking(f"dog {number}"), **bearer(ANN)))[0] == 429
        may_answer.set()
        assert (await first)[0] == 200
        used = {owner: ratio for owner, limit, ratio in gateway.service.utilization() if owner == "key:ann"}
        assert used == {"key:ann": pytest.approx(0.01)}


async def test_a_request_that_can_never_fit_is_not_worth_a_retry(upstream: Upstream, session: Any) -> None:
    with Gateway({"models": to(upstream.url, limits={"tpm": 100})}) as gateway:
        status, headers, body = await Client(session, gateway.url).ask(asking(max_tokens=500))
    assert (status, body["error"]["code"], headers["x-should-retry"]) == (413, "request_too_large", "false")
    assert not upstream.seen


async def test_a_budget_is_money_and_ends(upstream: Upstream, session: Any) -> None:
    settings = {
        # 12 tokens of an answer are 12 millionths of the currency at these prices.
        "models": to(upstream.url, prices={"input": 1.0, "output": 1.0}),
        "keys": [key("ann", ANN, budget_per_day=0.001)],
    }
    with Gateway(settings) as gateway:
        client = Client(session, gateway.url)
        statuses = [(await client.ask(asking(f"cat {n}", max_tokens=400), **bearer(ANN))) for n in range(60)]
    codes = [status for status, _, _ in statuses]
    assert codes == sorted(codes)
    assert set(codes) == {200, 429}
    _, headers, body = statuses[-1]
    assert (body["error"]["code"], headers["x-should-retry"]) == ("insufficient_quota", "false")
    assert all(name in headers for name in ("retry-after", "retry-after-ms", "x-ratelimit-remaining-requests"))
    # 400 must fit beside what is spent: 600 / 12 calls.
    assert 45 <= len(upstream.seen) <= 52


async def test_one_tenant_cannot_starve_another(upstream: Upstream, session: Any) -> None:
    settings = {
        "models": to(upstream.url, limits={"concurrency": 1}),
        "keys": [key("ann", ANN), key("bob", BOB)],
    }
    may_answer = threading.Event()
    upstream.usual = held(may_answer, says("yes"))
    with Gateway(settings) as gateway:
        client = Client(session, gateway.url)
        many = [asyncio.create_task(client.ask(asking(f"cat {n}"), **bearer(ANN))) for n in range(20)]
        await eventually(lambda: gateway.service.waiting() == 19)
        one = asyncio.create_task(client.ask(asking("a dog"), **bearer(BOB)))
        await eventually(lambda: gateway.service.waiting() == 20)
        may_answer.set()
        await one
        await asyncio.gather(*many)
    order = [seen.body["messages"][0]["content"] for seen in upstream.seen]
    assert order.index("How do I greet a dog?") <= 3


async def test_new_limits_hold_at_once_and_the_old_ones_for_a_minute_more(upstream: Upstream, session: Any) -> None:
    def settings(rpm: int) -> dict[str, Any]:
        limits = {"rpm": rpm, "burst": 60}
        return {"models": {"m": [deployment(upstream.url, limits=limits)]}, "timeouts": {"queue": 0.01}}

    with Gateway(settings(3)) as gateway:
        client = Client(session, gateway.url)

        async def asked(what: str) -> list[int]:
            return [(await client.ask(asking(f"{what} {n}")))[0] for n in range(4)]

        async def reload(rpm: int) -> list[str]:
            changed = Gateway({**settings(rpm), "listen": {"port": 1}}).settings
            done: list[list[str]] = []
            gateway.loop.call_soon_threadsafe(lambda: done.append(gateway.service.reload(changed)))
            await eventually(lambda: bool(done))
            return done[0]

        assert await asked("cat") == [200, 200, 200, 429]
        assert await reload(100) == ["listen"]
        assert await asked("dog") == [429] * 4, "the minute is not over"
        _forget_old(gateway.service.pools["m"][0])
        assert await asked("fox") == [200] * 4
        await reload(1)
        assert await asked("owl") == [200, 429, 429, 429]


async def test_the_share_of_a_tenant_follows_his_weight_and_who_has_priority_goes_first(
    upstream: Upstream, session: Any
) -> None:
    keys = [key("ann", ANN, weight=3), key("bob", BOB), key("eve", EVE, priority=-10)]
    settings = {"models": to(upstream.url, limits={"concurrency": 1}), "keys": keys}
    may_answer = threading.Event()
    upstream.usual = held(may_answer, says("yes"))
    with Gateway(settings) as gateway:
        client = Client(session, gateway.url)
        asked = [asyncio.create_task(client.ask(asking("first"), **bearer(ANN)))]
        await eventually(lambda: len(upstream.seen) == 1)
        for number in range(12):
            for who, secret in (("ann", ANN), ("bob", BOB)):
                asked.append(asyncio.create_task(client.ask(asking(f"{who} {number}"), **bearer(secret))))
        await eventually(lambda: gateway.service.waiting() == 24)
        asked.append(asyncio.create_task(client.ask(asking("eve"), **bearer(EVE))))
        await eventually(lambda: gateway.service.waiting() == 25)
        may_answer.set()
        await asyncio.gather(*asked)
    order = [seen.body["messages"][0]["content"].split()[4].strip("?") for seen in upstream.seen]
    assert order[1] == "eve"
    early = order[2:14]
    assert 7 <= early.count("ann") <= 10


# Pools


@pytest.fixture
def two() -> Iterator[tuple[Upstream, Upstream]]:
    with Upstream(says("first")) as first, Upstream(says("second")) as second:
        yield first, second


def pool(two: tuple[Upstream, Upstream], **settings: Any) -> dict[str, Any]:
    return {"m": [deployment(one.url, **settings) for one in two]}


async def test_calls_go_where_there_is_room(two: tuple[Upstream, Upstream], session: Any) -> None:
    settings = {"models": pool(two, limits={"rpm": 3, "burst": 60}), "timeouts": {"queue": 0.01}}
    with Gateway(settings) as gateway:
        client = Client(session, gateway.url)
        statuses = [(await client.ask(asking(f"cat {n}")))[0] for n in range(7)]
    assert statuses == [200] * 6 + [429]
    assert [len(one.seen) for one in two] == [3, 3]


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_call_that_one_deployment_refuses_goes_to_the_other(
    two: tuple[Upstream, Upstream], session: Any, status: int
) -> None:
    two[0].usual = refuses(status, retry_after="30")
    with Gateway({"models": pool(two, limits={"rpm": 100})}) as gateway:
        client = Client(session, gateway.url)
        for number in range(4):
            told, _, body = await client.ask(asking(f"cat {number}"))
            assert (told, body["choices"][0]["message"]["content"]) == (200, "second")
    assert len(two[0].seen) == 1, "who refused is asked last for a while"


async def test_when_all_refuse_the_last_error_is_the_answer(two: tuple[Upstream, Upstream], session: Any) -> None:
    for one in two:
        one.usual = refuses(500)
    with Gateway({"models": pool(two)}) as gateway:
        status, _, body = await Client(session, gateway.url).ask(asking())
    assert (status, body["error"]["message"]) == (500, "no")
    assert [len(one.seen) for one in two] == [1, 1]


async def test_a_refused_call_waits_for_its_next_turn(upstream: Upstream, session: Any) -> None:
    upstream.next(refuses(429, retry_after_ms="20"), refuses(429, retry_after_ms="20"))
    with Gateway({"models": to(upstream.url, limits={"rpm": 6000})}) as gateway:
        assert (await Client(session, gateway.url).ask(asking()))[0] == 200
    assert len(upstream.seen) == 3


async def test_a_refusal_that_stays_one_is_passed_on_with_its_time(upstream: Upstream, session: Any) -> None:
    upstream.usual = refuses(429, retry_after="30")
    settings = {"models": to(upstream.url, limits={"rpm": 6000}), "timeouts": {"queue": 0.01}}
    with Gateway(settings) as gateway:
        status, headers, _ = await Client(session, gateway.url).ask(asking())
        assert gateway.service.meters.refusals == 1
    assert (status, headers["retry-after"], headers["retry-after-ms"]) == (429, "30", "30000")
    assert headers["x-ratelimit-limit-requests"] == "6000"


async def test_a_spent_budget_of_the_upstream_is_not_tried_again(upstream: Upstream, session: Any) -> None:
    error = {"message": "You exceeded your current quota", "type": "insufficient_quota", "code": "insufficient_quota"}
    upstream.usual = answers({"error": error}, 429)
    with Gateway({"models": to(upstream.url, limits={"rpm": 6000})}) as gateway:
        status, _, body = await Client(session, gateway.url).ask(asking())
    assert (status, body["error"]["code"], len(upstream.seen)) == (429, "insufficient_quota", 1)
