"""The gateway's pure parts: events, conversations, control."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch_core import keys
from dispatch_gateway.chat import ChatWire
from dispatch_gateway.control import Control, control_of
from dispatch_gateway.errors import ApiError
from dispatch_gateway.messages import MessagesWire
from dispatch_gateway.sse import Splitter, event
from dispatch_gateway.tenants import Tenant
from dispatch_gateway.texts import CompletionWire
from dispatch_gateway.turns import Unstable, text_of, turns_of

CHAT = ChatWire()


def call(wire: Any = CHAT, **options: Any) -> Any:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **options}
    return wire.read(body, json.dumps(body).encode())


def scope(read: Any) -> str:
    return keys.scope_digest([read.model, read.facts, read.text])


# Events


@given(st.lists(st.text(st.characters(exclude_characters="\r\n"), max_size=20)), st.lists(st.integers(1, 9)))
def test_events_are_found_whatever_the_pieces_in_which_they_come(texts: list[str], cuts: list[int]) -> None:
    stream = b"".join(event(text.encode("utf-8", "surrogatepass")) for text in texts)
    splitter, found, at = Splitter(), [], 0
    for cut in [*cuts, len(stream)]:
        found += list(splitter.feed(stream[at : at + cut]))
        at += cut
    found += list(splitter.feed(stream[at:]))
    assert [one.data.decode("utf-8", "surrogatepass") for one in found] == texts
    assert b"".join(one.raw for one in found) == stream


@pytest.mark.parametrize(
    ("raw", "data"),
    [
        (b"data: a\n\n", b"a"),
        (b"data:a\n\n", b"a"),
        (b"event: x\ndata: a\ndata: b\n\n", b"a\nb"),
        (b"event: x\r\ndata: a\r\n\r\n", b"a"),
        (b": alive\n\n", b""),
    ],
)
def test_data_of_events_in_every_spelling(raw: bytes, data: bytes) -> None:
    (found,) = Splitter().feed(raw)
    assert found.data == data


# Streams and whole answers


@given(st.text(min_size=1).filter(str.strip), st.booleans())
def test_a_replayed_stream_is_recorded_as_the_answer_that_it_replays(text: str, usage: bool) -> None:
    message = {"role": "assistant", "content": text, "tool_calls": None}
    payload = CHAT.payload({"model": "x", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
    assert payload is not None
    read = call(stream=True, **({"stream_options": {"include_usage": True}} if usage else {}))
    recorder = CHAT.recorder(read)
    for one in Splitter().feed(CHAT.streamed(read, payload)):
        assert recorder.take(one)
    again = recorder.payload()
    assert again is not None
    assert json.loads(again)["choices"][0]["message"]["content"] == text
    assert json.loads(CHAT.whole(read, payload))["choices"][0]["message"]["content"] == text


def test_a_completion_is_replayed_both_ways() -> None:
    wire = CompletionWire()
    read = call(wire, prompt="Say this", stream=True)
    choice = {"index": 0, "text": "this is it", "logprobs": None, "finish_reason": "stop"}
    payload = wire.payload({"model": "x", "choices": [choice]})
    assert payload is not None
    recorder = wire.recorder(read)
    assert all(recorder.take(one) for one in Splitter().feed(wire.streamed(read, payload)))
    again = recorder.payload()
    assert again is not None
    assert json.loads(again)["choices"] == json.loads(payload)["choices"]


@pytest.mark.parametrize("payload", [b"", b"[]", b"{}", b'{"version": 2, "answers": "chat"}', b"\xff"])
def test_what_another_version_wrote_is_not_read(payload: bytes) -> None:
    for wire in (CHAT, CompletionWire(), MessagesWire()):
        with pytest.raises((ValueError, TypeError, LookupError)):
            wire.whole(call(), payload)


# Conversations


def test_text_in_parts_is_the_same_text() -> None:
    parts = [{"type": "text", "text": "hi"}]
    assert scope(call()) == scope(call(messages=[{"role": "user", "content": parts}]))
    assert text_of([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]) == "a\nb"
    assert text_of([]) is None


@pytest.mark.parametrize(
    "options",
    [
        {"tools": []},
        {"temperature": 0},
        {"n": 2},
        {"messages": [{"role": "user", "content": "hi", "name": "ann"}]},
        {"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "hi"}]},
        {"model": "n"},
        {"an_option_of_tomorrow": 1},
    ],
)
def test_whatever_may_decide_the_answer_is_part_of_the_question(options: dict[str, Any]) -> None:
    assert scope(call(**options)) != scope(call())


@pytest.mark.parametrize(
    "options", [{"stream": True}, {"user": "ann"}, {"temperature": None}, {"metadata": {"a": "b"}}, {"store": True}]
)
def test_what_decides_nothing_is_not(options: dict[str, Any]) -> None:
    assert scope(call(**options)) == scope(call())


def test_ids_of_tool_calls_count_by_their_order_alone() -> None:
    def talk(*ids: str) -> Any:
        calls = [{"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}} for id in ids]
        results = [{"role": "tool", "tool_call_id": id, "content": "x"} for id in ids]
        return turns_of([{"role": "user", "content": "hi"}, {"role": "assistant", "tool_calls": calls}, *results])

    assert talk("a", "b") == talk("c", "d")
    assert talk("a", "b") != talk("a", "a")


def test_what_a_url_shows_may_be_something_else_tomorrow() -> None:
    def picture(url: str) -> list[Any]:
        return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]

    with pytest.raises(Unstable):
        turns_of(picture("https://example.com/a.png"))
    assert turns_of(picture("data:image/png;base64,AA"))
    assert call(messages=picture("https://example.com/a.png")).past == "url"


@pytest.mark.parametrize(
    "options", [{"tools": [{}]}, {"response_format": {"type": "json_object"}}, {"functions": [{}]}]
)
def test_calls_of_tools_and_of_schemas_are_matched_exactly(options: dict[str, Any]) -> None:
    assert call().semantic
    assert not call(**options).semantic


def test_marks_and_ids_of_anthropics_format_are_no_part_of_the_question() -> None:
    wire = MessagesWire()
    marked = [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]
    plain = [{"type": "text", "text": "x"}]
    assert scope(call(wire, system=marked)) == scope(call(wire, system=plain))
    assert scope(call(wire, system=marked)) != scope(call(wire))


# Control


@pytest.mark.parametrize(
    ("header", "control"),
    [
        ("no-cache", Control(no_cache=True)),
        ("No-Store, max-age=5", Control(no_store=True, max_age=5.0)),
        ('only-if-cached, max-age="5"', Control(only_if_cached=True, max_age=5.0)),
        ("max-age=soon", Control(max_age=0.0)),
        ("stale-if-error=5, , =", Control()),
    ],
)
def test_cache_control_is_read_as_the_rfc_says(header: str, control: Control) -> None:
    assert control_of({"cache-control": header}, {}) == control


def test_of_header_and_body_the_stricter_counts() -> None:
    told = control_of({"cache-control": "no-store, max-age=9"}, {"cache": {"s-maxage": 5, "no-store": False, "x": 1}})
    assert told == Control(no_store=True, max_age=5.0)
    assert control_of({}, {"cache": {"ttl": 0}}).no_store


@given(st.dictionaries(st.text(max_size=12), st.none() | st.booleans() | st.integers() | st.text() | st.floats()))
def test_control_of_any_kind_is_read_or_refused(told: dict[str, Any]) -> None:
    with suppress(ApiError):
        assert isinstance(control_of({}, {"cache": told}), Control)


@given(st.text(), st.text(), st.text(), st.text())
def test_no_tenant_can_name_anothers_namespace(one: str, narrow: str, other: str, wide: str) -> None:
    plain = r"a-b/c.:@_"
    one, other = ("".join(char for char in name if char in plain) for name in (one, other))
    if one != other:
        assert Tenant(namespace=one).narrowed(narrow) != Tenant(namespace=other).narrowed(wide)
        assert Tenant(namespace=one).tag(narrow) != Tenant(namespace=other).tag(wide)


@pytest.mark.parametrize("wire", [CHAT, MessagesWire()], ids=["chat", "messages"])
def test_of_a_prompt_of_retrieval_the_question_is_compared_and_the_context_is_scope(wire: Any) -> None:
    def read(context: str, question: str) -> Any:
        text = f"Answer the question based only on the following context:\n{context}\n\nQuestion: {question}"
        return call(wire, messages=[{"role": "user", "content": text}], max_tokens=9)

    one, reworded, elsewhere = read("a", "Who?"), read("a", "Who is it?"), read("b", "Who?")
    assert [each.text for each in (one, reworded, elsewhere)] == ["Who?", "Who is it?", "Who?"]
    assert one.facts == reworded.facts != elsewhere.facts
    assert one.semantic
