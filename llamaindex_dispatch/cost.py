"""What a call will probably cost, from the texts that are sent."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, TextBlock, ToolCallBlock

from dispatch_core.ports import Limiter
from dispatch_core.types import Cost

_MAX_TOKENS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "num_predict")
_PICTURE = "x" * 3200  # about 800 tokens, what providers charge for a picture of ordinary size
_PICTURES = ("image", "document", "audio", "video")


def expected(
    limiter: Limiter,
    prompt: str | Sequence[ChatMessage],
    *settings: Mapping[str, Any],
    model: str,
) -> Cost:
    """The estimate over messages and tools; ``settings`` are searched in order for a limit of the answer's length."""
    messages = [("user", prompt)] if isinstance(prompt, str) else [(one.role.value, _text(one)) for one in prompt]
    # Providers charge a few tokens for every message, and for the start of the answer.
    texts = [f"<|{role}|>\n{text}\n" for role, text in messages] + ["<|assistant|>"]
    tools = next((options["tools"] for options in settings if options.get("tools")), None)
    if tools:
        texts.append(json.dumps(tools, default=str))
    limits = (options.get(name) for options in settings for name in _MAX_TOKENS)
    most = next((limit for limit in limits if isinstance(limit, int) and limit > 0), None)
    return limiter.estimate("\n".join(texts), max_tokens=most, model=model)


def _text(message: ChatMessage) -> str:
    return "\n".join(map(_block_text, message.blocks))


def _block_text(block: Any) -> str:
    """What is charged for a block: texts, thoughts and the parts of tool calls and results as they are."""
    if block.block_type in _PICTURES:
        return _PICTURE
    if isinstance(block, TextBlock):
        return block.text
    if isinstance(block, ToolCallBlock):
        kwargs = block.tool_kwargs
        return f"{block.tool_name} {kwargs if isinstance(kwargs, str) else json.dumps(kwargs, default=str)}"
    for name in ("content", "blocks", "cited_content"):
        content = getattr(block, name, None)
        if isinstance(content, str):
            return content
        if content:
            return "\n".join(map(_block_text, content if isinstance(content, list) else [content]))
    return ""
