"""What somebody who operates the gateway sees: metrics, spans, the status page, ``dispatcher top``."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from gateways import Client, Gateway, eventually, to
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from upstreams import Upstream, answers, chunks, refuses, stalls, streams

from dispatch_core.__main__ import main
from dispatch_core.spans import LATEST, OPT_IN, Spans
from dispatch_gateway.top import Rates, look, rates

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
BROWSERS = ["chromium"] if BROWSER or os.environ.get("CI") == "true" else []
"""A headless Chromium: where it is installed, and always in CI."""


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture
def gateway(upstream: Upstream) -> Iterator[Gateway]:
    with Gateway({"models": to(upstream.url, limits={"rpm": 600, "tpm": 60_000})}) as running:
        yield running


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as session:
        yield Client(session, gateway.url)


def asking(what: str = "a cat", **options: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": f"How do I greet {what}?"}], **options}


async def used(client: Client, upstream: Upstream) -> None:
    """A miss, an exact and a semantic hit, a bypass and a refusal."""
    await client.ask(asking())
    await client.ask(asking())
    await client.ask({**asking(), "messages": [{"role": "user", "content": "how do I greet a cat"}]})
    await client.ask({**asking(), "messages": [{"role": "user", "content": "What time is it?"}]})
    upstream.next(refuses(400))
    await client.ask(asking("a dog"))


async def test_every_metric_of_the_contract_is_there_and_counts(
    client: Client, upstream: Upstream, gateway: Gateway
) -> None:
    await used(client, upstream)
    await eventually(lambda: gateway.service.under_way == 0)
    async with client.session.get(f"{gateway.root}/metrics") as response:
        text = await response.text()
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    outcomes = {"exact_hit": 1, "semantic_hit": 1, "collapsed": 0, "miss": 1, "bypass": 1, "rejected": 1}
    for name, count in outcomes.items():
        assert float(values[f'dispatch_requests_total{{outcome="{name}"}}']) == count, name
    for basis, tokens in {"provider": 24, "saved": 24, "wasted": 0}.items():
        assert float(values[f'dispatch_tokens_total{{basis="{basis}"}}']) == tokens, basis
    assert float(values['dispatch_tokens_total{basis="reserved"}']) > 24
    assert float(values["dispatch_queue_wait_seconds_count"]) == 3
    assert float(values["dispatch_overhead_seconds_count"]) == 5
    assert 0 < float(values['dispatch_limit_utilization_ratio{limit="requests",owner="*/0"}']) < 0.1
    assert float(values["dispatch_store_breaker_state"]) == 0
    assert "# TYPE dispatch_upstream_429_total counter" in text


async def test_however_a_request_ends_it_has_one_outcome_and_no_wait_is_taken_for_the_gateways_own(
    upstream: Upstream,
) -> None:
    settings = {"models": to(upstream.url, limits={"concurrency": 1}), "timeouts": {"total": 0.5, "queue": 0.1}}
    with Gateway(settings) as gateway:
        meters = gateway.service.meters
        async with aiohttp.ClientSession() as session:
            client = Client(session, gateway.url)
            upstream.next(stalls(), stalls(*chunks("yes")[:2]), streams(*chunks("yes")[:2], ends=False))
            slow = asyncio.create_task(client.ask(asking()))
            await eventually(lambda: len(upstream.seen) == 1)
            assert (await client.ask(asking("a dog")))[0] == 429
            assert (await slow)[0] == 504
            assert "timeout" in (await client.ask(asking(stream=True)))[2]
            assert "upstream_error" in (await client.ask(asking(stream=True)))[2]
            assert (await client.ask({"model": "m"}))[0] == 400
            upstream.next(stalls())
            left = asyncio.create_task(client.ask(asking()))
            await eventually(lambda: len(upstream.seen) == 4)
            left.cancel()
            await eventually(lambda: gateway.service.under_way == 0)
        assert {name: count for name, count in meters.counts.items() if count} == {"miss": 3, "rejected": 3}
        assert "dispatch_overhead_seconds_count 0.0" in meters.exposition().decode()


@pytest.mark.parametrize(
    "missing", [{"cache": {"url": "redis://127.0.0.1:9/0?index=near"}}, {"quota": {"redis": "redis://127.0.0.1:9/0"}}]
)
async def test_without_its_redis_it_is_ready_but_degraded(upstream: Upstream, missing: dict[str, Any]) -> None:
    with Gateway({"models": to(upstream.url), **missing}) as gateway:
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{gateway.root}/health/ready") as response:
                assert (response.status, await response.json()) == (200, {"status": "degraded"})
            assert (await Client(session, gateway.url).ask(asking()))[0] == 200


@pytest.mark.parametrize("kind", BROWSERS)
async def test_the_status_page_shows_what_happened(
    client: Client, upstream: Upstream, gateway: Gateway, kind: str
) -> None:
    if BROWSER is None:
        pytest.fail(f"{kind} is not installed")
    await used(client, upstream)
    gateway.service.meters.spent("compressed", 1500)
    words = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", "--dump-dom"]
    done = subprocess.run([*words, f"{gateway.root}/"], check=True, capture_output=True, text=True, timeout=120)
    shown = dict(re.findall(r'id="([\w-]+)">([^<]*)<', done.stdout))
    assert shown["state"] == "serving"
    assert shown["cache"] == "cache by meaning"
    assert (shown["rate"], shown["rate-note"]) == ("66.7 %", "2 of 3 lookups, 1 entries")
    assert (shown["saved"], shown["under"], shown["refusals"]) == ("24", "0", "0")
    assert shown["saved-note"] == "24 spent, 0 wasted, 1,500 left out of prompts"
    assert "of 600" in done.stdout


async def test_the_page_asks_for_nothing_but_its_own_numbers(client: Client, gateway: Gateway) -> None:
    async with client.session.get(gateway.root) as response:
        page, policy = await response.text(), response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert not re.findall(r"https?://|src=|@import|url\(", page)


async def test_top_shows_the_same(
    client: Client, upstream: Upstream, gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    await used(client, upstream)
    assert main(["top", gateway.url, "--once"]) == 0
    shown = capsys.readouterr().out
    assert "66.7%" in shown
    assert "*/0 requests" in shown


def test_top_says_where_no_gateway_answers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "http://127.0.0.1:9", "--once"]) == 2
    assert main(["top", "localhost:8080", "--once"]) == 2
    assert "no gateway answers at http://127.0.0.1:9" in capsys.readouterr().err


def test_top_says_that_something_else_answers(upstream: Upstream, capsys: pytest.CaptureFixture[str]) -> None:
    upstream.next(answers({"state": "ok"}), answers([1]))
    for _ in range(2):
        assert main(["top", upstream.url, "--once"]) == 2
        assert "is no gateway" in capsys.readouterr().err


def test_into_a_pipe_top_writes_one_screen_after_another_until_the_gateway_is_gone(
    upstream: Upstream, capsys: pytest.CaptureFixture[str]
) -> None:
    with Gateway({"models": to(upstream.url)}) as gateway:
        seen = look(gateway.root)
    upstream.next(answers(seen), answers(seen), answers({"error": "gone"}, 503))
    assert main(["top", upstream.url, "--every", "0"]) == 2
    shown = capsys.readouterr()
    assert shown.out.count("requests by outcome") == 2
    assert "no gateway answers" in shown.err


def test_rates_are_per_second_and_none_across_a_new_start() -> None:
    def seen(now: float, requests: int, started: float = 0.0) -> dict[str, Any]:
        tokens = {"saved": 10 * requests, "provider": requests}
        return {"now": now, "started": started, "outcomes": {"miss": requests}, "tokens": tokens}

    assert rates(seen(10, 5), seen(12, 9)) == Rates(2.0, 20.0, 2.0)
    assert rates(seen(10, 5), seen(12, 9, started=11)) == Rates()
    assert rates(seen(10, 5), seen(10, 9)) == Rates()


# Spans


@pytest.mark.parametrize(("env", "provider"), [({}, "gen_ai.system"), ({OPT_IN: LATEST}, "gen_ai.provider.name")])
async def test_only_calls_of_a_model_are_spans_of_a_client(
    client: Client, upstream: Upstream, gateway: Gateway, env: dict[str, str], provider: str
) -> None:
    kept = InMemorySpanExporter()
    traces = TracerProvider()
    traces.add_span_processor(SimpleSpanProcessor(kept))
    gateway.service.services = replace(gateway.service.services, spans=Spans(traces, env))
    trace = "0af7651916cd43dd8448eb211c80319c"
    for _ in range(2):
        await client.ask(asking(max_tokens=50), traceparent=f"00-{trace}-b7ad6b7169203331-01")
    upstream.next(refuses(500))
    await client.ask(asking("a dog", stream=True))
    await eventually(lambda: len(kept.get_finished_spans()) == 3)
    call, hit, failed = kept.get_finished_spans()
    traces.shutdown()
    assert (call.name, call.kind) == ("chat m", SpanKind.CLIENT)
    told = dict(call.attributes or {})
    assert told.pop("dispatch.queue.seconds") == pytest.approx(0, abs=5)
    assert told == {
        "gen_ai.operation.name": "chat",
        provider: "openai",
        "gen_ai.request.model": "m",
        "gen_ai.request.max_tokens": 50,
        "gen_ai.usage.input_tokens": 9,
        "gen_ai.usage.output_tokens": 3,
        "server.address": "127.0.0.1",
        "dispatch.deployment": "*/0",
    }
    assert (hit.name, hit.kind) == ("dispatch.cache", SpanKind.INTERNAL)
    assert dict(hit.attributes or {}) == {
        "dispatch.cache.hit": "exact",
        "dispatch.cache.similarity": 1.0,
        "dispatch.cache.saved_tokens": 12,
    }
    assert f"{call.context.trace_id:032x}" == f"{hit.context.trace_id:032x}" == trace
    assert (failed.attributes or {})["error.type"] == "500"
    assert not failed.status.is_ok
