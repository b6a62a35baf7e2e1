"""Calls that nobody ends: streams dropped in a cycle, prompts announced together."""

from __future__ import annotations

import threading
from typing import Any

import openai
import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_openai import ChatOpenAI

from dispatch_core import Cost, HashingEmbedder
from langchain_dispatch import SemanticCache, TokenRateLimiter
from langchain_dispatch.query import query_of


def test_streams_collected_as_garbage_never_block_the_limiter() -> None:
    """The collector closes them at any moment, also while this thread is inside the limiter."""
    limiter = TokenRateLimiter(rpm=10**7, tpm=10**9)
    model = FakeListChatModel(responses=["abc"], rate_limiter=limiter)

    class Cycle:
        me: Any
        stream: Any

    def work() -> None:
        for _ in range(1500):
            cycle = Cycle()
            cycle.me, cycle.stream = cycle, model.stream("x")
            next(cycle.stream)
            limiter.limiter.acquire(Cost(1)).settle()
            limiter.stats()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(timeout=60)
    assert not thread.is_alive()


def test_a_failure_among_prompts_announced_together_leaves_nothing_open() -> None:
    limiter = TokenRateLimiter(rpm=1000, tpm=10**6)
    model = ChatOpenAI(model="m", base_url="http://127.0.0.1:9", api_key="k", max_retries=0, rate_limiter=limiter)
    with pytest.raises(openai.APIConnectionError):
        model.generate([[HumanMessage("a")], [HumanMessage("b")]])
    assert limiter.stats().open == 0


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (
            [HumanMessage("What is in this picture?", additional_kwargs={"images": ["AAAA"]})],
            [HumanMessage("What is in this picture?", additional_kwargs={"images": ["BBBB"]})],
        ),
        (
            [AIMessage("", additional_kwargs={"function_call": {"arguments": "Paris"}}), HumanMessage("And?")],
            [AIMessage("", additional_kwargs={"function_call": {"arguments": "Rome"}}), HumanMessage("And?")],
        ),
    ],
    ids=["images", "function-call"],
)
def test_what_a_message_carries_besides_its_text_is_part_of_the_question(
    first: list[BaseMessage], second: list[BaseMessage]
) -> None:
    model = FakeListChatModel(responses=["one", "two"], cache=SemanticCache(embedder=HashingEmbedder()))
    assert (model.invoke(first).content, model.invoke(second).content) == ("one", "two")


def test_a_template_on_one_line_is_matched_exactly() -> None:
    asked = "Answer from the context. Context: refunds for unused goods take 3 days. Question: what of {} goods?"
    model = FakeListChatModel(
        responses=["one", "two"], cache=SemanticCache(embedder=HashingEmbedder(), threshold=0.5)
    )
    assert model.invoke(asked.format("used")).content != model.invoke(asked.format("unused")).content


def test_tools_in_the_settings_of_a_model_are_matched_exactly() -> None:
    model = ChatOpenAI(model="m", api_key="k", model_kwargs={"tools": [{"type": "function"}]})
    query = query_of("a question", model._get_llm_string(), "")
    assert query is not None
    assert not query.semantic


def test_an_answer_with_endless_metadata_is_not_stored_and_fails_nothing() -> None:
    endless: dict[str, Any] = {}
    endless["me"] = endless
    cache = SemanticCache(embedder=HashingEmbedder())
    from langchain_core.outputs import ChatGeneration

    cache.update("p", "m", [ChatGeneration(message=AIMessage("a"), generation_info=endless)])
    assert cache.lookup("p", "m") is None
