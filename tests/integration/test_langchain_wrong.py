"""Six things that semantic caches for LangChain get wrong: each fails in the naive form and holds in ours.

More of each: forty questions behind one system prompt, images, tools, lines and slow encoders in
`test_langchain_cache`; conversations and structured output in `test_langchain_turns`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fakes import CountingEmbedder
from langchain_core.caches import BaseCache
from langchain_core.embeddings import Embeddings
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_models import QUESTION, Scripted

from dispatch_core import HashingEmbedder, SentenceTransformerEmbedder
from dispatch_core.ports import Embedder
from langchain_dispatch import SemanticCache

HANDBOOK = "You are the assistant of a bank. " + "Be polite, be exact, never invent a number. " * 60


def envelope(prompt: str) -> str:
    return prompt


def last_message(prompt: str) -> str:
    return str(json.loads(prompt)[-1]["kwargs"]["content"])


class Naive(BaseCache):
    """A cache as they are often written: nearest neighbour first, the model filtered afterwards."""

    def __init__(self, embedder: Any, text: Callable[[str], str] = last_message) -> None:
        self._embedder, self._text = embedder, text
        self._entries: list[tuple[Any, str, Any]] = []

    def lookup(self, prompt: str, llm_string: str) -> Any:
        vector = self._embedded(prompt)
        if not self._entries:
            return None
        nearest, model, answer = max(self._entries, key=lambda entry: float(entry[0] @ vector))
        return answer if float(nearest @ vector) > 0.92 and model == llm_string else None

    def update(self, prompt: str, llm_string: str, return_val: Any) -> None:
        self._entries.append((self._embedded(prompt), llm_string, return_val))

    async def alookup(self, prompt: str, llm_string: str) -> Any:
        return self.lookup(prompt, llm_string)

    async def aupdate(self, prompt: str, llm_string: str, return_val: Any) -> None:
        self.update(prompt, llm_string, return_val)

    def clear(self, **kwargs: Any) -> None:
        self._entries.clear()

    def _embedded(self, prompt: str) -> Any:
        return self._embedder.embed([self._text(prompt)])[0]


def answers(cache: BaseCache, *questions: list[BaseMessage]) -> list[str]:
    """What a model with this cache says, one question after the other: ``answer <number of the call>``."""
    model = Scripted(cache=cache)
    return [str(model.invoke(question).content) for question in questions]


RIGHT = ["answer 1", "answer 2"]
WRONG = ["answer 1", "answer 1"]


def test_1_an_envelope_of_json_makes_all_questions_alike(minilm: SentenceTransformerEmbedder) -> None:
    asked = [[SystemMessage(HANDBOOK), HumanMessage(text)] for text in ("What is 1+1?", "Tell me one joke")]
    assert answers(Naive(minilm, envelope), *asked) == WRONG
    assert answers(SemanticCache(embedder=minilm), *asked) == RIGHT


@pytest.mark.parametrize(("make", "calls"), [(Naive, [1, 3]), (None, [1, 1])], ids=["naive", "ours"])
def test_2_a_model_filtered_after_the_search_is_never_found(make: Any, calls: list[int]) -> None:
    embedder = HashingEmbedder()
    cache = SemanticCache(embedder=embedder) if make is None else make(embedder)
    models = [Scripted(responses=[name], cache=cache) for name in ("large", "small")]
    for _ in range(3):
        for model in models:
            model.invoke(QUESTION)
    assert [len(model.calls) for model in models] == calls


def test_3_the_last_message_alone_is_another_conversations_question() -> None:
    asked: list[list[BaseMessage]] = [
        [HumanMessage(f"I have a {pet}."), AIMessage("Nice."), HumanMessage("What should it eat?")]
        for pet in ("cat", "python")
    ]
    assert answers(Naive(HashingEmbedder()), *asked) == WRONG
    assert answers(SemanticCache(embedder=HashingEmbedder()), *asked) == RIGHT


class Watched(Embeddings):
    """Notes the threads in which it embeds."""

    def __init__(self) -> None:
        self.threads: set[int] = set()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.threads.add(threading.get_ident())
        return [[1.0, 0.0] for _ in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]

    def embed(self, texts: list[str]) -> Any:
        return np.asarray(self.embed_documents(texts))


async def test_4_the_event_loop_never_embeds() -> None:
    naive, ours = Watched(), Watched()

    await Scripted(cache=Naive(naive)).ainvoke(QUESTION)
    assert naive.threads == {threading.get_ident()}
    await Scripted(cache=SemanticCache(embedder=ours)).ainvoke(QUESTION)
    assert ours.threads
    assert threading.get_ident() not in ours.threads


@pytest.mark.parametrize(("make", "embedded"), [(Naive, 2), (None, 1)], ids=["naive", "ours"])
def test_5_a_miss_embeds_once(make: Any, embedded: int) -> None:
    embedder = CountingEmbedder()
    cache = SemanticCache(embedder=embedder) if make is None else make(embedder)
    Scripted(cache=cache).invoke(QUESTION)
    assert len(embedder.texts) == embedded


def test_6_what_the_encoder_never_reads_still_counts(minilm: SentenceTransformerEmbedder) -> None:
    long = "Here is the report. " + "It says this and that. " * 100
    asked: list[list[BaseMessage]] = [[HumanMessage(long + end)] for end in ("Summarise it.", "Translate it.")]
    assert answers(Naive(minilm), *asked) == WRONG
    assert answers(SemanticCache(embedder=minilm), *asked) == RIGHT


def test_6_nor_can_it_read_a_picture() -> None:
    def texts_only(prompt: str) -> str:
        content = json.loads(prompt)[-1]["kwargs"]["content"]
        return " ".join(block["text"] for block in content if block["type"] == "text")

    asked: list[list[BaseMessage]] = [
        [HumanMessage([{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}])]
        for url in ("data:image/png;base64,AAAA", "data:image/png;base64,BBBB")
    ]
    embedder: Embedder = HashingEmbedder()
    assert answers(Naive(embedder, texts_only), *asked) == WRONG
    assert answers(SemanticCache(embedder=embedder), *asked) == RIGHT
