"""Models of LlamaIndex for the tests, whose HTTP clients are closed again."""

from __future__ import annotations

from typing import Any

from llama_index.llms.openai import OpenAI

_made: list[OpenAI] = []


def openai_at(url: str, **settings: Any) -> OpenAI:
    llm = OpenAI(**{"model": "gpt-4o-mini", "api_base": url, "api_key": "k", "max_retries": 0, **settings})
    _made.append(llm)
    return llm


async def close_clients() -> None:
    while _made:
        llm = _made.pop()
        if llm._client is not None:
            llm._client.close()
        if llm._aclient is not None:
            await llm._aclient.close()
