"""What LlamaIndex builds upon an LLM works through `DispatchLLM`, and costs nothing the second time."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from llama_index.core import Document, Settings, VectorStoreIndex
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, CompletionResponse
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.llms import LLM, MockLLM
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.structured_llm import StructuredLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.prompts import PromptTemplate
from llama_index.core.rate_limiter import TokenBucketRateLimiter
from llama_index.core.tools import FunctionTool
from llama_index.core.types import PydanticProgramMode
from llama_index_instrumentation import get_dispatcher
from llamaindex_models import close_clients, openai_at
from pydantic import BaseModel, PrivateAttr

from dispatch_core import (
    ConfigError,
    HashingEmbedder,
    MemoryStore,
    SemanticCache,
    SentenceTransformerEmbedder,
    Threshold,
    TokenLimiter,
)
from dispatch_core.ports import Embedder
from dispatch_core.simulate import Simulator, SimulatorConfig
from llamaindex_dispatch import (
    DispatchCacheHitEvent,
    DispatchFunctionCallingLLM,
    DispatchLLM,
    TokenRateLimiter,
    shared,
)


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator(SimulatorConfig(latency=0)) as simulator:
        yield simulator


@pytest.fixture(autouse=True)
async def _close_clients() -> AsyncIterator[None]:
    yield
    await close_clients()


def exact_cache() -> SemanticCache:
    return SemanticCache(HashingEmbedder(), MemoryStore(), policy=Threshold(1.0))


@pytest.fixture
def llm(sim: Simulator) -> Any:
    limiter = TokenLimiter(rpm=6000, tpm=1_000_000, burst=60)
    return DispatchLLM(openai_at(sim.url), cache=exact_cache(), rate_limiter=limiter)


def user(text: str) -> list[ChatMessage]:
    return [ChatMessage(role="user", content=text)]


class Person(BaseModel):
    """A person."""

    name: str
    age: int


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


ADD = FunctionTool.from_defaults(fn=add)
WHO = PromptTemplate("Who is {name}?")


# The class


def test_the_class_follows_the_wrapped_model(sim: Simulator) -> None:
    calling, plain = DispatchLLM(openai_at(sim.url)), DispatchLLM(MockLLM())
    assert type(calling) is DispatchFunctionCallingLLM
    assert isinstance(calling, FunctionCallingLLM)
    assert isinstance(calling, LLM)
    assert type(plain) is DispatchLLM
    assert not isinstance(plain, FunctionCallingLLM)
    assert calling.class_name() == plain.class_name() == "DispatchLLM"
    assert type(DispatchLLM(openai_at(sim.url, model="gpt-3.5-turbo-instruct"))) is DispatchLLM


def test_what_cannot_be_wrapped_says_what_can(llm: Any) -> None:
    with pytest.raises(TypeError, match="as_structured_llm"):
        DispatchLLM(llm.as_structured_llm(Person))
    with pytest.raises(TypeError, match="not str"):
        DispatchLLM("gpt-4o")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="belongs to the wrapped model"):
        DispatchLLM(MockLLM(), rate_limiter=TokenBucketRateLimiter())  # type: ignore[arg-type]
    limiter = TokenRateLimiter(rpm=60)
    assert DispatchLLM(MockLLM(), rate_limiter=limiter).dispatcher.limiter is limiter.limiter


def test_shared_fields_are_those_of_the_wrapped_model_in_both_directions(sim: Simulator) -> None:
    inner = openai_at(sim.url, system_prompt="Be brief.")
    llm: Any = DispatchLLM(inner, cache=exact_cache())
    manager = CallbackManager([])
    llm.callback_manager = manager
    llm.pydantic_program_mode = PydanticProgramMode.LLM
    assert inner.callback_manager is manager
    assert inner.pydantic_program_mode is PydanticProgramMode.LLM
    inner.system_prompt = "Be kind."
    assert llm.system_prompt == "Be kind."
    assert llm.metadata == inner.metadata
    assert llm.messages_to_prompt is inner.messages_to_prompt
    assert llm.to_payload() == inner.to_payload()


def test_unknown_attributes_are_those_of_the_wrapped_model(llm: Any) -> None:
    assert llm.temperature == llm.llm.temperature
    assert llm._get_model_name() == "gpt-4o-mini"
    llm.temperature = 0.7
    assert llm.llm.temperature == 0.7
    with pytest.raises(AttributeError):
        _ = llm.nothing_of_the_kind


def test_serialising_shows_the_model_and_neither_cache_nor_limiter(llm: Any) -> None:
    data = llm.to_dict()
    assert data["llm"]["model"] == "gpt-4o-mini"
    assert data["class_name"] == "DispatchLLM"
    assert data.keys().isdisjoint({"cache", "rate_limiter"})


def test_copies_share_cache_and_limiter(sim: Simulator, llm: Any) -> None:
    for copied in (copy.copy(llm), copy.deepcopy(llm), llm.model_copy(), pickle.loads(pickle.dumps(llm))):  # noqa: S301
        assert type(copied) is DispatchFunctionCallingLLM
        assert copied.cache is llm.cache
        assert copied.rate_limiter is llm.rate_limiter
        assert copied.dispatcher is llm.dispatcher
        assert copied.llm.model == "gpt-4o-mini"
    copied = copy.deepcopy(llm)
    copied.llm.temperature = 0.9
    assert llm.temperature != 0.9


def test_a_pickle_opened_elsewhere_has_no_cache_and_says_so(
    llm: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pickled = pickle.dumps(llm)
    monkeypatch.setattr(shared, "_alive", {})
    restored = pickle.loads(pickled)  # noqa: S301
    assert restored.cache is None
    assert restored.llm.model == "gpt-4o-mini"
    assert "lost its cache or limiter" in caplog.text


def test_a_pickle_never_finds_an_object_that_took_the_address_of_the_one_it_named() -> None:
    class Weak:
        pass

    for _ in range(50):
        first = Weak()
        address, name = id(first), shared.handle(first)
        assert shared.found(name) is first
        del first
        second = Weak()
        assert shared.handle(second) != name
        assert shared.found(name) is None
        if id(second) == address:
            break
    else:
        pytest.fail("no address was used twice")


def test_a_model_that_is_gone_leaves_no_notes_behind() -> None:
    attached: shared.Attached[list[int]] = shared.Attached(list)
    owner = MockLLM()
    attached.of(owner).append(1)
    assert attached.of(owner) == [1]
    del owner
    gc.collect()
    assert not attached._values


class LangChainLike:
    """What LangChain's limiter and cache have, and ours are not."""

    def lookup(self, prompt: str, llm_string: str) -> None: ...
    def update(self, prompt: str, llm_string: str, return_val: Any) -> None: ...
    def acquire(self, *, blocking: bool = True) -> bool:
        return blocking

    async def aacquire(self, *, blocking: bool = True) -> bool:
        return blocking


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"cache": LangChainLike()}, "takes a SemanticCache of dispatch_core or a Dispatcher"),
        ({"cache": "redis://:secret@host"}, "store_from_url"),
        ({"cache": ""}, "store_from_url"),
        ({"cache": MemoryStore()}, r"SemanticCache\(SentenceTransformerEmbedder\(\), MemoryStore"),
        ({"cache": SemanticCache}, "the class SemanticCache itself"),
        ({"rate_limiter": LangChainLike()}, r"TokenLimiter\(rpm=60\)"),
        ({"rate_limiter": 60}, "not int"),
        ({"rate_limiter": 0}, "not int"),
        ({"rate_limiter": TokenBucketRateLimiter(requests_per_minute=60)}, "belongs to the wrapped model"),
    ],
    ids=["other cache", "url", "empty", "store", "class", "other limiter", "number", "zero", "of the framework"],
)
def test_a_part_of_a_wrong_kind_is_refused_at_once(llm: Any, parts: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as refused:
        DispatchLLM(MockLLM(), **parts)
    assert "secret" not in str(refused.value)
    for name, part in parts.items():
        before = getattr(llm, name), llm.dispatcher
        with pytest.raises(ConfigError, match=says):
            setattr(llm, name, part)
        assert (getattr(llm, name), llm.dispatcher) == before


def test_a_limiter_of_another_make_will_do() -> None:
    class Mine:
        def estimate(self, text: str, *, max_tokens: int | None = None, model: str = "") -> Any: ...
        def acquire(self, cost: Any, *, timeout: float | None = None) -> Any: ...
        async def aacquire(self, cost: Any, *, timeout: float | None = None) -> Any: ...
        def observe(self, feedback: Any, reservation: Any = None) -> None: ...

    mine = Mine()
    assert DispatchLLM(MockLLM(), rate_limiter=mine).dispatcher.limiter is mine


class Counting(MockLLM):
    """A custom model as users write them: configured, and counting, in private attributes."""

    _who: str = PrivateAttr("")
    _calls: int = PrivateAttr(0)
    _prompts: list[str] = PrivateAttr(default_factory=list)

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        self._calls += 1
        self._prompts.append(prompt)
        return CompletionResponse(text=f"{self._who} here")

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return self.complete(prompt, formatted, **kwargs)


async def test_custom_models_set_apart_by_private_attributes_share_no_answer_and_each_keeps_its_own() -> None:
    cache = exact_cache()
    wrapped = []
    for who in ("Ann", "Bob"):
        inner = Counting()
        inner._who = who
        wrapped.append(DispatchLLM(inner, cache=cache))
    for llm in wrapped:
        assert [llm.complete("Who?").text for _ in range(3)] == [f"{llm.llm._who} here"] * 3
        assert (await llm.acomplete("Who?")).text == f"{llm.llm._who} here"
        llm.complete("Where?")
        assert (await llm.acomplete("Where?")).additional_kwargs["dispatch"]["cache_hit"] == "exact"
    assert [llm.llm._calls for llm in wrapped] == [2, 2]


def test_a_new_cache_or_limiter_counts_at_once(sim: Simulator, llm: Any) -> None:
    llm.chat(user("How do I pay?"))
    llm.cache = None
    llm.chat(user("How do I pay?"))
    assert sim.stats().requests == 2


def test_without_llama_index_the_import_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['llama_index'] = None\n"
        "from dispatch_core import MissingExtra\n"
        "try:\n    import llamaindex_dispatch\n"
        "except MissingExtra as error:\n    print(error.extra)"
    )
    path = ":".join(entry for entry in sys.path if entry)
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "llamaindex"


# Tools and structured output


@pytest.mark.parametrize("mode", [PydanticProgramMode.DEFAULT, PydanticProgramMode.FUNCTION])
def test_structured_predict_works_and_asks_once(sim: Simulator, mode: PydanticProgramMode) -> None:
    llm = DispatchLLM(openai_at(sim.url, pydantic_program_mode=mode), cache=exact_cache())
    first = llm.structured_predict(Person, WHO, name="Ann")
    second = llm.structured_predict(Person, WHO, name="Ann")
    assert isinstance(first, Person)
    assert first == second
    assert sim.stats().requests == 1
    assert llm.structured_predict(Person, WHO, name="Bob") != first
    assert sim.stats().requests == 2


@pytest.mark.parametrize("mode", [PydanticProgramMode.DEFAULT, PydanticProgramMode.FUNCTION])
async def test_structured_output_in_all_forms_is_asked_once(sim: Simulator, mode: PydanticProgramMode) -> None:
    llm = DispatchLLM(openai_at(sim.url, pydantic_program_mode=mode), cache=exact_cache())
    results = [list(llm.stream_structured_predict(Person, WHO, {}, name="Ann"))[-1] for _ in range(2)]
    async_stream = await llm.astream_structured_predict(Person, WHO, {}, name="Ann")
    results.append([partial async for partial in async_stream][-1])
    assert sim.stats().requests == 1
    assert all(isinstance(result, BaseModel) for result in results)
    assert len({result.model_dump_json() for result in results}) == 1
    again = [await llm.astructured_predict(Person, WHO, name="Ann") for _ in range(2)]
    assert again[0] == again[1]
    assert sim.stats().requests <= 2


def test_another_output_class_is_another_question(sim: Simulator, llm: Any) -> None:
    class Pet(BaseModel):
        name: str

    llm.structured_predict(Person, WHO, name="Ann")
    assert isinstance(llm.structured_predict(Pet, WHO, name="Ann"), Pet)
    assert sim.stats().requests == 2


def test_a_structured_llm_around_ours_is_cached(sim: Simulator, llm: Any) -> None:
    structured = llm.as_structured_llm(Person)
    assert isinstance(structured, StructuredLLM)
    first, second = (structured.chat(user("Who is Ann?")).raw for _ in range(2))
    assert first == second
    assert sim.stats().requests == 1


async def test_predict_and_call_calls_the_tool_and_asks_once(sim: Simulator, llm: Any) -> None:
    outputs = [llm.predict_and_call([ADD], "add 1 and 2", tool_required=True) for _ in range(2)]
    outputs.append(await llm.apredict_and_call([ADD], "add 1 and 2", tool_required=True))
    assert {output.response for output in outputs} == {outputs[0].response}
    assert all(output.sources[0].tool_name == "add" for output in outputs)
    assert sim.stats().requests == 1


async def test_a_tool_call_is_replayed_whole_in_every_form(sim: Simulator, llm: Any) -> None:
    def calls(response: Any) -> Any:
        return llm.get_tool_calls_from_response(response)

    asked = {"user_msg": "add 1 and 2", "tool_required": True}
    first = list(llm.stream_chat_with_tools([ADD], **asked))[-1]
    second = list(llm.stream_chat_with_tools([ADD], **asked))[-1]
    third = llm.chat_with_tools([ADD], **asked)
    fourth = await llm.achat_with_tools([ADD], **asked)
    fifth = [chunk async for chunk in await llm.astream_chat_with_tools([ADD], **asked)][-1]
    assert sim.stats().requests == 1
    assert calls(first)[0].tool_name == "add"
    assert calls(first) == calls(second) == calls(third) == calls(fourth) == calls(fifth)
    assert first.message == second.message == third.message


def test_tools_change_the_key(sim: Simulator, llm: Any) -> None:
    def subtract(a: int, b: int) -> int:
        """Subtract."""
        return a - b

    llm.chat_with_tools([ADD], user_msg="1 and 2", tool_required=True)
    llm.chat_with_tools([FunctionTool.from_defaults(fn=subtract)], user_msg="1 and 2", tool_required=True)
    llm.chat_with_tools([ADD], user_msg="1 and 2")
    assert sim.stats().requests == 3


# Workflows read every attribute of their own pydantic models, deprecated ones included.
@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")
@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince211")
async def test_a_function_agent_runs_through_ours_and_its_second_run_asks_nothing(sim: Simulator, llm: Any) -> None:
    called = []

    def note(text: str) -> str:
        """Take a note."""
        called.append(text)
        return "noted"

    answers = []
    for _ in range(2):
        agent = FunctionAgent(tools=[note], llm=llm, initial_tool_choice="note", streaming=True)
        answers.append(str(await agent.run("Please note that I was here", memory=ChatMemoryBuffer(token_limit=3000))))
    assert answers[0] == answers[1]
    assert len(called) == 2
    assert sim.stats().requests == 2
    assert llm.rate_limiter.stats().open == 0


# Query engines


class OurEmbedding(BaseEmbedding):
    """LlamaIndex's shape of one of our embedders."""

    _embedder: Embedder = PrivateAttr()

    def __init__(self, embedder: Embedder) -> None:
        super().__init__(model_name=embedder.model)
        self._embedder = embedder

    def _get_query_embedding(self, query: str) -> list[float]:
        vector: list[float] = self._embedder.embed([query])[0].tolist()
        return vector

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_query_embedding(text)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        vector: list[float] = (await self._embedder.aembed([query]))[0].tolist()
        return vector


@pytest.fixture
def settings() -> Iterator[Any]:
    before = (Settings._llm, Settings._embed_model, Settings._callback_manager)
    yield Settings
    Settings._llm, Settings._embed_model, Settings._callback_manager = before


async def test_a_query_engine_answers_a_paraphrase_from_the_cache(
    sim: Simulator, settings: Any, minilm: SentenceTransformerEmbedder
) -> None:
    settings.llm = DispatchLLM(openai_at(sim.url), cache=SemanticCache(minilm, MemoryStore()))
    settings.embed_model = OurEmbedding(minilm)
    documents = [Document(text="Bikes are returned at any shop."), Document(text="The shop belongs to Ann.")]
    index = VectorStoreIndex.from_documents(documents)
    engine = index.as_query_engine(similarity_top_k=1)
    first = str(engine.query("How do I return a rented bike?"))
    assert str(engine.query("How can I return a rental bike?")) == first
    assert str(await engine.aquery("How can I return a rental bike?")) == first
    streaming = index.as_query_engine(similarity_top_k=1, streaming=True)
    assert str(streaming.query("How can I return a rental bike?").get_response()) == first
    assert sim.stats().requests == 1
    assert str(engine.query("Who owns the shop?")) != first
    assert sim.stats().requests == 2


def test_a_chat_engine_keeps_conversations_apart(sim: Simulator, llm: Any) -> None:
    index = VectorStoreIndex.from_documents(
        [Document(text="Bikes are returned at any shop.")], embed_model=OurEmbedding(HashingEmbedder())
    )

    def talk(*turns: str) -> list[str]:
        engine = index.as_chat_engine(chat_mode="context", llm=llm, memory=ChatMemoryBuffer(token_limit=3000))
        return [str(engine.chat(turn)) for turn in turns]

    one = talk("Hello", "And then?")
    assert talk("Hello", "And then?") == one
    assert sim.stats().requests == 2
    talk("Good evening", "And then?")
    assert sim.stats().requests == 4


# Instrumentation


class Seen(BaseEventHandler):
    events: list[Any] = []  # noqa: RUF012

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        self.events.append(event)

    def named(self, part: str) -> list[Any]:
        return [event for event in self.events if part in event.class_name()]


@pytest.fixture
def seen() -> Iterator[Seen]:
    handler = Seen(events=[])
    root = get_dispatcher()
    root.add_event_handler(handler)
    yield handler
    root.event_handlers.remove(handler)


def _predict(llm: Any) -> None:
    llm.predict(WHO, name="Ann")


FORMS: list[Callable[[Any], Any]] = [
    lambda llm: llm.chat(user("Hi?")),
    lambda llm: list(llm.stream_chat(user("Hi?"))),
    lambda llm: llm.complete("Hi?"),
    lambda llm: list(llm.stream_complete("Hi?")),
    _predict,
]


@pytest.mark.parametrize("ask", FORMS, ids=["chat", "stream_chat", "complete", "stream_complete", "predict"])
def test_a_miss_emits_the_events_of_the_model_once_and_a_hit_one_of_its_own(
    sim: Simulator, llm: Any, seen: Seen, ask: Callable[[Any], Any]
) -> None:
    counter = TokenCountingHandler(tokenizer=str.split)
    llm.callback_manager = CallbackManager([counter])
    ask(llm)
    starts = seen.named("ChatStart") + seen.named("CompletionStart")
    ends = seen.named("ChatEnd") + seen.named("CompletionEnd")
    assert (len(starts), len(ends), len(seen.named("CacheHit"))) == (1, 1, 0)
    assert len(counter.llm_token_counts) == 1
    seen.events.clear()
    ask(llm)
    assert not seen.named("ChatStart") + seen.named("CompletionStart") + seen.named("ChatEnd")
    (event,) = seen.named("CacheHit")
    assert isinstance(event, DispatchCacheHitEvent)
    assert event.cache_hit == "exact"
    assert event.similarity == 1.0
    assert json.loads(event.model_dump_json())["saved_usage"].keys() == {"input_tokens", "output_tokens"}
    assert len(counter.llm_token_counts) == 1
