"""What a call is expected to cost: texts by their length, pictures at a flat rate."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.base.llms.types import (
    ChatMessage,
    CitableBlock,
    DocumentBlock,
    ImageBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from dispatch_core import TokenLimiter
from llamaindex_dispatch.cost import expected

LIMITER = TokenLimiter(rpm=60)


def tokens(*blocks: Any, **options: Any) -> int:
    message = ChatMessage(role="user", blocks=list(blocks))
    return expected(LIMITER, [message], {"max_tokens": 1, **options}, model="m").input_tokens


@pytest.mark.parametrize(
    "block",
    [
        ThinkingBlock(content="two words"),
        ThinkingBlock(),
        ToolCallBlock(tool_name="add", tool_kwargs={"a": 1}),
        ToolCallBlock(tool_name="add", tool_kwargs='{"a": 1}'),
        CitableBlock(title="t", source="s", content=[TextBlock(text="two words")]),
    ],
)
def test_thoughts_tools_and_quotations_are_charged_by_their_text(block: Any) -> None:
    assert tokens(block) < 40
    longer = ThinkingBlock(content="two words " * 100)
    assert tokens(block, longer) > tokens(block) + 100


@pytest.mark.parametrize(
    "block",
    [
        ImageBlock(image=b"\x89PNG\r\n\x1a\n"),
        DocumentBlock(data=b"%PDF"),
        CitableBlock(title="t", source="s", content=[ImageBlock(image=b"\x89PNG\r\n\x1a\n")]),
    ],
)
def test_pictures_and_documents_are_charged_as_pictures(block: Any) -> None:
    assert tokens(block) > 300


def test_a_limit_that_is_no_number_is_no_limit() -> None:
    cost = expected(LIMITER, "Hi", {"max_tokens": "many"}, {"max_tokens": 7}, model="m")
    assert cost.output_tokens == 7
