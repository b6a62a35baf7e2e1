"""Messages of the gateway's formats through compressors and back."""

from __future__ import annotations

import json
from typing import Any

from conversations import ASKED, DOORS
from hypothesis import given
from hypothesis import strategies as st

from dispatch_core import Extractive, HashingEmbedder, Lossless
from dispatch_core._flow import run
from dispatch_core.compress import Careful, estimated
from dispatch_gateway.chat import ChatWire
from dispatch_gateway.messages import MessagesWire
from dispatch_gateway.prompts import from_core, to_core

PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 9000}}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a": 1}'}}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "Rain."}
TALK: list[dict[str, Any]] = [
    {"role": "developer", "content": "Be kind."},
    {"role": "user", "content": [{"type": "text", "text": "Look", "x": 1}, PICTURE], "name": "ann"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "Result."},
    {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
    {"role": "function", "name": "f", "content": "1"},
    {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "look", "input": {"a": 1}}]},
    {"role": "user", "content": [RESULT]},
    {"role": "user", "content": [RESULT, {"type": "text", "text": "So?"}]},
    {"role": "critic", "content": ""},
    {"role": "user"},
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "text", "content", "id", "role", "tool_calls"]), inner, max_size=3)
        | st.fixed_dictionaries({"type": st.sampled_from(["text", "tool_result", "image"]), "text": inner})
        | st.fixed_dictionaries({"type": st.just("tool_result"), "content": inner})
    ),
    max_leaves=12,
)


def test_what_no_compressor_touched_is_the_same_object() -> None:
    assert all(back is message for back, message in zip(from_core(to_core(TALK)), TALK, strict=True))


def test_roles_calls_and_answers_are_known() -> None:
    core = to_core(TALK)
    told = ["system", "user", "assistant", "tool", "assistant", "tool", "assistant", "tool", "user", "assistant"]
    assert [message.role for message in core] == [*told, "user"]
    assert [message.calls for message in core if message.calls] == [("c1",), ("function f",), ("t1",)]
    assert [message.answers for message in core if message.answers] == [("c1",), ("function f",), ("t1",), ("t1",)]
    assert [part.kind for part in core[1].parts] == ["text", "other"]
    assert core[1].parts[1].tokens == 800
    assert core[2].tokens >= estimated('look{"a": 1}')
    assert [part.text for part in core[7].parts] == ["Rain."]
    assert [part.kind for part in core[8].parts] == ["other", "text"], "what a user asks is no tool's result"


@given(st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "tool", "x"]), "content": JSON}) | JSON))
def test_whatever_a_body_holds_comes_back_as_it_was(messages: list[Any]) -> None:
    core = to_core(messages)
    assert not core or from_core(core) == messages
    body = {"model": "m", "messages": messages or [1]}
    call = ChatWire().read(body, json.dumps(body).encode())
    whole = ChatWire().messages(call)
    left = run(Careful(Lossless()).shortened(whole))
    assert len(ChatWire().shortened(call, left).body["messages"]) in (len(messages), 0)


def test_a_text_that_was_shortened_comes_back_in_its_place_with_all_else() -> None:
    context = {"type": "text", "text": f"<context>{DOORS}</context>", "x": 1}
    message = {"role": "user", "content": [context, PICTURE, {"type": "text", "text": ASKED}], "name": "ann"}
    (after,) = from_core(run(Careful(Extractive(HashingEmbedder(), share=0.93)).shortened(to_core([message]))))
    assert (after["name"], after["content"][1:]) == ("ann", message["content"][1:])
    assert after["content"][0]["x"] == 1
    assert "painted teal" in after["content"][0]["text"]
    assert len(after["content"][0]["text"]) < len(context["text"])


def test_what_a_tool_brought_may_become_empty_and_other_empty_blocks_go() -> None:
    twice = [{"type": "text", "text": DOORS}, {"type": "text", "text": DOORS}]
    results = [{"type": "tool_result", "tool_use_id": str(at), "content": twice[:1]} for at in range(2)]
    messages = [{"role": "user", "content": results}, {"role": "tool", "tool_call_id": "1", "content": twice}]
    first, second = from_core(run(Careful(Lossless()).shortened(to_core(messages))))
    assert first["content"] == [results[0], {**results[1], "content": ""}]
    assert second["content"] == twice[:1]


def test_anthropics_system_prompt_is_the_first_message_and_goes_back_where_it_was() -> None:
    body = {"model": "m", "system": f"<context>{DOORS}  </context>", "messages": [{"role": "user", "content": ASKED}]}
    wire = MessagesWire()
    call = wire.read(body, json.dumps(body).encode())
    whole = wire.messages(call)
    assert [message.role for message in whole] == ["system", "user"]
    left = wire.shortened(call, run(Careful(Lossless()).shortened(whole)))
    assert left.body == {**body, "system": f"<context>{DOORS} </context>"}
    assert (json.loads(left.raw), left.facts) == (left.body, call.facts)
    assert len(left.prompt) < len(call.prompt)
    marked = wire.read({**body, "cache_control": {"type": "ephemeral"}}, b'{"cache_control": 1}')
    assert wire.messages(marked) == (), "the provider's prompt cache knows it as it is"
