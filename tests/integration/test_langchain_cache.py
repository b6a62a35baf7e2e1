"""The LangChain cache under real chat models: what is served, what is asked again, and what must never happen."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from fakes import CountingEmbedder
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import FakeListChatModel, FakeListLLM, GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult, Generation
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field
from servers import free_port

from dispatch_core import ConfigError, HashingEmbedder, SentenceTransformerEmbedder, StoreError
from dispatch_core.simulate import Simulator, SimulatorConfig
from langchain_dispatch import SemanticCache, SemanticRedisCache

HANDBOOK_PROMPT = "You are the assistant of a bank. " + "Be polite, be exact, never invent a number. " * 60

FORTY_QUESTIONS = [
    "What is 1+1?",
    "Tell me one joke",
    "What is the capital of France?",
    "How do I bake bread?",
    "Who wrote Hamlet?",
    "What does a bond yield measure?",
    "How far is the moon?",
    "Name three prime numbers",
    "What is photosynthesis?",
    "How do I reset my password?",
    "When did the Berlin wall fall?",
    "What is a black hole?",
    "How do I tie a bow tie?",
    "Translate hello into Spanish",
    "What is the boiling point of water?",
    "How many continents are there?",
    "What is compound interest?",
    "Who painted the Mona Lisa?",
    "Write a haiku about rain",
    "What is the largest ocean?",
    "How do vaccines work?",
    "Explain recursion to a child",
    "What is the speed of light?",
    "Who was the first man on the moon?",
    "How do I change a flat tyre?",
    "What is the currency of Japan?",
    "Give me a synonym of happy",
    "What causes earthquakes?",
    "How do I boil an egg?",
    "Which planet has rings?",
    "What is a mortgage?",
    "How do bees make honey?",
    "What is the opposite of cold?",
    "Who invented the telephone?",
    "Summarise the plot of Odyssey",
    "What is a prime minister?",
    "How do I say thank you in Japanese?",
    "What is the tallest mountain?",
    "How long is a marathon?",
    "What is the chemical symbol of gold?",
]


class EchoModel(FakeListChatModel):
    """Answers ``answer to: <last message>``, counts its calls, and has parameters that a cache must respect."""

    responses: list[str] = Field(default_factory=list)
    calls: list[str] = Field(default_factory=list)
    model_name: str = "echo"
    metadata_of_answer: dict[str, Any] = Field(default_factory=dict)

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.model_name}

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        self.calls.append(str(messages[-1].content))
        answer = AIMessage(
            content=f"answer to: {messages[-1].content}",
            response_metadata=dict(self.metadata_of_answer),
            usage_metadata={"input_tokens": 10, "output_tokens": 5, "total_tokens": 15},
        )
        return ChatResult(generations=[ChatGeneration(message=answer)])


@pytest.fixture
def cache(minilm: SentenceTransformerEmbedder) -> Iterator[SemanticCache]:
    made = SemanticCache(embedder=minilm)
    yield made
    made.close()


@pytest.fixture
def model(cache: SemanticCache) -> EchoModel:
    return EchoModel(cache=cache)


def test_forty_questions_behind_a_long_system_prompt_give_no_wrong_answer(
    cache: SemanticCache, model: EchoModel
) -> None:
    for question in FORTY_QUESTIONS:
        answer = model.invoke([SystemMessage(HANDBOOK_PROMPT), HumanMessage(question)])
        assert answer.content == f"answer to: {question}"
    assert cache.stats().hits == 0
    for question in FORTY_QUESTIONS:
        answer = model.invoke([SystemMessage(HANDBOOK_PROMPT), HumanMessage(question)])
        assert answer.content == f"answer to: {question}"
    assert cache.stats().exact_hits == len(FORTY_QUESTIONS)
    assert len(model.calls) == len(FORTY_QUESTIONS)


def test_embedding_the_envelope_would_answer_unrelated_questions_alike(
    minilm: SentenceTransformerEmbedder,
) -> None:
    envelopes = [HANDBOOK_PROMPT + question for question in ("What is 1+1?", "Tell me one joke")]
    first, second = minilm.embed(envelopes)
    assert first @ second > 0.9999, "the naive form fails: the encoder never reads as far as the question"


def test_another_wording_is_answered_from_the_cache(cache: SemanticCache, model: EchoModel) -> None:
    model.invoke("What is the capital of France?")
    answer = model.invoke("whats the capital of France")
    assert answer.content == "answer to: What is the capital of France?"
    assert answer.response_metadata["dispatch"]["cache_hit"] == "semantic"
    assert answer.response_metadata["dispatch"]["saved_usage"] == {"input_tokens": 10, "output_tokens": 5}
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["total_tokens"] == 0
    assert cache.stats().saved.total == 15


async def test_another_wording_is_answered_from_the_cache_async(cache: SemanticCache, model: EchoModel) -> None:
    await model.ainvoke("What is the capital of France?")
    answer = await model.ainvoke("whats the capital of France")
    assert answer.response_metadata["dispatch"]["cache_hit"] == "semantic"
    assert len(model.calls) == 1


@pytest.mark.parametrize(
    ("asked", "next_asked"),
    [
        ("How much is a rental for 2 days?", "How much is a rental for 3 days?"),
        ("Can I cancel my plan?", "Why can't I cancel my plan?"),
        ("Convert 5 miles to km", "Convert 5 km to miles"),
    ],
)
def test_close_wordings_with_another_answer_are_asked_again(model: EchoModel, asked: str, next_asked: str) -> None:
    model.invoke(asked)
    assert model.invoke(next_asked).content == f"answer to: {next_asked}"


RETRIEVAL = (
    "Answer the question based only on the following context:\n{context}\n\nQuestion: {question}",
    "Use the following pieces of retrieved context to answer the question. Be brief.\nQuestion: {question} \n"
    "Context: {context} \nAnswer:",
)


@pytest.mark.parametrize("template", RETRIEVAL)
def test_of_a_prompt_of_retrieval_the_question_is_compared_and_the_context_matched(
    model: EchoModel, template: str
) -> None:
    def ask(question: str, page: str) -> int:
        context = f"From page {page}. " + "The shop rents bikes by the day, by the week and for whole seasons. " * 40
        model.invoke(template.format(context=context, question=question))
        return len(model.calls)

    assert ask("How do I reset my password?", "one") == 1
    assert ask("How can I reset my password?", "one") == 1, "in other words"
    assert ask("How can I reset my password?", "two") == 2, "another context"
    assert ask("How do I delete my account?", "one") == 3, "another question"


def test_one_embedding_per_miss_and_none_per_exact_hit() -> None:
    embedder = CountingEmbedder()
    model = EchoModel(cache=SemanticCache(embedder=embedder))
    model.invoke("How do I bake bread?")
    assert embedder.texts == ["How do I bake bread?"]
    model.invoke("How do I bake bread?")
    assert len(embedder.texts) == 1


async def test_one_embedding_per_miss_and_none_per_exact_hit_async() -> None:
    embedder = CountingEmbedder()
    model = EchoModel(cache=SemanticCache(embedder=embedder))
    await model.ainvoke("How do I bake bread?")
    await model.ainvoke("How do I bake bread?")
    assert embedder.texts == ["How do I bake bread?"]


def test_the_same_prompt_on_two_models_is_two_entries(cache: SemanticCache) -> None:
    large = EchoModel(cache=cache, model_name="large")
    small = EchoModel(cache=cache, model_name="small")
    for _ in range(2):
        large.invoke("How do I bake bread?")
        small.invoke("How do I bake bread?")
    assert (len(large.calls), len(small.calls)) == (1, 1)


def test_the_same_last_turn_of_another_conversation_is_asked_again(model: EchoModel) -> None:
    model.invoke([HumanMessage("I have a cat."), AIMessage("Nice."), HumanMessage("What should it eat?")])
    model.invoke([HumanMessage("I have a python."), AIMessage("Nice."), HumanMessage("What should it eat?")])
    assert len(model.calls) == 2


def test_a_turn_that_came_from_the_cache_does_not_change_the_key_of_the_next(model: EchoModel) -> None:
    """A raw key holds the ids, usage and metadata of earlier answers, which differ after a hit."""
    for _ in range(2):
        history: list[BaseMessage] = [HumanMessage("How do I bake bread?")]
        history.append(model.invoke(history))
        model.invoke([*history, HumanMessage("And without yeast?")])
    assert len(model.calls) == 2


def test_every_hit_has_a_message_id_of_its_own(model: EchoModel) -> None:
    ids = {model.invoke("How do I bake bread?").id for _ in range(3)}
    assert len(ids) == 3


def test_tool_calls_are_replayed_with_fresh_ids(cache: SemanticCache) -> None:
    call = {"name": "weather", "args": {"city": "Ghent"}, "id": "call_1", "type": "tool_call"}
    raw = {"tool_calls": [{"id": "call_1", "function": {"name": "weather", "arguments": '{"city": "Ghent"}'}}]}
    answer = AIMessage(content="", tool_calls=[call], additional_kwargs=raw)
    model = GenericFakeChatModel(messages=iter([answer]), cache=cache)
    model.invoke("Weather in Ghent?")
    replayed = model.invoke("Weather in Ghent?")
    assert isinstance(replayed, AIMessage)
    [again] = replayed.tool_calls
    assert (again["name"], again["args"]) == ("weather", {"city": "Ghent"})
    assert again["id"] != "call_1"
    assert replayed.additional_kwargs["tool_calls"][0]["id"] == again["id"]


@pytest.mark.parametrize(
    "messages",
    [
        [HumanMessage("How do I bake bread?\nAnswer in French.")],
        [HumanMessage([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}])],
        [
            HumanMessage("bread?"),
            AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "1", "type": "tool_call"}]),
            ToolMessage("flour", tool_call_id="1"),
            HumanMessage("How do I bake bread?"),
        ],
        [HumanMessage("word " * 600)],
        [HumanMessage("")],
        [HumanMessage("broken \ud800 text")],
        [HumanMessage("x" * 1_000_000)],
        [HumanMessage("如何重置密码？")],
    ],
    ids=["lines", "image", "tool-message", "long", "empty", "surrogate", "megabyte", "chinese"],
)
def test_what_the_encoder_cannot_read_is_matched_exactly(minilm: SentenceTransformerEmbedder, messages: Any) -> None:
    cache = SemanticCache(embedder=minilm)
    model = EchoModel(cache=cache)
    model.invoke(messages)
    model.invoke(messages)
    assert len(model.calls) == 1
    assert cache.stats().exact_hits == 1
    assert cache.stats().failures == 0
    model.invoke([*messages[:-1], HumanMessage("something else entirely")])
    assert cache.stats().semantic_hits == 0


def test_special_tokens_in_a_question_are_text(model: EchoModel) -> None:
    model.invoke("What does <|endoftext|> mean?")
    assert model.invoke("What does <|endoftext|> mean?").content == "answer to: What does <|endoftext|> mean?"


@pytest.mark.parametrize("reason", ["length", "content_filter", "max_tokens"])
def test_an_answer_that_was_cut_off_is_never_replayed(cache: SemanticCache, reason: str) -> None:
    model = EchoModel(cache=cache, metadata_of_answer={"finish_reason": reason})
    model.invoke("Tell me everything")
    model.invoke("Tell me everything")
    assert len(model.calls) == 2


def test_an_empty_answer_is_never_replayed(cache: SemanticCache) -> None:
    model = FakeListChatModel(responses=["", "an answer"], cache=cache)
    model.invoke("How do I bake bread?")
    assert model.invoke("How do I bake bread?").content == "an answer"


def test_a_schema_class_in_the_key_goes_past_the_cache(cache: SemanticCache) -> None:
    """Two classes of one name look the same in LangChain's key."""

    class Reply(BaseModel):
        text: str

    model = ChatOpenAI(model="m", api_key="k")
    key = model._get_llm_string(response_format=Reply)
    assert cache.lookup("[]", key) is None
    cache.update("[]", key, [Generation(text="wrong")])
    assert cache.lookup("[]", key) is None
    assert cache.stats().bypassed == 2


def test_an_object_that_is_not_json_is_not_stored(cache: SemanticCache) -> None:
    class Parsed(BaseModel):
        value: int

    message = AIMessage("1", additional_kwargs={"grounding": Parsed(value=1)})
    cache.update("prompt", "model", [ChatGeneration(message=message)])
    assert cache.lookup("prompt", "model") is None


def test_a_foreign_class_in_the_store_is_not_constructed(cache: SemanticCache) -> None:
    hostile = b'[{"lc":1,"type":"constructor","id":["langchain","prompts","prompt","PromptTemplate"],"kwargs":{}}]'
    ticket = cache.dispatcher.unlooked(_query(cache))
    cache.dispatcher.finish(ticket, hostile)
    cache.flush()
    model = EchoModel(cache=cache)
    assert model.invoke("How do I bake bread?").content == "answer to: How do I bake bread?"


def test_completion_models_are_cached_too(cache: SemanticCache) -> None:
    model = FakeListLLM(responses=["first", "second"], cache=cache)
    assert model.invoke("How do I bake bread?") == "first"
    assert model.invoke("how do i bake bread") == "first"


def test_the_global_cache_serves_every_model(minilm: SentenceTransformerEmbedder) -> None:
    set_llm_cache(SemanticCache(embedder=minilm))
    try:
        model = EchoModel()
        model.invoke("How do I bake bread?")
        model.invoke("How do I bake bread?")
        assert len(model.calls) == 1
    finally:
        set_llm_cache(None)


def test_namespaces_never_meet_and_clear_touches_one(minilm: SentenceTransformerEmbedder, valkey_url: str) -> None:
    ours, theirs = uuid4().hex, uuid4().hex
    mine = EchoModel(cache=SemanticRedisCache(valkey_url, embedder=minilm, namespace=ours))
    other_cache = SemanticRedisCache(valkey_url, embedder=minilm, namespace=theirs)
    other = EchoModel(cache=other_cache)
    mine.invoke("How do I bake bread?")
    other.invoke("How do I bake bread?")
    assert (len(mine.calls), len(other.calls)) == (1, 1)
    other_cache.clear()
    mine.invoke("How do I bake bread?")
    other.invoke("How do I bake bread?")
    assert (len(mine.calls), len(other.calls)) == (1, 2)


def test_two_caches_share_one_redis(minilm: SentenceTransformerEmbedder, redis_like_url: str) -> None:
    namespace = uuid4().hex
    first = SemanticRedisCache(redis_like_url, embedder=minilm, namespace=namespace)
    second = SemanticRedisCache(redis_like_url, embedder=minilm, namespace=namespace)
    EchoModel(cache=first).invoke("What is the capital of France?")
    first.flush()
    answer = EchoModel(cache=second).invoke("whats the capital of France")
    assert answer.response_metadata["dispatch"]["cache_hit"] == "semantic"


def test_an_unreachable_redis_is_a_miss_and_logged_once(
    minilm: SentenceTransformerEmbedder, caplog: pytest.LogCaptureFixture
) -> None:
    cache = SemanticRedisCache(f"redis://127.0.0.1:{free_port()}", embedder=minilm)
    model = EchoModel(cache=cache)
    with caplog.at_level(logging.WARNING, "dispatch_core"):
        for _ in range(8):
            assert model.invoke("How do I bake bread?").content == "answer to: How do I bake bread?"
            cache.flush()
    assert len(model.calls) == 8
    assert cache.stats().failures >= 8
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2, messages
    assert not any("bread" in message for message in messages)


async def test_an_unreachable_redis_is_a_miss_async(minilm: SentenceTransformerEmbedder) -> None:
    cache = SemanticRedisCache(f"redis://127.0.0.1:{free_port()}", embedder=minilm)
    model = EchoModel(cache=cache)
    assert (await model.ainvoke("How do I bake bread?")).content == "answer to: How do I bake bread?"


def test_on_error_raise_lets_the_error_through(minilm: SentenceTransformerEmbedder) -> None:
    cache = SemanticRedisCache(f"redis://127.0.0.1:{free_port()}", embedder=minilm, on_error="raise")
    with pytest.raises(StoreError):
        EchoModel(cache=cache).invoke("How do I bake bread?")


def test_wrong_settings_are_refused_with_the_way_out() -> None:
    with pytest.raises(ConfigError, match=r"sqlite:///file\.db"):
        SemanticCache(store="postgres://x")
    with pytest.raises(ConfigError, match="cosine"):
        SemanticCache(threshold=92)
    with pytest.raises(ConfigError, match="index"):
        SemanticRedisCache(index="flat")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="on_error"):
        SemanticCache(on_error="ignore")  # type: ignore[arg-type]


def test_langchain_embeddings_serve_as_the_embedder() -> None:
    cache = SemanticCache(embedder=DeterministicFakeEmbedding(size=32))
    model = EchoModel(cache=cache)
    model.invoke("How do I bake bread?")
    model.invoke("How do I bake bread?")
    assert len(model.calls) == 1
    assert cache.stats().failures == 0


async def test_a_slow_encoder_never_holds_the_event_loop(minilm: SentenceTransformerEmbedder) -> None:
    """The loop keeps turning while texts are embedded: it counts turns that a blocked loop could not make."""
    cache = SemanticCache(embedder=minilm)
    model = EchoModel(cache=cache)
    questions = [f"{question} {n}" for n in range(3) for question in FORTY_QUESTIONS]
    asked = asyncio.ensure_future(asyncio.gather(*(model.ainvoke(question) for question in questions)))
    turns = 0
    while not asked.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > len(questions)
    assert len(model.calls) == len(questions)


def test_chat_openai_over_http_is_asked_once(minilm: SentenceTransformerEmbedder) -> None:
    cache = SemanticCache(embedder=minilm)
    with Simulator(SimulatorConfig(latency=0)) as provider:
        model = ChatOpenAI(model="sim", base_url=provider.url, api_key="k", max_retries=0, cache=cache)
        first = model.invoke("What is the capital of France?")
        again = model.invoke("What is the capital of France?")
        other = model.invoke("whats the capital of France")
        assert first.content == again.content == other.content
        assert provider.stats().requests == 1
    assert cache.stats().saved.total == 2 * (first.usage_metadata or {})["total_tokens"]


def _query(cache: SemanticCache) -> Any:
    from langchain_core.load import dumps

    from langchain_dispatch.query import query_of

    model = EchoModel()
    return query_of(dumps([HumanMessage("How do I bake bread?")]), model._get_llm_string(), cache.namespace)


# What the cache says of itself


@pytest.mark.parametrize("kind", [FakeListChatModel, FakeListLLM])
def test_explain_says_of_a_call_what_the_call_would_find(kind) -> None:
    cache = SemanticCache(embedder=HashingEmbedder(), threshold=0.5)
    model = kind(responses=["Paris."], cache=cache)
    model.invoke("What is the capital of France?")
    assert cache.explain("What is the capital of France?", model).reason == "exact"
    assert cache.explain("what is the capital of france", model).hit
    assert cache.explain("How do I bake bread?", model).reason == "below-threshold"
    assert cache.explain(
        [SystemMessage("Be brief."), HumanMessage("What is the capital of France?")], model
    ).reason in (
        "empty",
        "below-threshold",
        "several-lines",
    )


def test_a_wrong_hit_is_taken_back() -> None:
    cache = SemanticCache(embedder=HashingEmbedder(), threshold=0.5)
    model = FakeListChatModel(responses=["wrong for the second", "right"], cache=cache)
    model.invoke("What is the capital of France?")
    hit = model.invoke("what is the capital of france")
    assert cache.reject(hit.response_metadata["dispatch"]["hit_id"])
    assert model.invoke("what is the capital of france").content == "right"
    assert cache.stats().rejected == 1


def test_a_misspelt_option_is_refused() -> None:
    with pytest.raises(TypeError, match="shadwo"):
        SemanticCache(embedder=HashingEmbedder(), shadwo=True)
    cache = SemanticCache(embedder=HashingEmbedder(), tags=["prices"])
    FakeListChatModel(responses=["8 euros"], cache=cache).invoke("How much is parking?")
    with pytest.raises(TypeError, match="tag"):
        cache.clear(tag=["rates"])
    cache.clear(tags=["rates"])
    assert cache.dispatcher.cache.stored_in.clear(tags=["prices"]) == 1
