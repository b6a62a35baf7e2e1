"""Anthropic's SDK through the gateway, unchanged but for its ``base_url``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from aiohttp import web
from gateways import Gateway, to
from upstreams import Act, Seen, Upstream, answers, sse, streams

TEXT = {"type": "text", "text": "Bow, and blink slowly."}
CALL = {"type": "tool_use", "id": "toolu_theirs", "name": "look", "input": {"city": "Oslo"}}
THOUGHT = {"type": "thinking", "thinking": "A cat.", "signature": "s1gned"}
TOOLS: list[Any] = [{"name": "look", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}]


def message(*content: dict[str, Any], stop: str = "end_turn") -> Act:
    """A message with these blocks, whole or as a stream."""
    head = {"id": "msg_theirs", "type": "message", "role": "assistant", "model": "claude", "stop_sequence": None}
    usage = {"input_tokens": 9, "output_tokens": 3, "cache_read_input_tokens": 4}

    async def act(seen: Seen, request: web.Request) -> web.StreamResponse:
        if not seen.body.get("stream"):
            body = {**head, "content": list(content), "stop_reason": stop, "usage": usage}
            return await answers(body, anthropic_ratelimit_tokens_remaining="7", request_id="req_1")(seen, request)
        begun = {**head, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
        events: list[dict[str, Any]] = [{"type": "message_start", "message": begun}, {"type": "ping"}]
        for index, block in enumerate(content):
            events += _block(index, block)
        ending = {"stop_reason": stop, "stop_sequence": None}
        events += [
            {"type": "message_delta", "delta": ending, "usage": {"output_tokens": 3}},
            {"type": "message_stop"},
        ]
        return await streams(*(sse(one, one["type"]) for one in events))(seen, request)

    return act


def _block(index: int, block: dict[str, Any]) -> list[dict[str, Any]]:
    deltas = {
        "text": [{"type": "text_delta", "text": "Bow, "}, {"type": "text_delta", "text": "and blink slowly."}],
        "tool_use": [
            {"type": "input_json_delta", "partial_json": '{"city": '},
            {"type": "input_json_delta", "partial_json": '"Oslo"}'},
        ],
        "thinking": [
            {"type": "thinking_delta", "thinking": "A cat."},
            {"type": "signature_delta", "signature": "s1gned"},
        ],
    }[block["type"]]
    empty = {"text": {"text": ""}, "tool_use": {"input": {}}, "thinking": {"thinking": "", "signature": ""}}
    return [
        {"type": "content_block_start", "index": index, "content_block": {**block, **empty[block["type"]]}},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream(message(TEXT)) as running:
        yield running


@pytest.fixture
def gateway(upstream: Upstream) -> Iterator[Gateway]:
    with Gateway({"models": to(upstream.url, provider="anthropic")}) as running:
        yield running


@pytest.fixture
def client(gateway: Gateway) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=gateway.root, api_key="any", max_retries=0) as made:
        yield made


def asked(text: str = "How do I greet a cat?", **options: Any) -> dict[str, Any]:
    return {"model": "claude", "max_tokens": 100, "messages": [{"role": "user", "content": text}], **options}


def test_a_question_in_other_words_is_answered_from_the_cache_and_costs_nothing(
    client: anthropic.Anthropic, upstream: Upstream
) -> None:
    first = client.messages.create(**asked(system="Be brief."))
    raw = client.messages.with_raw_response.create(**asked("how do I greet a cat", system="Be brief."))
    second = raw.parse()
    assert [block.model_dump() for block in first.content] == [block.model_dump() for block in second.content]
    assert (first.usage.output_tokens, second.usage.input_tokens, second.usage.output_tokens) == (3, 0, 0)
    assert raw.headers["cache-status"] == 'dispatch; hit; detail="semantic"'
    assert raw.headers["x-dispatch-tokens-saved"] == "16"
    assert second.id.startswith("msg_")
    assert second.id != first.id
    seen = upstream.seen[0]
    assert seen.headers["x-api-key"] == "upstream-key"
    assert seen.headers["anthropic-version"], "the SDK's own"
    client.messages.create(**asked(system="Be verbose."))
    assert len(upstream.seen) == 2


@pytest.mark.parametrize("content", [(TEXT,), (THOUGHT, TEXT), (TEXT, CALL)])
def test_a_stream_and_a_whole_message_share_an_entry(
    client: anthropic.Anthropic, upstream: Upstream, content: tuple[dict[str, Any], ...]
) -> None:
    upstream.usual = message(*content, stop="tool_use" if CALL in content else "end_turn")

    def streamed() -> anthropic.types.Message:
        with client.messages.stream(**asked()) as stream:
            return stream.get_final_message()

    fresh, replayed, whole = streamed(), streamed(), client.messages.create(**asked())
    shown = [[block.model_dump(exclude={"id"}) for block in one.content] for one in (fresh, replayed, whole)]
    assert shown[0] == shown[1] == shown[2]
    assert fresh.stop_reason == replayed.stop_reason == whole.stop_reason
    assert (fresh.usage.output_tokens, replayed.usage.output_tokens, whole.usage.output_tokens) == (3, 0, 0)
    assert len({one.id for one in (fresh, replayed, whole)}) == 3
    assert len(upstream.seen) == 1


def test_a_turn_with_a_replayed_tool_call_finds_the_answer_of_the_first(
    client: anthropic.Anthropic, upstream: Upstream
) -> None:
    ids = set()
    for _ in range(2):
        upstream.next(*([message(CALL, stop="tool_use")] if not upstream.seen else []))
        called = client.messages.create(**asked(tools=TOOLS))
        call: Any = called.content[0]
        ids.add(call.id)
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
        turns = [
            *asked()["messages"],
            {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in called.content]},
            {"role": "user", "content": [result]},
        ]
        client.messages.create(**{**asked(tools=TOOLS), "messages": turns})
    assert len(ids) == 2
    assert len(upstream.seen) == 2


@pytest.mark.parametrize("stop", ["max_tokens", "refusal", "pause_turn"])
def test_what_is_cut_off_or_withheld_is_not_kept(client: anthropic.Anthropic, upstream: Upstream, stop: str) -> None:
    upstream.usual = message(TEXT, stop=stop)
    for _ in range(2):
        client.messages.create(**asked())
    assert len(upstream.seen) == 2


def test_tools_that_look_at_the_world_go_past_the_cache(client: anthropic.Anthropic, upstream: Upstream) -> None:
    tools: Any = [{"type": "web_search_20250305", "name": "web_search"}]
    for _ in range(2):
        client.messages.create(**asked(tools=tools))
        client.messages.create(
            **asked(extra_body={"mcp_servers": [{"type": "url", "url": "https://x", "name": "x"}]})
        )
        client.messages.create(**asked(extra_body={"tools": [{"type": "mcp_toolset", "mcp_server_name": "x"}]}))
    assert len(upstream.seen) == 6


def test_marks_of_the_providers_own_cache_are_no_part_of_the_question(
    client: anthropic.Anthropic, upstream: Upstream
) -> None:
    plain = [{"type": "text", "text": "Be brief."}]
    client.messages.create(**asked(system=plain))
    client.messages.create(**asked(system=[{**plain[0], "cache_control": {"type": "ephemeral"}}]))
    assert len(upstream.seen) == 1


def test_errors_have_anthropics_form(client: anthropic.Anthropic, upstream: Upstream) -> None:
    own = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    upstream.next(answers(own, 529))
    with pytest.raises(anthropic.APIStatusError) as raised:
        client.messages.create(**asked())
    assert (raised.value.status_code, raised.value.body) == (529, own)
    with pytest.raises(anthropic.BadRequestError) as refused:
        client.messages.create(**{**asked(), "messages": []})
    body: Any = refused.value.body
    assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")


def test_a_stream_that_breaks_off_says_so(client: anthropic.Anthropic, upstream: Upstream) -> None:
    begun = {"id": "x", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": {}}
    upstream.next(streams(sse({"type": "message_start", "message": begun}, "message_start"), ends=False))
    with pytest.raises(anthropic.APIStatusError, match="broke"):
        list(client.messages.create(**asked(), stream=True))
    assert client.messages.create(**asked()).content
    assert len(upstream.seen) == 2


def test_a_limit_is_refused_in_anthropics_form(upstream: Upstream) -> None:
    settings = {
        "models": to(upstream.url, provider="anthropic", limits={"rpm": 1, "burst": 60}),
        "timeouts": {"queue": 0.01},
    }
    with Gateway(settings) as gateway:
        client = anthropic.Anthropic(base_url=gateway.root, api_key="any", max_retries=0)
        client.messages.create(**asked())
        with pytest.raises(anthropic.RateLimitError) as raised:
            client.messages.create(**asked("How do I greet a dog?"))
        client.close()
    assert int(raised.value.response.headers["retry-after"]) > 0
