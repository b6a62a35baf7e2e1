"""A compressor at work fails open: what it raises, and what it gives back in another shape, is not sent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dispatch_core import Message, Part
from dispatch_core._flow import run
from dispatch_core.compress import Careful
from dispatch_core.messages import Compressed


@pytest.mark.parametrize("gives", ["nothing", "a list", "fewer parts"])
def test_what_a_compressor_gives_back_in_another_shape_is_not_sent(gives: str) -> None:
    class Odd:
        def compress(self, messages: Any, budget: int | None = None) -> Any:
            if gives == "a list":
                return list(messages)
            short = tuple(replace(message, parts=message.parts[:1]) for message in messages)
            return None if gives == "nothing" else Compressed(short, 9, 5)

        async def acompress(self, messages: Any, budget: int | None = None) -> Any:
            return self.compress(messages)

    whole = (Message("user", (Part("one"), Part("two")), source="its source"),)
    assert run(Careful(Odd()).shortened(whole)) == whole
