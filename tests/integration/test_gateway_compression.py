"""Prompts that the gateway makes shorter: what is sent, what is reserved, and what the caller is told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from conversations import ASKED, DOORS, LLAMAINDEX
from fakes import CountingEmbedder
from gateways import Client, Gateway, deployment, eventually, to
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from upstreams import Upstream, answers, refuses

from dispatch_core import EmbeddingError, HashingEmbedder
from dispatch_core.__main__ import main
from dispatch_core.spans import Spans
from dispatch_core.types import Matrix

ANSWER = "Its main door is painted teal."
PADDING = "Its café sells cakes, soup and tea."
SYSTEM = {"role": "system", "content": "You are  a guide.\n\n\n\nBe kind."}
PROMPT = {"role": "user", "content": LLAMAINDEX.format(context=DOORS, question=ASKED)}
BODY: dict[str, Any] = {"model": "m", "messages": [SYSTEM, PROMPT]}
TOOLS = [{"type": "function", "function": {"name": "look", "description": "Look  at   it.", "parameters": {}}}]
HALF = {"*": {"steps": [{"extractive": {"share": 0.7}}]}}
TIDY = {"*": {"steps": ["lossless"]}}


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@asynccontextmanager
async def opened(upstream: Upstream, compression: Any, **settings: Any) -> AsyncIterator[tuple[Client, Gateway]]:
    embedder = settings.pop("embedder", HashingEmbedder())
    given = {"models": to(upstream.url), "compression": compression, **settings}
    with Gateway(given, embedder=embedder) as gateway:
        async with aiohttp.ClientSession() as session:
            yield Client(session, gateway.url), gateway


def sent(upstream: Upstream) -> str:
    """The last message of the last request."""
    return str(upstream.seen[-1].body["messages"][-1]["content"])


@pytest.mark.parametrize("stream", [False, True])
async def test_what_matters_for_the_question_is_sent_and_the_rest_of_the_context_is_not(
    upstream: Upstream, stream: bool
) -> None:
    async with opened(upstream, HALF) as (client, gateway):
        body = {**BODY, "stream": stream, "temperature": 0.1, "cache": {"ttl": 60}}
        status, headers, _ = await client.ask(body)
        assert status == 200
        assert headers["cache-status"].startswith("dispatch; fwd=miss")
        before, _, after = headers["x-dispatch-compressed"].partition(";to=")
        assert 0.5 < int(after) / int(before) < 0.8
        seen = upstream.seen[-1].body
        assert (seen["messages"][0], seen["temperature"], "cache" in seen) == (SYSTEM, 0.1, False)
        assert ANSWER in sent(upstream)
        assert PADDING not in sent(upstream)
        assert sent(upstream).endswith(f"Query: {ASKED}\nAnswer: ")
        meters = gateway.service.meters
        assert meters.amounts["compressed"] == int(before) - int(after)


async def test_the_cache_knows_the_whole_prompt_and_a_hit_is_not_shortened(upstream: Upstream) -> None:
    embedder = CountingEmbedder()
    async with opened(upstream, HALF, embedder=embedder) as (client, _):
        await client.ask(BODY)
        asked = embedder.texts
        _, headers, _ = await client.ask(BODY)
        assert headers["cache-status"] == 'dispatch; hit; detail="exact"'
        assert "x-dispatch-compressed" not in headers
        assert embedder.texts == asked
        other = {**BODY, "messages": [{**PROMPT, "content": PROMPT["content"].replace("sells cakes", "sells pies")}]}
        _, headers, _ = await client.ask(other)
        assert headers["cache-status"] == "dispatch; fwd=miss; stored", "what was left out belongs to the question"


async def test_what_is_left_is_what_is_reserved(upstream: Upstream) -> None:
    models = {"*": [deployment(upstream.url, limits={"tpm": 160})]}
    body = {**BODY, "max_tokens": 20}
    async with opened(upstream, {"*": {"steps": [{"extractive": {"share": 0.6}}]}}, models=models) as (client, _):
        assert (await client.ask(body, x_dispatch_compression="off"))[0] == 413
        assert (await client.ask(body))[0] == 200


async def test_no_answer_to_a_shorter_prompt_outlives_the_setting(upstream: Upstream, tmp_path: Path) -> None:
    store = {"cache": {"url": f"sqlite:///{tmp_path}/answers.db"}}
    told = []
    for compression in (HALF, {}, HALF):
        async with opened(upstream, compression, **store) as (client, _):
            told.append((await client.ask(BODY))[1]["cache-status"].split("; ")[1])
    assert told == ["fwd=miss", "fwd=miss", "hit"]


async def test_a_caller_may_want_his_prompt_whole_and_gets_no_answer_to_a_shorter_one(upstream: Upstream) -> None:
    async with opened(upstream, HALF) as (client, _):
        await client.ask(BODY, x_dispatch_compression="on")
        _, headers, _ = await client.ask(BODY, x_dispatch_compression="off")
        assert headers["cache-status"] == "dispatch; fwd=miss; stored"
        assert "x-dispatch-compressed" not in headers
        assert upstream.seen[-1].body == BODY
        _, headers, _ = await client.ask(BODY, x_dispatch_compression="OFF")
        assert "hit" in headers["cache-status"]
        status, _, body = await client.ask(BODY, x_dispatch_compression="half")
        assert (status, body["error"]["param"]) == (400, "x-dispatch-compression")


async def test_past_the_cache_and_anew_it_is_shortened_too(upstream: Upstream) -> None:
    async with opened(upstream, HALF) as (client, _):
        for control in ("no-store", "no-cache"):
            _, headers, _ = await client.ask(BODY, cache_control=control)
            assert "x-dispatch-compressed" in headers
            assert PADDING not in sent(upstream)
        picture = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/y"}}]}
        _, headers, _ = await client.ask({**BODY, "messages": [picture, PROMPT]})
        assert headers["cache-status"].startswith("dispatch; fwd=bypass")
        assert upstream.seen[-1].body["messages"][0] == picture
        assert PADDING not in sent(upstream)


async def test_tools_their_calls_and_what_nobody_called_context_are_sent_as_they_are(upstream: Upstream) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{ "a":  1 }'}}
    turns = [
        {"role": "user", "content": DOORS},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": DOORS},
        {"role": "user", "content": ASKED},
    ]
    body = {"model": "m", "messages": turns, "tools": TOOLS}
    async with opened(upstream, HALF) as (client, _):
        _, headers, _ = await client.ask(body)
        assert upstream.seen[-1].body == body
        assert "x-dispatch-compressed" not in headers
    async with opened(upstream, {"*": {**HALF["*"], "roles": ["tool"]}}) as (client, _):
        await client.ask(body)
        seen = upstream.seen[-1].body
        assert seen["tools"] == TOOLS
        assert seen["messages"][1]["tool_calls"] == [call]
        assert ANSWER in seen["messages"][2]["content"]
        assert PADDING not in seen["messages"][2]["content"]
        assert seen["messages"][0] == turns[0]


async def test_of_a_long_conversation_the_last_turns_are_sent_and_no_result_without_its_call(
    upstream: Upstream,
) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    talk = [{"role": role, "content": f"{number} " * 40} for number in range(9) for role in ("user", "assistant")]
    last = [
        {"role": "user", "content": "What now?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "Rain."},
    ]
    async with opened(upstream, {"*": {"steps": [{"history": {"tokens": 60}}]}}) as (client, _):
        _, headers, _ = await client.ask({"model": "m", "messages": [SYSTEM, *talk, *last], "tools": TOOLS})
        assert upstream.seen[-1].body["messages"] == [SYSTEM, *talk[-2:], *last]
        assert "x-dispatch-compressed" in headers


async def test_context_is_told_by_frames_and_tags_of_ones_own(upstream: Upstream) -> None:
    notes = {"role": "user", "content": f"Notes:\n{DOORS}\nThe customer asks: {ASKED}"}
    tagged = {"role": "user", "content": f"<notes>{DOORS}</notes> {ASKED}"}
    told = {**HALF["*"], "frames": ["Notes:\n{context}\nThe customer asks: {question}"], "tags": ["notes"]}
    for compression, shorter in ((HALF, False), ({"*": told}, True)):
        async with opened(upstream, compression) as (client, _):
            for message in (notes, tagged):
                await client.ask({"model": "m", "messages": [message]})
                assert (PADDING not in sent(upstream)) == shorter
                assert ANSWER in sent(upstream)


async def test_each_model_has_its_own_or_that_of_all_others_or_none(upstream: Upstream) -> None:
    async with opened(upstream, {**HALF, "tidy": TIDY["*"], "whole": False}) as (client, _):
        spaced = {"role": "user", "content": f"{PROMPT['content']}\n\n\n\n"}
        for model, padded, whole in (("m", False, False), ("tidy", True, False), ("whole", True, True)):
            await client.ask({"model": model, "messages": [spaced]})
            assert (PADDING in sent(upstream), sent(upstream) == spaced["content"]) == (padded, whole)


@pytest.mark.parametrize("bound", [{"least": 10_000}, {"most": 5}])
async def test_what_is_short_or_too_long_is_left_as_it_is(upstream: Upstream, bound: dict[str, int]) -> None:
    async with opened(upstream, {"*": {**HALF["*"], **bound}}) as (client, _):
        await client.ask(BODY)
        assert upstream.seen[-1].body == BODY


async def test_a_plain_completion_is_shortened_unless_it_wants_its_prompt_back(upstream: Upstream) -> None:
    choice = {"index": 0, "text": "Teal.", "finish_reason": "stop", "logprobs": None}
    upstream.usual = answers({"object": "text_completion", "choices": [choice], "usage": {"prompt_tokens": 5}})
    body = {"model": "m", "prompt": PROMPT["content"]}
    async with opened(upstream, HALF) as (client, _):
        _, headers, _ = await client.ask(body, "/completions")
        assert "x-dispatch-compressed" in headers
        assert ANSWER in upstream.seen[-1].body["prompt"]
        assert PADDING not in upstream.seen[-1].body["prompt"]
        for prompt in ({"echo": True}, {"prompt": [PROMPT["content"], "b"]}):
            await client.ask({**body, **prompt}, "/completions")
            assert upstream.seen[-1].body == {**body, **prompt}


async def test_anthropics_messages_are_shortened_unless_they_mark_a_prompt_cache(upstream: Upstream) -> None:
    usage = {"input_tokens": 9, "output_tokens": 3}
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn"}
    upstream.usual = answers({**head, "content": [{"type": "text", "text": "Teal."}], "usage": usage})
    call = {"type": "tool_use", "id": "t1", "name": "look", "input": {"a": 1}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": DOORS}]}
    turns: list[Any] = [
        {"role": "user", "content": ASKED},
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result]},
    ]
    system = [{"type": "text", "text": f"Be kind.\n\n\n<context>{DOORS}</context>"}]
    body = {"model": "m", "max_tokens": 9, "system": system, "messages": turns}
    settings = {"models": to(upstream.url, provider="anthropic")}
    async with opened(upstream, {"*": {**HALF["*"], "roles": ["tool"]}}, **settings) as (client, _):
        _, headers, _ = await client.ask(body, "/messages")
        assert "x-dispatch-compressed" in headers
        seen = upstream.seen[-1].body
        assert seen["system"][0]["text"].startswith("Be kind.\n\n\n<context>")
        assert seen["messages"][:2] == turns[:2]
        (block,) = seen["messages"][2]["content"]
        assert (block["type"], block["tool_use_id"]) == ("tool_result", "t1")
        left = seen["system"][0]["text"] + block["content"][0]["text"]
        assert ANSWER in left
        assert PADDING not in left
        marked = {**body, "system": [{**system[0], "cache_control": {"type": "ephemeral"}}]}
        await client.ask(marked, "/messages", cache_control="no-cache")
        assert upstream.seen[-1].body == marked


async def test_another_deployment_gets_the_same_and_nothing_is_shortened_twice(upstream: Upstream) -> None:
    models = {"*": [deployment(upstream.url, model=name) for name in ("one", "two")]}
    embedder = CountingEmbedder()
    upstream.next(refuses(503))
    async with opened(upstream, HALF, models=models, embedder=embedder, cache={"enabled": False}) as (client, _):
        assert (await client.ask(BODY))[0] == 200
        one, two = (seen.body for seen in upstream.seen)
        assert one["messages"] == two["messages"]
        assert {one["model"], two["model"]} == {"one", "two"}
        assert len(embedder.texts) == len(set(embedder.texts))


class Failing(HashingEmbedder):
    """Fails, or lets nobody go before it may."""

    def __init__(self, may_go: threading.Event | None = None) -> None:
        super().__init__()
        self.may_go = may_go
        self.asked = 0

    def embed(self, texts: Sequence[str]) -> Matrix:
        self.asked += 1
        if self.may_go is None:
            raise EmbeddingError("down")
        self.may_go.wait(30)
        return super().embed(texts)


async def test_what_fails_to_shorten_a_prompt_leaves_it_as_it_is_and_is_left_alone_for_a_while(
    upstream: Upstream, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    embedder = Failing()
    async with opened(upstream, HALF, embedder=embedder, cache={"enabled": False}) as (client, gateway):
        # To be ready it embeds a few words, too.
        for _ in range(5):
            status, headers, _ = await client.ask(BODY)
            assert (status, "x-dispatch-compressed" in headers) == (200, False)
            assert upstream.seen[-1].body == BODY
        assert embedder.asked == 3
        assert gateway.service.snapshot()["compression"] == "paused"
        assert await asyncio.to_thread(main, ["top", gateway.url, "--once"]) == 0
        assert "compression paused" in capsys.readouterr().out
        async with client.session.get(f"{gateway.root}/metrics") as response:
            assert "dispatch_compression_breaker_state 1.0" in await response.text()
    assert [record.message for record in caplog.records if "compressor" in record.message] == [
        "the compressor failed, calls go on without it: EmbeddingError: down",
        "the compressor is paused, calls go on without it: EmbeddingError: down",
    ]


async def test_others_are_answered_while_a_prompt_is_made_shorter_and_one_who_leaves_is_not_waited_for(
    upstream: Upstream,
) -> None:
    may_go = threading.Event()
    embedder = Failing(may_go)
    async with opened(upstream, HALF, embedder=embedder, cache={"enabled": False}) as (client, gateway):
        slow, leaves = (asyncio.create_task(client.ask(BODY)) for _ in range(2))
        await eventually(lambda: embedder.asked > 0)
        assert (await client.ask(BODY, x_dispatch_compression="off"))[0] == 200
        assert not slow.done()
        await eventually(lambda: gateway.service.under_way == 2)
        leaves.cancel()
        await eventually(lambda: gateway.service.under_way == 1)
        may_go.set()
        assert (await slow)[0] == 200
        assert PADDING not in sent(upstream)


async def test_long_prompts_hold_up_nobody_but_each_other(upstream: Upstream) -> None:
    may_go = threading.Event()
    embedder = Failing(may_go)
    long = {**BODY, "messages": [{**PROMPT, "content": LLAMAINDEX.format(context=DOORS * 100, question=ASKED)}]}
    async with opened(upstream, TIDY | {"m": HALF["*"]}, embedder=embedder, cache={"enabled": False}) as (client, _):
        slow = [asyncio.create_task(client.ask(long)) for _ in range(3)]
        await eventually(lambda: embedder.asked > 0)
        spaced = {**BODY, "model": "tidy", "messages": [{"role": "user", "content": "A.  B."}]}
        await client.ask(spaced)
        assert sent(upstream) == "A. B."
        assert not any(task.done() for task in slow)
        may_go.set()
        assert [status for status, _, _ in await asyncio.gather(*slow)] == [200] * 3


async def test_the_status_and_top_tell_what_was_left_out(
    upstream: Upstream, capsys: pytest.CaptureFixture[str]
) -> None:
    async with opened(upstream, HALF) as (client, gateway):
        assert gateway.service.snapshot()["compression"] == "ok"
        await client.ask(BODY)
        left_out = gateway.service.snapshot()["tokens"]["compressed"]
        assert left_out > 0
        assert await asyncio.to_thread(main, ["top", gateway.url, "--once"]) == 0
        shown = capsys.readouterr().out
        assert "left out of prompts" in shown
        async with client.session.get(f"{gateway.root}/metrics") as response:
            text = await response.text()
        assert f'dispatch_tokens_total{{basis="compressed"}} {left_out}.0' in text
        assert "dispatch_compression_seconds_count 1.0" in text


async def test_the_span_of_the_call_says_what_was_left_out(upstream: Upstream) -> None:
    kept = InMemorySpanExporter()
    traces = TracerProvider()
    traces.add_span_processor(SimpleSpanProcessor(kept))
    async with opened(upstream, HALF) as (client, gateway):
        gateway.service.services = replace(gateway.service.services, spans=Spans(traces))
        for compression in ("on", "off"):
            await client.ask(BODY, x_dispatch_compression=compression)
        await eventually(lambda: len(kept.get_finished_spans()) == 2)
        spans = [span.attributes or {} for span in kept.get_finished_spans()]
        told = [attributes.get("dispatch.compression.saved_tokens") for attributes in spans]
        assert told == [gateway.service.meters.amounts["compressed"], None]
    traces.shutdown()
