"""The body of an embedding model's response is read for its tokens; the next one, perhaps a stream, is not."""

from __future__ import annotations

import asyncio
from typing import Any

from llamaindex_dispatch.hearing import Heard, _anote, _expect, _note, heard


class Response:
    """Of httpx, what a hook sees."""

    def __init__(self) -> None:
        self.headers = {"x-ratelimit-limit-requests": "9"}
        self.read_whole = False

    def read(self) -> bytes:
        self.read_whole = True
        return b'{"data": [], "usage": {"prompt_tokens": 7}}'

    async def aread(self) -> bytes:
        return self.read()


def _told(note: Any) -> tuple[Heard, Response]:
    into, first, second = Heard(), Response(), Response()
    _expect(into)
    note(first)
    note(second)
    return into, second


def test_the_body_of_one_response_is_read_and_no_other() -> None:
    into, second = _told(_note)
    assert (into.tokens, second.read_whole, heard()) == (7, False, second.headers)


async def test_it_is_the_same_for_an_async_client() -> None:
    into, first, second = Heard(), Response(), Response()
    _expect(into)
    await _anote(first)
    await asyncio.sleep(0)
    await _anote(second)
    assert (into.tokens, second.read_whole, heard()) == (7, False, second.headers)
