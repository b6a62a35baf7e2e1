"""Responses of LlamaIndex to bytes and back, and what can be read from a provider's own object."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    ImageBlock,
    LogProb,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from openai.types.chat.chat_completion_chunk import ChoiceDeltaToolCall, ChoiceDeltaToolCallFunction

from dispatch_core.types import Entry, Match, Usage
from llamaindex_dispatch.convert import CHAT, COMPLETION, UNREADABLE, replay
from llamaindex_dispatch.report import ending_of, unfinished, usage_of


def match(payload: bytes) -> Match:
    return Match(Entry("id", "ns", "scope", "text", payload, Usage(7, 3), 0.0), 0.95)


def chat(*blocks: Any, **extras: Any) -> ChatResponse:
    return ChatResponse(
        message=ChatMessage(role="assistant", blocks=list(blocks), additional_kwargs=extras), raw={"a": 1}
    )


def restored(response: ChatResponse) -> ChatResponse:
    payload = CHAT.encode(response)
    assert payload is not None
    return CHAT.decode(match(payload))


def test_text_thoughts_and_tool_calls_come_back() -> None:
    call = ToolCallBlock(tool_call_id="c1", tool_name="add", tool_kwargs='{"a": 1}')
    response = chat(ThinkingBlock(content="hm"), TextBlock(text="Let me see."), call)
    assert restored(response).message == response.message


def test_a_hit_says_what_it_is_and_what_it_saved_and_nothing_that_counts_as_spent() -> None:
    response = restored(chat(TextBlock(text="Hi"), prompt_tokens=7, completion_tokens=3, total_tokens=10))
    assert response.raw is None
    assert response.message.additional_kwargs == {}
    assert response.additional_kwargs == {
        "dispatch": {
            "cache_hit": "semantic",
            "similarity": 0.95,
            "saved_usage": {"input_tokens": 7, "output_tokens": 3},
        }
    }


def test_tool_calls_of_the_sdk_come_back_as_objects_of_the_sdk() -> None:
    function = ChoiceDeltaToolCallFunction(name="add", arguments="{}")
    call = ChoiceDeltaToolCall(index=0, id="c1", function=function, type="function")
    block = ToolCallBlock(tool_call_id="c1", tool_name="add", tool_kwargs="{}")
    assert restored(chat(block, tool_calls=[call])).message.additional_kwargs["tool_calls"] == [call]
    assert restored(chat(block, tool_calls=[{"id": "c1"}])).message.additional_kwargs["tool_calls"] == [{"id": "c1"}]


def test_log_probabilities_come_back() -> None:
    response = chat(TextBlock(text="Hi"))
    response.logprobs = [[LogProb(token="Hi", logprob=-0.5, bytes=[72, 105])]]
    assert restored(response).logprobs == response.logprobs


@pytest.mark.parametrize(
    "response",
    [
        chat(),
        chat(TextBlock(text=" \n")),
        chat(ThinkingBlock(content="hm")),
        chat(TextBlock(text="see"), ImageBlock(image=b"x")),
        chat(TextBlock(text="see"), extra=object()),
        chat(TextBlock(text="see"), tool_calls=[LogProb(token="a class of nobody's list")]),
    ],
    ids=["no blocks", "no text", "a thought only", "an image", "an object", "a foreign object"],
)
def test_what_cannot_or_should_not_be_replayed_is_not_stored(response: ChatResponse) -> None:
    assert CHAT.encode(response) is None


def test_a_completion_comes_back() -> None:
    payload = COMPLETION.encode(CompletionResponse(text="Hi", additional_kwargs={"prompt_tokens": 1, "seed": 4}))
    assert payload is not None
    response = COMPLETION.decode(match(payload))
    assert response.text == "Hi"
    assert response.additional_kwargs["seed"] == 4
    assert "prompt_tokens" not in response.additional_kwargs
    assert COMPLETION.encode(CompletionResponse(text="")) is None


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        b"[]",
        b'{"version": 2}',
        b'{"version": 1}',
        json.dumps({"version": 1, "role": "assistant", "blocks": [{"block_type": "evil"}]}).encode(),
        json.dumps(
            {
                **{"version": 1, "role": "assistant", "blocks": [], "logprobs": None},
                "extras": {"tool_calls": {"calls": [["os.system", {"command": "true"}]]}},
            }
        ).encode(),
    ],
)
def test_a_payload_of_another_version_or_with_another_type_is_unreadable(payload: bytes) -> None:
    with pytest.raises(UNREADABLE):
        CHAT.decode(match(payload))


@pytest.mark.parametrize("text", ["short", "word " * 50, "x" * 200, "a\n\n  b\tc" * 20, "汉字" * 30, ""])
def test_a_replayed_stream_is_cumulative_and_complete(text: str) -> None:
    call = ToolCallBlock(tool_call_id="c1", tool_name="add")
    whole = chat(TextBlock(text=text), call)
    chunks = list(replay(CHAT, whole.model_copy(deep=True)))
    so_far = ""
    for chunk in chunks:
        so_far += chunk.delta or ""
        assert (chunk.message.content or "") == so_far
    assert so_far == text
    assert chunks[-1].message == whole.message
    assert len(chunks) > 1 or len(text) <= 24


@pytest.mark.parametrize(
    ("raw", "extras"),
    [
        (SimpleNamespace(usage=SimpleNamespace(prompt_tokens=7, completion_tokens=3)), {}),
        ({"usage": {"prompt_tokens": 7, "completion_tokens": 3}}, {}),
        ({"usage": {"input_tokens": 7, "output_tokens": 3}}, {}),
        ({"usage_metadata": {"prompt_token_count": 7, "candidates_token_count": 3}}, {}),
        ({"prompt_eval_count": 7, "eval_count": 3}, {}),
        (None, {"prompt_tokens": 7, "completion_tokens": 3}),
    ],
)
def test_usage_is_found_wherever_an_integration_leaves_it(raw: Any, extras: dict[str, Any]) -> None:
    assert usage_of(CompletionResponse(text="x", raw=raw, additional_kwargs=extras)) == Usage(7, 3)


@pytest.mark.parametrize(
    "raw", [None, {}, {"usage": None}, {"usage": {"prompt_tokens": 0}}, SimpleNamespace(usage=None)]
)
def test_usage_that_is_not_there_is_none(raw: Any) -> None:
    assert usage_of(CompletionResponse(text="x", raw=raw)) is None


@pytest.mark.parametrize(
    ("raw", "ending", "cut"),
    [
        ({"choices": [{"finish_reason": "length"}]}, "length", True),
        ({"choices": [{"finish_reason": "content_filter"}]}, "content_filter", True),
        ({"choices": [{"finish_reason": "stop"}]}, "stop", False),
        ({"choices": [{"finish_reason": "tool_calls"}]}, "tool_calls", False),
        ({"stop_reason": "max_tokens"}, "max_tokens", True),
        ({"stop_reason": "end_turn"}, "end_turn", False),
        ({"done_reason": "length"}, "length", True),
        ({"candidates": [{"finish_reason": "SAFETY"}]}, "safety", True),
        ({"status": "incomplete"}, "incomplete", True),
        ({"choices": []}, None, False),
        (None, None, False),
    ],
)
def test_the_reason_of_an_ending_is_found(raw: Any, ending: str | None, cut: bool) -> None:
    response = CompletionResponse(text="x", raw=raw)
    assert ending_of(response) == ending
    assert unfinished(ending) is cut
