"""`DispatchLLM` around the real OpenAI integration, against a real HTTP server."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import openai
import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, ImageBlock, TextBlock
from llama_index.core.prompts import PromptTemplate
from llama_index.core.prompts.default_prompt_selectors import DEFAULT_TEXT_QA_PROMPT_SEL
from llama_index.llms.openai import OpenAI
from llamaindex_models import close_clients, openai_at

from dispatch_core import (
    ConfigError,
    Dispatcher,
    Eligibility,
    HashingEmbedder,
    LimitExceeded,
    MemoryStore,
    Rule,
    SemanticCache,
    SentenceTransformerEmbedder,
    StoreError,
    Threshold,
    TokenLimiter,
)
from dispatch_core.simulate import Simulator, SimulatorConfig
from llamaindex_dispatch import DispatchLLM, TokenRateLimiter

Ask = Callable[[Any, str], Awaitable[Any]]
CONTEXT = "Bikes are rented by the hour. " * 60


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


def limiter(**limits: Any) -> TokenLimiter:
    return TokenLimiter(**{"rpm": 6000, "tpm": 1_000_000, "burst": 60, **limits})


@pytest.fixture
def llm(sim: Simulator) -> DispatchLLM:
    return DispatchLLM(openai_at(sim.url), cache=exact_cache(), rate_limiter=limiter())


@pytest.fixture
def meaning(sim: Simulator, minilm: SentenceTransformerEmbedder) -> DispatchLLM:
    return DispatchLLM(openai_at(sim.url), cache=SemanticCache(minilm, MemoryStore()))


def user(text: str) -> list[ChatMessage]:
    return [ChatMessage(role="user", content=text)]


def hit(response: Any) -> Any:
    return response.additional_kwargs.get("dispatch", {}).get("cache_hit")


def open_calls(llm: DispatchLLM) -> int:
    open_now: int = llm.rate_limiter.stats().open
    return open_now


# The forms: each records, each replays


async def chat(llm: Any, text: str) -> ChatResponse:
    return await asyncio.to_thread(llm.chat, user(text))


async def achat(llm: Any, text: str) -> ChatResponse:
    response: ChatResponse = await llm.achat(user(text))
    return response


async def stream_chat(llm: Any, text: str) -> ChatResponse:
    return list(llm.stream_chat(user(text)))[-1]


async def astream_chat(llm: Any, text: str) -> ChatResponse:
    return [chunk async for chunk in await llm.astream_chat(user(text))][-1]


async def complete(llm: Any, text: str) -> CompletionResponse:
    response: CompletionResponse = llm.complete(text)
    return response


async def acomplete(llm: Any, text: str) -> CompletionResponse:
    response: CompletionResponse = await llm.acomplete(text)
    return response


async def stream_complete(llm: Any, text: str) -> CompletionResponse:
    return list(llm.stream_complete(text))[-1]


async def astream_complete(llm: Any, text: str) -> CompletionResponse:
    return [chunk async for chunk in await llm.astream_complete(text)][-1]


CHATS = [chat, achat, stream_chat, astream_chat]
COMPLETIONS = [complete, acomplete, stream_complete, astream_complete]


@pytest.mark.parametrize("replay", CHATS)
@pytest.mark.parametrize("record", CHATS)
async def test_what_one_form_of_chat_records_every_form_replays(
    sim: Simulator, llm: DispatchLLM, record: Ask, replay: Ask
) -> None:
    first = await record(llm, "How do I pay?")
    second = await replay(llm, "How do I pay?")
    assert (hit(first), hit(second)) == (None, "exact")
    assert second.message.content == first.message.content
    assert second.message.role == "assistant"
    assert second.raw is None
    assert sim.stats().requests == 1
    assert open_calls(llm) == 0


@pytest.mark.parametrize("replay", COMPLETIONS)
@pytest.mark.parametrize("record", COMPLETIONS)
async def test_what_one_form_of_completion_records_every_form_replays(
    sim: Simulator, llm: DispatchLLM, record: Ask, replay: Ask
) -> None:
    first = await record(llm, "How do I pay?")
    second = await replay(llm, "How do I pay?")
    assert (hit(first), hit(second)) == (None, "exact")
    assert second.text == first.text
    assert sim.stats().requests == 1
    assert open_calls(llm) == 0


def test_chat_and_completion_are_scopes_of_their_own(sim: Simulator, llm: DispatchLLM) -> None:
    llm.chat(user("How do I pay?"))
    assert hit(llm.complete("How do I pay?")) is None
    assert sim.stats().requests == 2


def test_a_replayed_stream_adds_up(llm: DispatchLLM) -> None:
    text = llm.chat(user("How do I pay?")).message.content
    chunks = list(llm.stream_chat(user("How do I pay?")))
    assert len(chunks) > 2
    assert "".join(chunk.delta or "" for chunk in chunks) == text
    assert all((text or "").startswith(chunk.message.content or "") for chunk in chunks)
    assert {hit(chunk) for chunk in chunks} == {"exact"}


def test_the_messages_may_change_after_a_stream_was_asked_for(sim: Simulator, llm: DispatchLLM) -> None:
    messages = user("How do I pay?")
    stream = llm.stream_chat(messages)
    messages.append(ChatMessage(role="assistant", content="With money."))
    text = list(stream)[-1].message.content
    answer = llm.chat(user("How do I pay?"))
    assert hit(answer) == "exact"
    assert answer.message.content == text


async def test_a_sync_call_works_in_a_running_loop(llm: DispatchLLM) -> None:
    assert hit(llm.chat(user("How do I pay?"))) is None
    assert hit(await llm.achat(user("How do I pay?"))) == "exact"
    assert hit(llm.chat(user("How do I pay?"))) == "exact"


# Meaning


def test_rag_same_context_and_another_question_is_a_miss(sim: Simulator, meaning: DispatchLLM) -> None:
    template = DEFAULT_TEXT_QA_PROMPT_SEL
    one = meaning.predict(template, context_str=CONTEXT, query_str="How do I return a rented bike?")
    other = meaning.predict(template, context_str=CONTEXT, query_str="Who owns the shop?")
    assert one != other
    assert sim.stats().requests == 2
    assert meaning.dispatcher.stats().hits == 0


def test_rag_paraphrase_in_the_same_context_is_a_hit(sim: Simulator, meaning: DispatchLLM) -> None:
    template = DEFAULT_TEXT_QA_PROMPT_SEL
    one = meaning.predict(template, context_str=CONTEXT, query_str="How do I return a rented bike?")
    other = meaning.predict(template, context_str=CONTEXT, query_str="How can I return a rental bike?")
    assert one == other
    assert sim.stats().requests == 1
    assert meaning.dispatcher.stats().semantic_hits == 1


def test_rag_the_same_question_in_another_context_is_a_miss(sim: Simulator, meaning: DispatchLLM) -> None:
    for context in ("Open from 9.", "Open from 8."):
        meaning.predict(DEFAULT_TEXT_QA_PROMPT_SEL, context_str=context, query_str="When do the shops open?")
    assert sim.stats().requests == 2


async def test_rag_paraphrase_streams_from_the_cache_too(sim: Simulator, meaning: DispatchLLM) -> None:
    template = DEFAULT_TEXT_QA_PROMPT_SEL
    questions = ["How do I reset my password?", "How can I reset my password?"]
    first = "".join(meaning.stream(template, context_str=CONTEXT, query_str=questions[0]))
    second = "".join(meaning.stream(template, context_str=CONTEXT, query_str=questions[1]))
    third = [token async for token in await meaning.astream(template, context_str=CONTEXT, query_str=questions[1])]
    fourth = await meaning.apredict(template, context_str=CONTEXT, query_str=questions[1])
    assert first == second == "".join(third) == fourth
    assert sim.stats().requests == 1


def test_a_direct_question_is_understood_by_meaning(sim: Simulator, meaning: DispatchLLM) -> None:
    one = meaning.chat(user("How much does a city bike cost per day?"))
    other = meaning.chat(user("What does a city bike cost per day?"))
    assert hit(other) == "semantic"
    assert 0.92 <= other.additional_kwargs["dispatch"]["similarity"] < 1
    assert other.message.content == one.message.content
    assert sim.stats().requests == 1


def test_a_direct_prompt_of_several_lines_is_matched_exactly(sim: Simulator, meaning: DispatchLLM) -> None:
    for text in ("Context:\nA\nHow do I reset my password?", "Context:\nA\nHow can I reset my password?"):
        meaning.complete(text)
    assert sim.stats().requests == 2


def test_a_template_without_a_question_is_matched_exactly(sim: Simulator, meaning: DispatchLLM) -> None:
    template = PromptTemplate("Standalone: {question}")
    for question in ("How do I reset my password?", "How can I reset my password?", "How can I reset my password?"):
        meaning.predict(template, question=question)
    assert sim.stats().requests == 2


# Identity end to end


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 1.0},
        {"model": "gpt-4o"},
        {"max_tokens": 500},
        {"system_prompt": "Be brief."},
        {"additional_kwargs": {"seed": 3}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_setting_mutated_after_wrapping_changes_the_key(
    sim: Simulator, llm: DispatchLLM, change: dict[str, Any]
) -> None:
    llm.chat(user("How do I pay?"))
    for name, value in change.items():
        setattr(llm, name, value)
        assert getattr(llm.llm, name) == value
    assert hit(llm.chat(user("How do I pay?"))) is None
    assert sim.stats().requests == 2


@pytest.mark.parametrize("name", ["extra_headers", "default_headers"])
async def test_tenants_that_a_gateway_tells_apart_by_header_share_no_answer(sim: Simulator, name: str) -> None:
    cache = exact_cache()
    for tenant in ("a", "b"):
        headers = {name: {"X-Tenant": tenant}}
        llm = DispatchLLM(openai_at(sim.url, **(headers if name == "default_headers" else {})), cache=cache)
        options = headers if name == "extra_headers" else {}
        assert hit(llm.chat(user("Hi?"), **options)) is None
        assert hit(await llm.achat(user("Hi?"), **options)) == "exact"
    assert sim.stats().requests == 2


def test_tools_that_the_model_brings_along_make_a_question_exact(sim: Simulator, meaning: DispatchLLM) -> None:
    meaning.additional_kwargs = {"response_format": {"type": "json_object"}}
    for text in ("How much does a city bike cost per day?", "What does a city bike cost per day?"):
        assert hit(meaning.chat(user(text))) is None
    assert sim.stats().requests == 2


def test_two_tenants_never_share_an_answer(sim: Simulator) -> None:
    cache = exact_cache()
    for tenant in ("acme", "umbrella"):
        DispatchLLM(openai_at(sim.url), cache=cache, namespace=tenant).chat(user("How do I pay?"))
    assert sim.stats().requests == 2


def test_an_image_by_its_bytes_hits_and_an_unknown_option_goes_past_the_cache(
    sim: Simulator, llm: DispatchLLM
) -> None:
    def look(content: bytes) -> Any:
        blocks = [TextBlock(text="What is this?"), ImageBlock(image=content, image_mimetype="image/png")]
        return hit(llm.chat([ChatMessage(role="user", blocks=blocks)]))

    assert [look(b"\x89PNG one"), look(b"\x89PNG one"), look(b"\x89PNG two")] == [None, "exact", None]
    for _ in range(2):
        assert hit(llm.chat(user("Hi?"), logit_bias=_Opaque())) is None
    assert llm.dispatcher.stats().bypassed == 2


class _Opaque(dict[Any, Any]):
    """JSON for the provider, but keyed by numbers: no stable form for us."""

    def __init__(self) -> None:
        super().__init__({50256: -100})


def test_the_cache_can_be_bypassed_for_a_while(sim: Simulator, llm: DispatchLLM) -> None:
    llm.chat(user("How do I pay?"))
    with llm.bypass_cache():
        assert hit(llm.chat(user("How do I pay?"))) is None
        stream = llm.stream_chat(user("How do I pay?"))
    assert hit(list(stream)[-1]) is None
    assert hit(llm.chat(user("How do I pay?"))) == "exact"
    assert sim.stats().requests == 3
    assert open_calls(llm) == 0


# Streams that end otherwise


async def test_an_unread_stream_reserves_nothing_and_asks_nothing(sim: Simulator, llm: DispatchLLM) -> None:
    llm.stream_chat(user("How do I pay?"))
    await llm.astream_chat(user("How do I pay?"))
    assert llm.rate_limiter.stats().admitted == 0
    assert sim.stats().requests == 0


def test_a_stream_closed_early_is_not_stored_and_settled(sim: Simulator, llm: DispatchLLM) -> None:
    stream = llm.stream_chat(user("How do I pay?"))
    next(stream)
    assert open_calls(llm) == 1
    stream.close()
    assert open_calls(llm) == 0
    assert hit(llm.chat(user("How do I pay?"))) is None


async def test_an_async_stream_closed_early_is_not_stored_and_settled(sim: Simulator, llm: DispatchLLM) -> None:
    stream = await llm.astream_chat(user("How do I pay?"))
    await anext(stream)
    assert open_calls(llm) == 1
    await stream.aclose()
    assert open_calls(llm) == 0
    assert hit(await llm.achat(user("How do I pay?"))) is None


async def test_a_cancelled_call_is_settled(minilm: SentenceTransformerEmbedder) -> None:
    with Simulator(SimulatorConfig(latency=20)) as slow:
        llm = DispatchLLM(openai_at(slow.url), cache=exact_cache(), rate_limiter=limiter())
        task = asyncio.create_task(llm.achat(user("How do I pay?")))
        while not slow.stats().in_flight:
            await asyncio.sleep(0.005)
        assert open_calls(llm) == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert open_calls(llm) == 0


def test_a_stream_dropped_inside_a_cycle_is_settled_when_it_is_collected(sim: Simulator, llm: DispatchLLM) -> None:
    class Consumer:
        """Holds its stream and is held by itself."""

    consumer: Any = Consumer()
    consumer.stream, consumer.me = llm.stream_chat(user("How do I pay?")), consumer
    next(consumer.stream)
    assert open_calls(llm) == 1
    del consumer
    gc.collect()
    assert open_calls(llm) == 0
    assert llm.dispatcher.stats().stored == 0


async def test_an_async_stream_dropped_inside_a_cycle_is_settled(sim: Simulator, llm: DispatchLLM) -> None:
    class Consumer:
        """Holds its stream and is held by itself."""

    consumer: Any = Consumer()
    consumer.stream, consumer.me = await llm.astream_chat(user("How do I pay?")), consumer
    await anext(consumer.stream)
    assert open_calls(llm) == 1
    del consumer
    gc.collect()
    for _ in range(100):
        if not open_calls(llm):
            break
        await asyncio.sleep(0)
    assert open_calls(llm) == 0
    assert llm.dispatcher.stats().stored == 0


class Broken(BaseHTTPRequestHandler):
    """Streams two words, then ends as its path says: /cut breaks the connection, /quiet closes as if all was well."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        words = "".join(_event({"role": "assistant", "content": word}) for word in ("Hello ", "wor"))
        body = words.encode()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(body) + (100 if self.path.startswith("/cut") else 0)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Quiet."""


def _event(delta: dict[str, str]) -> str:
    import json

    choice = {"index": 0, "delta": delta, "finish_reason": None}
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return f"data: {json.dumps(chunk)}\n\n"


@pytest.fixture
def broken() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Broken)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


async def test_a_stream_that_breaks_is_not_stored_and_settled(broken: str) -> None:
    llm = DispatchLLM(openai_at(f"{broken}/cut"), cache=exact_cache(), rate_limiter=limiter())
    with pytest.raises(Exception, match=r"incomplete|peer closed"):
        list(llm.stream_chat(user("Hi?")))
    with pytest.raises(Exception, match=r"incomplete|peer closed"):
        _ = [chunk async for chunk in await llm.astream_chat(user("Hi?"))]
    assert open_calls(llm) == 0
    assert llm.dispatcher.stats().stored == 0


async def test_a_stream_that_ends_without_a_reason_is_passed_on_but_not_stored(broken: str) -> None:
    llm = DispatchLLM(openai_at(f"{broken}/quiet"), cache=exact_cache(), rate_limiter=limiter())
    assert list(llm.stream_chat(user("Hi?")))[-1].message.content == "Hello wor"
    assert [c async for c in await llm.astream_chat(user("Hi?"))][-1].message.content == "Hello wor"
    llm.dispatcher.flush()
    assert open_calls(llm) == 0
    assert llm.dispatcher.stats().stored == 0


@pytest.mark.parametrize("ask", [*CHATS, *COMPLETIONS])
async def test_a_truncated_answer_is_not_cached(sim: Simulator, ask: Ask) -> None:
    llm = DispatchLLM(openai_at(sim.url, max_tokens=3), cache=exact_cache(), rate_limiter=limiter())
    for _ in range(2):
        assert hit(await ask(llm, "How do I pay?")) is None
    assert sim.stats().requests == 2
    assert open_calls(llm) == 0


# Limits


def test_the_real_tokens_are_settled_and_hits_cost_nothing(sim: Simulator, llm: DispatchLLM) -> None:
    llm.chat(user("How do I pay?"))
    spent = sim.stats().prompt_tokens + sim.stats().completion_tokens
    for _ in range(3):
        response = llm.chat(user("How do I pay?"))
    stats = llm.rate_limiter.stats()
    assert (stats.admitted, stats.open, stats.tokens_used) == (1, 0, spent)
    saved = response.additional_kwargs["dispatch"]["saved_usage"]
    assert saved["input_tokens"] + saved["output_tokens"] == spent
    assert llm.dispatcher.stats().saved.total == 3 * spent


def test_a_stream_settles_its_usage_when_the_provider_reports_it(sim: Simulator) -> None:
    inner = openai_at(sim.url, additional_kwargs={"stream_options": {"include_usage": True}})
    llm = DispatchLLM(inner, cache=exact_cache(), rate_limiter=limiter())
    list(llm.stream_chat(user("How do I pay?")))
    assert llm.rate_limiter.stats().tokens_used == sim.stats().prompt_tokens + sim.stats().completion_tokens
    assert hit(llm.chat(user("How do I pay?"))) == "exact"


@pytest.mark.parametrize("ask", CHATS)
async def test_a_429_closes_the_gate_for_the_time_the_provider_asks(ask: Ask) -> None:
    with Simulator(SimulatorConfig(latency=0, rpm=1)) as strict:
        llm = DispatchLLM(openai_at(strict.url), rate_limiter=limiter(max_wait=0))
        await ask(llm, "one?")
        with pytest.raises(openai.RateLimitError):
            await ask(llm, "two?")
        assert llm.rate_limiter.stats().throttled == 1
        assert open_calls(llm) == 0
        with pytest.raises(LimitExceeded) as refused:
            await ask(llm, "three?")
        assert refused.value.retry_after > 5
        assert strict.stats().requests == 2


@pytest.mark.parametrize("ask", [*CHATS, *COMPLETIONS])
async def test_a_provider_error_reaches_the_caller_and_leaves_nothing_open(sim: Simulator, ask: Ask) -> None:
    llm = DispatchLLM(openai_at(sim.root + "/nowhere"), cache=exact_cache(), rate_limiter=limiter())
    with pytest.raises(openai.NotFoundError):
        await ask(llm, "Hi?")
    assert open_calls(llm) == 0
    assert llm.dispatcher.stats().stored == 0


def test_max_tokens_is_what_a_call_reserves(sim: Simulator) -> None:
    llm = DispatchLLM(openai_at(sim.url, max_tokens=5000), rate_limiter=limiter(tpm=4000))
    with pytest.raises(Exception, match="limit is 4000"):
        llm.chat(user("Hi?"))
    assert llm.chat(user("Hi?"), max_tokens=10).message.content


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("ask", [*CHATS, *COMPLETIONS])
async def test_the_timeout_of_a_token_rate_limiter_holds(sim: Simulator, ask: Ask, cached: bool) -> None:
    patience = TokenRateLimiter(rpm=1, timeout=0)
    llm = DispatchLLM(openai_at(sim.url), cache=exact_cache() if cached else None, rate_limiter=patience)
    await ask(llm, "one?")
    with pytest.raises(LimitExceeded):
        await asyncio.wait_for(ask(llm, "two?"), 5)
    with llm.bypass_cache(), pytest.raises(LimitExceeded):
        await asyncio.wait_for(ask(llm, "one?"), 5)
    assert sim.stats().requests == 1


def test_retries_that_would_pass_the_limiter_are_warned_of(sim: Simulator) -> None:
    with pytest.warns(UserWarning, match="max_retries=0"):
        DispatchLLM(openai_at(sim.url, max_retries=3), rate_limiter=limiter())


def test_one_dispatcher_may_be_shared_but_not_given_a_second_limiter(sim: Simulator) -> None:
    dispatcher = Dispatcher(exact_cache(), limiter())
    one, other = (DispatchLLM(openai_at(sim.url), cache=dispatcher) for _ in range(2))
    one.chat(user("Hi?"))
    assert hit(other.chat(user("Hi?"))) == "exact"
    with pytest.raises(ConfigError, match="own limiter"):
        DispatchLLM(openai_at(sim.url), cache=dispatcher, rate_limiter=limiter())


# A cache that fails


class Down(MemoryStore):
    def get(self, id: str, *, now: float) -> Any:
        raise StoreError("down")

    def put(self, entry: Any, vector: Any) -> None:
        raise StoreError("down")


@pytest.mark.parametrize("ask", [*CHATS, *COMPLETIONS])
async def test_a_cache_that_is_down_is_a_miss(sim: Simulator, ask: Ask) -> None:
    cache = SemanticCache(HashingEmbedder(), Down())
    llm = DispatchLLM(openai_at(sim.url), cache=cache, rate_limiter=limiter())
    for _ in range(2):
        assert hit(await ask(llm, "How do I pay?")) is None
    assert sim.stats().requests == 2
    assert llm.dispatcher.stats().failures >= 2
    assert open_calls(llm) == 0


def test_an_entry_that_cannot_be_read_is_a_miss_and_replaced(sim: Simulator, llm: DispatchLLM) -> None:
    llm.chat(user("How do I pay?"))
    llm.dispatcher.flush()
    store = llm.cache.stored_in
    (entry,) = store._entries.values()
    object.__setattr__(entry, "payload", b'{"version": 99}')
    assert hit(llm.chat(user("How do I pay?"))) is None
    assert hit(llm.chat(user("How do I pay?"))) == "exact"
    assert sim.stats().requests == 2
    assert open_calls(llm) == 0


def test_a_limiter_on_both_the_model_and_its_wrapper_is_warned_of(sim: Simulator) -> None:
    shared = TokenRateLimiter(rpm=60)
    with pytest.warns(UserWarning, match="each call is charged twice"):
        DispatchLLM(openai_at(sim.url, rate_limiter=shared), rate_limiter=shared)


@pytest.mark.parametrize(
    "rules", [{}, {"rules": (Rule("vip", "order"),), "personal": None}], ids=["personal", "own rule"]
)
def test_what_goes_past_the_cache_does_so_where_it_would_match_exactly(sim: Simulator, rules: Any) -> None:
    cache = SemanticCache(HashingEmbedder(), MemoryStore(), eligibility=Eligibility(**rules))
    llm = DispatchLLM(openai_at(sim.url), cache=cache)
    for _ in range(2):
        llm.complete("Be kind.\nWhere is my order?")
        llm.chat(user("Be kind.\nWhere is my order?"))
        llm.chat(user("Where is my order?"), response_format={"type": "text"})
        llm.predict(PromptTemplate("Answer: {question}"), question="Where is my order?")
    assert sim.stats().requests == 8


def test_an_answer_that_cannot_be_stored_is_the_callers_all_the_same(sim: Simulator) -> None:
    class Odd(OpenAI):
        def chat(self, messages: Any, **kwargs: Any) -> ChatResponse:
            response = super().chat(messages, **kwargs)
            response.message.additional_kwargs["itself"] = response.message.additional_kwargs
            return response

    odd = openai_at(sim.url, kind=Odd)
    llm = DispatchLLM(odd, cache=exact_cache(), rate_limiter=limiter())
    assert llm.chat(user("hello there")).message.content
    assert llm.dispatcher.stats().not_stored == 1
    assert open_calls(llm) == 0
