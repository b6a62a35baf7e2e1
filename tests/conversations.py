"""Conversations for the suites of compression."""

from __future__ import annotations

from typing import Any

from dispatch_core import Extractive, HashingEmbedder, Message, Part

LLAMAINDEX = (
    "Context information is below.\n---------------------\n{context}\n---------------------\n"
    "Given the context information and not prior knowledge, answer the query.\nQuery: {question}\nAnswer: "
)
DOORS = """# Harrow House

Harrow House was built in 1901 by Dr. A. B. Smith (see [12]). Its main door is painted teal. Tickets cost 3.50 euros.

The garden is open all year. Benches stand under the old trees. Dogs are welcome there.

# Pell Gallery

The gallery lies on a hill. Its main door is painted ochre. Its café sells cakes, soup and tea.
Nobody knows who planted the lime trees. The road up is steep and narrow."""
ASKED = "What colour is the main door of Harrow House?"


def rag(context: str = DOORS, question: str = ASKED) -> list[Message]:
    """A system prompt, and context and question in one message as LlamaIndex puts them."""
    prompt = LLAMAINDEX.format(context=context, question=question)
    return [Message.of("system", "You are  a guide.\n\n\n\nBe kind."), Message.of("user", prompt)]


def user(text: str) -> Message:
    return Message.of("user", text)


def assistant(text: str, *calls: str) -> Message:
    return Message("assistant", (Part(text),), calls=calls)


def tool(text: str, answers: str) -> Message:
    return Message("tool", (Part(text),), answers=(answers,))


def context_of(message: Message) -> str:
    """What stands in the frame of LlamaIndex."""
    return message.text.split("---------------------")[1].strip()


class Counting(Extractive):
    """Counts how often it is asked, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__(HashingEmbedder())
        self.asked = 0
        self.error = error

    def compress(self, messages: Any, budget: int | None = None) -> Any:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return super().compress(messages, budget)

    async def acompress(self, messages: Any, budget: int | None = None) -> Any:
        return self.compress(messages, budget)
