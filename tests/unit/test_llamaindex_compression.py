"""Messages and prompts of LlamaIndex through compressors and back."""

from __future__ import annotations

from typing import Any

import pytest
from conversations import ASKED, DOORS
from llama_index.core.base.llms.types import (
    ChatMessage,
    CitableBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.prompts.default_prompt_selectors import DEFAULT_TEXT_QA_PROMPT_SEL
from llama_index.core.prompts.default_prompts import DEFAULT_TEXT_QA_PROMPT

from dispatch_core import Extractive, HashingEmbedder, Lossless, Message
from dispatch_core._flow import arun, run
from dispatch_core.compress import Careful
from llamaindex_dispatch.compression import from_core, shortened, to_core

PICTURE = ImageBlock(image=b"\x89PNG\r\n\x1a\n" + b"x" * 9000)
SDK_CALL = {"id": "c2", "type": "function", "function": {"name": "look", "arguments": "{}"}}
TOOL_CALL = ToolCallBlock(tool_call_id="c1", tool_name="f")
TALK = [
    ChatMessage(role="system", content="Be kind."),
    ChatMessage(role="developer", content="Be brief."),
    ChatMessage(role="user", blocks=[TextBlock(text="Look"), PICTURE]),
    ChatMessage(
        role="assistant", blocks=[ThinkingBlock(content="Hm."), ToolCallBlock(tool_call_id="c1", tool_name="f")]
    ),
    ChatMessage(role="tool", content="Result.", additional_kwargs={"tool_call_id": "c1"}),
    ChatMessage(role="assistant", content="", additional_kwargs={"tool_calls": [SDK_CALL]}),
    ChatMessage(role="function", content="Result.", additional_kwargs={"tool_call_id": "c2"}),
    ChatMessage(role="user", blocks=[CitableBlock(title="t", source="s", content=[TextBlock(text="two words")])]),
    ChatMessage(role=MessageRole.CHATBOT, content="So."),
    ChatMessage(role="user", blocks=[]),
]


def test_what_no_compressor_touched_is_the_same_object() -> None:
    assert all(back is message for back, message in zip(from_core(to_core(TALK)), TALK, strict=True))


def test_roles_calls_and_answers_are_known() -> None:
    core = to_core(TALK)
    assert [message.role for message in core] == [
        *("system", "system", "user", "assistant", "tool", "assistant", "tool", "user", "assistant", "user")
    ]
    assert [message.calls for message in core if message.calls] == [("c1",), ("c2",)]
    assert [message.answers for message in core if message.answers] == [("c1",), ("c2",)]
    assert [(part.kind, part.tokens) for part in core[2].parts] == [("text", 0), ("other", 800)]
    assert core[5].tokens > 0


def test_the_default_question_prompts_are_shortened_within_their_frame() -> None:
    fields = {"context_str": DOORS, "query_str": ASKED}
    plain = DEFAULT_TEXT_QA_PROMPT.format(**fields)
    chat = DEFAULT_TEXT_QA_PROMPT_SEL.conditionals[0][1].format_messages(**fields)
    extractive = Extractive(HashingEmbedder(), share=0.7)
    after = run(shortened(Careful(extractive), plain))
    assert isinstance(after, str)
    messages = run(shortened(Careful(extractive), chat))
    assert messages[0] is chat[0]
    for before, left in ((plain, after), (chat[1].content, messages[1].content)):
        assert "painted teal" in left
        assert len(left) < len(before)
        assert left.split("-----\n")[0] == before.split("-----\n")[0]
        assert left.split("-----\n")[-1] == before.split("-----\n")[-1]


def test_a_text_that_was_shortened_comes_back_in_its_place_with_all_else() -> None:
    before = ChatMessage(
        role="user",
        blocks=[TextBlock(text=f"<context>{DOORS}</context>"), PICTURE, TextBlock(text=ASKED)],
        additional_kwargs={"x": 1},
    )
    (after,) = run(shortened(Careful(Extractive(HashingEmbedder(), share=0.93)), [before]))
    assert after.additional_kwargs == {"x": 1}
    assert after.blocks[1:] == before.blocks[1:]
    assert len(after.blocks[0].text) < len(before.blocks[0].text)
    assert before.blocks[0].text == f"<context>{DOORS}</context>"


def test_a_block_that_lost_all_its_text_is_left_out() -> None:
    chunk = f"<context>{DOORS}</context>"
    core = to_core([ChatMessage(role="user", blocks=[TextBlock(text=chunk), PICTURE, TextBlock(text=ASKED)])])
    parts = core[0].parts
    emptied = Message("user", (type(parts[0])("", source=parts[0].source), *parts[1:]), source=core[0].source)
    (after,) = from_core([emptied])
    assert after.blocks == [PICTURE, TextBlock(text=ASKED)]


def test_a_message_from_elsewhere_is_made_anew() -> None:
    made = from_core([Message.of("user", "b"), Message("tool", answers=("c1",))])
    assert [(one.role.value, one.content or "") for one in made] == [("user", "b"), ("tool", "")]
    assert made[1].additional_kwargs == {"tool_call_id": "c1"}


async def test_both_forms_leave_the_same() -> None:
    prompt: Any
    for prompt in (DEFAULT_TEXT_QA_PROMPT.format(context_str=DOORS, query_str=ASKED), TALK):
        for compressor in (Extractive(HashingEmbedder()), Lossless()):
            assert run(shortened(Careful(compressor), prompt)) == await arun(shortened(Careful(compressor), prompt))


@pytest.mark.parametrize("prompt", ["", "Hi", []])
def test_next_to_nothing_stays(prompt: Any) -> None:
    assert run(shortened(Careful(Lossless()), prompt)) == prompt
