"""`History`: of a long conversation, the system prompt and the last turns. Pure but for its form."""

from __future__ import annotations

from collections.abc import Sequence

from dispatch_core.compress.layout import estimated, tokens_of
from dispatch_core.compress.settings import check_budget, check_tokens
from dispatch_core.messages import Compressed, Count, Message


class History:
    """Leaves the oldest turns out until the rest fits, as LangChain's ``trim_messages`` does with
    ``strategy="last", include_system=True, start_on="human"``.

    The system messages at the beginning stay, and as many of the last messages as fit; these begin with one of the
    user, and a tool's result never comes without the call it answers. Other than there, the last message of the user
    and what follows it stay even if they do not fit, and a conversation within the budget is not touched.

    The aim is the budget of the call, or ``tokens``; without either nothing is left out. ``count`` counts tokens,
    estimated by default. Raises `ConfigError` for settings that cannot work.
    """

    def __init__(self, tokens: int | None = None, *, count: Count | None = None) -> None:
        self._tokens = None if tokens is None else check_tokens(tokens)
        self._count = count or estimated

    def compress(self, messages: Sequence[Message], budget: int | None = None) -> Compressed:
        """See `Compressor`."""
        aim = check_budget(budget) or self._tokens
        sizes = [tokens_of([message], self._count) for message in messages]
        before = sum(sizes)
        if aim is None or before <= aim:
            return Compressed(tuple(messages), before, before)
        led = next((at for at, message in enumerate(messages) if message.role != "system"), len(messages))
        start = _start(messages, sizes, led, aim - sum(sizes[:led]))
        kept = (*messages[:led], *messages[start:])
        dropped = tuple(message.text for message in messages[led:start])
        return Compressed(kept, before, before - sum(sizes[led:start]), dropped)

    async def acompress(self, messages: Sequence[Message], budget: int | None = None) -> Compressed:
        return self.compress(messages, budget)


def _start(messages: Sequence[Message], sizes: Sequence[int], led: int, room: int) -> int:
    """Where the turns begin that stay: the first message of a user from which all fits, else his last."""
    within = _within_calls(messages)
    start = led
    size = sum(sizes[led:])
    for at in range(led, len(messages)):
        if messages[at].role == "user" and at not in within:
            start = at
            if size <= room:
                break
        size -= sizes[at]
    return start


def _within_calls(messages: Sequence[Message]) -> set[int]:
    """The messages that stand between a tool call and the last of its results, or are one."""
    called: dict[str, int] = {}
    within: set[int] = set()
    for at, message in enumerate(messages):
        for answer in message.answers:
            within.update(range(called.get(answer, at) + 1, at + 1))
        called.update(dict.fromkeys(message.calls, at))
    return within
