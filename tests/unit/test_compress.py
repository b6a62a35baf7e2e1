"""The compressors: what they keep, what they leave alone, and what they refuse."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from conversations import ASKED, DOORS, LLAMAINDEX, assistant, context_of, rag, tool, user
from fakes import FORMS, CountingEmbedder, Either, in_another_process

from dispatch_core import (
    CompressionError,
    Compressor,
    ConfigError,
    EmbeddingError,
    Extractive,
    HashingEmbedder,
    History,
    LLMLinguaCompressor,
    Lossless,
    Message,
    MissingExtra,
    Part,
    Pipeline,
)
from dispatch_core.compress import FRAMES, estimated

pytestmark = pytest.mark.parametrize("form", FORMS)


@pytest.fixture
def extractive() -> Extractive:
    return Extractive(HashingEmbedder())


async def compress(form: str, compressor: Compressor, messages: list[Message], budget: int | None = None) -> Any:
    return await Either(compressor, form).compress(messages, budget)


async def test_the_sentence_that_answers_is_kept_with_its_heading_and_its_order(form, extractive):
    done = await compress(form, extractive, rag(), 110)
    kept = context_of(done.messages[1])
    assert kept.startswith("# Harrow House\n\n")
    assert "Its main door is painted teal." in kept
    assert "Benches stand under the old trees." not in kept
    assert "Benches stand under the old trees." in done.dropped
    sentences = [line for line in kept.replace(". ", ".\n").splitlines() if line]
    assert [DOORS.index(sentence) for sentence in sentences] == sorted(DOORS.index(one) for one in sentences)


async def test_system_prompt_frame_and_question_are_not_touched(form, extractive):
    before = rag()
    done = await compress(form, extractive, before, 1)
    assert done.messages[0] is before[0]
    frame = LLAMAINDEX.format(context="", question=ASKED).split("---------------------")
    assert done.messages[1].text.startswith(frame[0])
    assert done.messages[1].text.endswith(frame[2])


async def test_the_budget_is_kept_and_what_is_reported_is_true(form, extractive):
    before = rag()
    size = sum(estimated(message.text) for message in before)
    for budget in (size - 1, size - 20, size - 60):
        done = await compress(form, extractive, before, budget)
        assert (done.tokens_before, done.tokens_after) == (size, sum(estimated(one.text) for one in done.messages))
        assert budget - 25 < done.tokens_after <= budget
    half = await compress(form, Extractive(HashingEmbedder(), share=0.75), before)
    assert 0.2 < half.saved < 0.4
    assert (await compress(form, extractive, [], 1)).saved == 0


async def test_what_fits_is_not_touched_and_nothing_is_embedded(form):
    embedder = CountingEmbedder()
    before = rag()
    for compressor, budget in ((Extractive(embedder), 10_000), (Extractive(embedder, least=10_000), 1)):
        assert (await compress(form, compressor, before, budget)).messages == tuple(before)
    assert embedder.calls == []


async def test_the_embedder_is_asked_once_and_for_each_sentence_once(form):
    embedder = CountingEmbedder()
    await compress(form, Extractive(embedder), rag(DOORS + "\n\n" + DOORS), 150)
    (texts,) = embedder.calls
    assert texts[0] == ASKED
    assert len(texts) == len(set(texts))


async def test_context_may_be_told_by_the_kind_of_a_part_and_the_question_stand_beside_it(form, extractive):
    parts = (Part(DOORS, "context"), Part("picture", "other", 800), Part(ASKED))
    done = await compress(form, extractive, [Message("user", parts)], 860)
    assert done.messages[0].parts[1:] == parts[1:]
    assert "painted teal" in done.messages[0].parts[0].text
    assert len(done.messages[0].parts[0].text) < len(DOORS)


async def test_results_of_tools_are_context_where_their_role_is_told(form):
    talk = [user(ASKED), assistant("", "c1"), tool(DOORS, "c1")]
    assert (await compress(form, Extractive(HashingEmbedder()), talk, 40)).messages == tuple(talk)
    done = await compress(form, Extractive(HashingEmbedder(), roles={"tool"}), talk, 40)
    assert done.messages[:2] == tuple(talk[:2])
    assert done.messages[2].answers == ("c1",)
    assert "painted teal" in done.messages[2].text


async def test_a_system_prompt_with_context_loses_context_alone_and_asks_with_the_last_turn(form, extractive):
    prompt = "Use the following pieces of context to answer the user's question.\n----------------\n" + DOORS
    talk = [Message.of("system", prompt), user("Hello"), assistant("Hello!"), user(ASKED)]
    done = await compress(form, extractive, talk, 60)
    assert done.messages[1:] == tuple(talk[1:])
    assert done.messages[0].text.startswith(prompt[: prompt.index("# Harrow")])
    assert "painted teal" in done.messages[0].text


@pytest.mark.parametrize(
    "talk",
    [
        [],
        [Message("user")],
        [user("")],
        [Message.of("system", DOORS)],
        [user(DOORS)],
        [assistant(f"<context>{DOORS}</context>"), user(ASKED)],
        [Message.of("user", DOORS, "context")],
        [Message("user", (Part(kind="other", tokens=5000),))],
        [user("<context>" + "\ud800 \x00 " * 20 + "</context> what? \udfff")],
        [user("<context>\n\n \n</context> what?")],
        [tool("result without a call", "c9")],
    ],
)
async def test_what_holds_no_context_or_no_question_or_makes_no_sense_raises_nothing(form, talk):
    parts = [Extractive(HashingEmbedder()), Lossless(), History(1), LLMLinguaCompressor(Lingua())]
    for compressor in (*parts, Pipeline(*parts)):
        done = await compress(form, compressor, talk, 1)
        assert all(one in [message.role for message in talk] for one in [message.role for message in done.messages])


async def test_context_of_which_nothing_is_left_leaves_no_empty_message(form):
    documents = [Message.of("user", DOORS, "context"), Message.of("user", "Quite other words.", "context")]
    done = await compress(form, Extractive(HashingEmbedder()), [*documents, user(ASKED)], 30)
    assert [bool(message.text.strip()) for message in done.messages] == [True] * 3
    assert done.messages[1].text == "…"


async def test_chinese_sentences_are_chosen_by_the_characters_they_share(form):
    text = "酒店在市中心。附近有公园和老街。早餐供应到上午十点二十分为止。走廊里请保持安静。大堂每周有展览。" * 2
    done = await compress(form, Extractive(HashingEmbedder()), rag(text, "早餐供应到几点？"), 100)
    assert "早餐供应到上午十点二十分为止。" in done.messages[1].text
    assert done.tokens_after <= 100


async def test_a_question_that_goes_on_with_the_one_before_finds_what_that_was_about(form, extractive):
    prices = [
        "The Merlin X2 sells for 410 euros.",
        *(f"The {thing} is on loan." for thing in ("yard", "roof", "lamp")),
    ]
    asked = Message("user", (Part(" ".join(prices), "context"), Part("And how much is it?")))
    talk = [user("Tell me about the Merlin X2."), assistant("It is a printer."), asked]
    assert prices[0] in (await compress(form, extractive, talk, 40)).messages[-1].text
    assert prices[0] not in (await compress(form, extractive, talk[-1:], 25)).messages[-1].text


async def test_an_embedder_that_fails_is_heard(form):
    embedder = CountingEmbedder()
    embedder.error = EmbeddingError("gone")
    with pytest.raises(EmbeddingError, match="gone"):
        await compress(form, Extractive(embedder), rag(), 80)


async def test_lossless_takes_out_what_says_nothing_and_only_where_it_may(form):
    chunk = "The museum was built in 1901 and stands on a hill above the harbour, where one sees it from afar."
    question = "Which  one?"
    before = rag(f'{chunk}\n\n{chunk}\n\n\n\nA.  B.\n{{\n  "a": 1\n}}', question)
    done = await compress(form, Lossless(), before)
    assert done.messages[0] is before[0]
    assert context_of(done.messages[1]) == f'{chunk}\n\nA. B.\n{{"a":1}}'
    assert question in done.messages[1].text
    assert done.dropped == (chunk,)
    assert done.tokens_after < done.tokens_before


async def test_lossless_leaves_out_a_part_that_is_there_already_and_repetitions_of_a_user_stay(form):
    chunk = Part(DOORS, "context")
    done = await compress(form, Lossless(), [Message("user", (chunk, chunk, Part(ASKED)))])
    assert [part.text for part in done.messages[0].parts] == [DOORS, "", ASKED]
    said = [user(f"{DOORS}\n\n{DOORS}\n\nAre these the same?")]
    assert (await compress(form, Lossless(), said)).messages == tuple(said)


TALK = [
    Message.of("system", "Be kind. " * 5),
    user("a " * 20),
    assistant("b " * 20),
    user("c " * 20),
    assistant("", "c1", "c2"),
    tool("d " * 20, "c1"),
    tool("e " * 20, "c2"),
    assistant("f " * 20),
    user("g " * 20),
]


@pytest.mark.parametrize(
    ("budget", "first"), [(10_000, 1), (81, 1), (80, 3), (61, 3), (60, 8), (21, 8), (20, 8), (1, 8)]
)
async def test_history_keeps_the_system_prompt_and_the_last_turns_that_fit(form, budget, first):
    done = await compress(form, History(), TALK, budget)
    assert done.messages == (TALK[0], *TALK[first:])
    assert done.dropped == tuple(message.text for message in TALK[1:first])
    assert done.tokens_after == sum(estimated(message.text) for message in done.messages)


async def test_history_never_parts_a_result_from_its_call_even_where_a_user_speaks_between(form):
    talk = [user("a " * 20), assistant("", "c1"), user("hurry"), tool("b " * 20, "c1"), assistant("c"), user("d")]
    assert (await compress(form, History(15), talk)).messages == (talk[5],)
    assert (await compress(form, History(20), talk[:5])).messages == tuple(talk[:5])


async def test_history_without_a_number_leaves_all(form):
    assert (await compress(form, History(), TALK)).messages == tuple(TALK)


async def test_a_pipeline_hands_on_what_is_left_with_the_same_budget(form):
    old = [user("An old question. " * 9), assistant("An old answer.")]
    untidy = [*old, *rag(DOORS.replace(". ", ".  ") + "\n\n\n\n" + "Filler words stand here. " * 9)[1:]]
    line = Pipeline(Lossless(), Extractive(HashingEmbedder()), History(), budget=90)
    done = await compress(form, line, untidy)
    assert len(done.messages) == 1
    assert "Its main door is painted teal." in done.messages[0].text
    assert done.tokens_before == sum(estimated(message.text) for message in untidy)
    assert done.tokens_after <= 90
    assert old[0].text in done.dropped


class Lingua:
    """Takes out every other word, as a model might."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.error: Exception | None = None

    def compress_prompt(self, context: list[str], **settings: Any) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        self.asked.append((context[0], settings))
        words = context[0].split()
        return {"compressed_prompt": " ".join(words[::2]), "origin_tokens": len(words), "rate": "50.0%"}


async def test_llmlingua_is_shown_prose_alone_and_what_it_leaves_is_put_in_its_place(form):
    model = Lingua()
    prose = "The harbour is old and deep. Ships come there from far away every single day of the year."
    context = f"# Harbour\n\n{prose}\n\n```\nx = 1\n```\n\n| a |\n|---|\n| 1 |"
    before = rag(context, "How deep?")
    done = await compress(form, LLMLinguaCompressor(model), before, 60)
    assert [text for text, _ in model.asked] == [prose]
    assert model.asked[0][1]["force_reserve_digit"] is True
    assert 0 < model.asked[0][1]["rate"] < 1
    assert done.messages[1].text == before[1].text.replace(prose, " ".join(prose.split()[::2]))


async def test_llmlingua_is_not_asked_where_all_fits_and_may_not_make_it_longer(form):
    model = Lingua()
    before = rag()
    assert (await compress(form, LLMLinguaCompressor(model), before, 9_999)).messages == tuple(before)
    assert model.asked == []
    model.compress_prompt = lambda context, **settings: {"compressed_prompt": context[0] + " and more"}  # type: ignore[method-assign]
    assert (await compress(form, LLMLinguaCompressor(model), before, 50)).messages == tuple(before)


async def test_a_model_that_fails_is_heard(form):
    model = Lingua()
    model.error = RuntimeError("out of memory")
    with pytest.raises(CompressionError) as raised:
        await compress(form, LLMLinguaCompressor(model), rag(), 50)
    assert isinstance(raised.value.__cause__, RuntimeError)


async def test_without_llmlingua_it_says_what_to_install(form, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'ai-dispatcher\[compress\]'"):
        await compress(form, LLMLinguaCompressor(), rag(), 50)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Extractive(object()),
        lambda: Extractive(HashingEmbedder(), share=0),
        lambda: Extractive(HashingEmbedder(), share=1.5),
        lambda: Extractive(HashingEmbedder(), frames="{context} here"),
        lambda: Extractive(HashingEmbedder(), frames=[7]),
        lambda: Extractive(HashingEmbedder(), roles="tool"),
        lambda: Extractive(HashingEmbedder(), roles=["robot"]),
        lambda: Lossless(roles=["robot"]),
        lambda: History(0),
        lambda: History(True),
        lambda: LLMLinguaCompressor(7),
        lambda: LLMLinguaCompressor(share=2),
        Pipeline,
        lambda: Pipeline(Lossless),
        lambda: Pipeline(object()),
        lambda: Pipeline(Lossless(), budget=-1),
        lambda: History().compress([], 0),
        lambda: Extractive(HashingEmbedder()).compress([], -5),
    ],
)
async def test_settings_that_cannot_work_are_refused(form, make):
    with pytest.raises(ConfigError):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda tags: Extractive(HashingEmbedder(), share=0.7, tags=tags),
        lambda tags: Lossless(roles=(), tags=tags),
        lambda tags: LLMLinguaCompressor(Lingua(), share=0.7, tags=tags),
    ],
)
async def test_tags_of_ones_own_show_every_compressor_its_context(form, make):
    spaced = DOORS.replace("\n\n", "\n" * 20)
    before = [user(f"<kb>{spaced}</kb> {ASKED}")]
    assert (await compress(form, make(("context",)), before)).messages == tuple(before)
    assert (await compress(form, make(("context", "kb")), before)).saved > 0


async def test_frames_of_ones_own_go_beside_the_known(form):
    extractive = Extractive(HashingEmbedder(), frames=["Facts: {context}\nTask: {question}", *FRAMES])
    done = await compress(form, extractive, [user(f"Facts: {DOORS}\nTask: {ASKED}")], 50)
    assert done.messages[0].text.endswith(f"\nTask: {ASKED}")
    assert "painted teal" in done.messages[0].text


async def test_a_tokenizer_may_count(form):
    done = await compress(form, Extractive(HashingEmbedder(), count=lambda text: len(text.split())), rag(), 70)
    assert done.tokens_before == sum(len(message.text.split()) for message in rag())
    assert done.tokens_after <= 70


async def test_importing_the_layer_imports_no_model(form):
    code = """
import sys
from dispatch_core import LLMLinguaCompressor
LLMLinguaCompressor()
print([name for name in ("llmlingua", "torch", "transformers") if name in sys.modules])
"""
    assert await asyncio.to_thread(in_another_process, code) == "[]"
