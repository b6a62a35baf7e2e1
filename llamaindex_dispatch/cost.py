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


def expected(
    limiter: Limiter,
    prompt: str | Sequence[ChatMessage],
    *settings: Mapping[str, Any],
    model: str,
) -> Cost:
    """The estimate over messages and tools; ``settings`` are searched in order for a limit of the answer's length."""
    texts = [prompt] if isinstance(prompt, str) else [_text(message) for message in prompt]
    tools = next((options["tools"] for options in settings if options.get("tools")), None)
    if tools:
        texts.append(json.dumps(tools, default=str))
    limits = (options.get(name) for options in settings for name in _MAX_TOKENS)
    most = next((limit for limit in limits if isinstance(limit, int) and limit > 0), None)
    return limiter.estimate("\n".join(texts), max_tokens=most, model=model)


def _text(message: ChatMessage) -> str:
    parts = []
    for block in message.blocks:
        if isinstance(block, TextBlock):
            parts.append(block.text)
        elif isinstance(block, ToolCallBlock):
            parts.append(json.dumps(block.tool_kwargs, default=str))
        else:
            parts.append(_PICTURE)
    return "\n".join(parts)
