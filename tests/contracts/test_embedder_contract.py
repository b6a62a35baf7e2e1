"""What every embedder promises, in both forms of every call."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fakes import FORMS, CountingEmbedder, Either, in_another_process
from framework_embedders import HashingEmbedding, HashingEmbeddings

from dispatch_core import (
    BatchingEmbedder,
    ConfigError,
    Embedder,
    EmbeddingError,
    Fit,
    HashingEmbedder,
    MemoEmbedder,
    OpenAIEmbedder,
    OpenVinoEmbedder,
    RedisMemoEmbedder,
    SentenceTransformerEmbedder,
    TokenLimiter,
)
from dispatch_core.simulate import Simulator, SimulatorConfig
from langchain_dispatch import LangChainEmbedder
from llamaindex_dispatch import LlamaIndexEmbedder

TEXTS = {
    "plain": "How do I reset my password?",
    "empty": "",
    "blank": " \n\t ",
    "emoji": "🎉🏳️‍🌈👩‍👩‍👧",
    "chinese": "如何重置我的密码",
    "special": "<|endoftext|> [CLS] [SEP] [PAD]",
    "nul": "a\x00b",
    "long": "lorem ipsum " * 4_200,
    "one long word": "a" * 50_000,
}


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator(SimulatorConfig(latency=0.0)) as running:
        yield running


MADE: dict[str, Callable[[pytest.FixtureRequest], Embedder]] = {
    "hashing": lambda request: HashingEmbedder(),
    "memo": lambda request: MemoEmbedder(HashingEmbedder(64)),
    "minilm": lambda request: request.getfixturevalue("minilm"),
    "onnx minilm": lambda request: request.getfixturevalue("onnx_minilm"),
    "openvino minilm": lambda request: OpenVinoEmbedder(path=request.getfixturevalue("exported_minilm")),
    "openai": lambda request: OpenAIEmbedder(base_url=request.getfixturevalue("simulator").url, api_key="any"),
    "openai, short": lambda request: OpenAIEmbedder(
        base_url=request.getfixturevalue("simulator").url,
        api_key="any",
        dimensions=256,
        limiter=TokenLimiter(rpm=1e6),
    ),
    "compatible": lambda request: OpenAIEmbedder(
        "some-model", base_url=request.getfixturevalue("simulator").url, api_key="any", max_tokens=512
    ),
    "batching": lambda request: BatchingEmbedder(HashingEmbedder(64), max_batch=4),
    "batching minilm": lambda request: BatchingEmbedder(request.getfixturevalue("minilm")),
    "redis memo": lambda request: RedisMemoEmbedder(
        HashingEmbedder(64), request.getfixturevalue("valkey_url"), prefix=uuid.uuid4().hex, timeout=20
    ),
    "langchain": lambda request: LangChainEmbedder(HashingEmbeddings()),
    "langchain, documents": lambda request: LangChainEmbedder(HashingEmbeddings(), side="document"),
    "llamaindex": lambda request: LlamaIndexEmbedder(HashingEmbedding()),
}


@pytest.fixture(params=MADE)
async def embedder(request: pytest.FixtureRequest) -> AsyncIterator[Embedder]:
    made = MADE[request.param](request)
    yield made
    if hasattr(made, "aclose"):
        await made.aclose()


@pytest.fixture(params=FORMS)
def either(embedder: Embedder, request: pytest.FixtureRequest) -> Either:
    return Either(embedder, request.param)


def test_it_is_an_embedder_and_says_what_it_is(embedder):
    assert isinstance(embedder, Embedder)
    assert embedder.model
    assert embedder.dims > 0
    assert embedder.max_tokens > 0


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
async def test_every_text_becomes_a_unit_vector(either, text):
    rows = await either.embed([text])
    assert rows.shape == (1, either.target.dims)
    assert rows.dtype == np.float32
    assert np.linalg.norm(rows[0]) == pytest.approx(1.0, abs=1e-5)


async def test_rows_keep_the_order_of_the_texts(either):
    together = await either.embed(list(TEXTS.values()))
    assert together.shape == (len(TEXTS), either.target.dims)
    for text, row in zip(TEXTS.values(), together, strict=True):
        [alone] = await either.embed([text])
        assert float(alone @ row) == pytest.approx(1.0, abs=1e-5)


async def test_no_text_is_no_row(either):
    rows = await either.embed([])
    assert rows.shape == (0, either.target.dims)
    assert rows.dtype == np.float32


async def test_the_same_text_has_the_same_vector(either):
    assert np.array_equal(await either.embed(["again"]), await either.embed(["again"]))


async def test_both_forms_agree(embedder):
    for text in ("How do I reset my password?", ""):
        assert np.array_equal(embedder.embed([text]), await embedder.aembed([text]))
        assert embedder.fit(text) == await embedder.afit(text)


async def test_a_nearer_text_scores_higher(either):
    rows = await either.embed(["reset my password", "how to reset a password", "boil an egg"])
    assert rows[0] @ rows[1] > rows[0] @ rows[2]


async def test_fit_counts_the_tokens_before_truncation(either):
    short, long = await either.fit("one two three"), await either.fit("one two three " * 4_000)
    assert 3 <= short.tokens <= 5
    assert short.unknown == 0
    assert long.tokens >= 10_000 > either.target.max_tokens


def test_callers_in_many_loops_get_the_same(embedder):
    expected = embedder.embed(["a text"])

    async def ask() -> None:
        for rows in await asyncio.gather(*(embedder.aembed(["a text"]) for _ in range(4))):
            assert np.array_equal(rows, expected)
        if hasattr(embedder, "aclose"):
            await embedder.aclose()

    for _ in range(2):
        asyncio.run(ask())


# Memo


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


async def test_a_memo_embeds_each_text_once(form):
    counting = CountingEmbedder()
    memo = Either(MemoEmbedder(counting), form)
    first = await memo.embed(["a", "b", "a"])
    again = await memo.embed(["b", "c", "a"])
    assert counting.calls == [["a", "b"], ["c"]]
    assert np.array_equal(first[0], first[2])
    assert np.array_equal(first[0], again[2])
    assert np.array_equal(again, HashingEmbedder().embed(["b", "c", "a"]))


async def test_a_memo_does_not_remember_a_failure(form):
    counting = CountingEmbedder()
    memo = Either(MemoEmbedder(counting), form)
    counting.error = EmbeddingError("down")
    with pytest.raises(EmbeddingError):
        await memo.embed(["a"])
    counting.error = None
    assert np.array_equal(await memo.embed(["a"]), HashingEmbedder().embed(["a"]))
    assert counting.calls == [["a"], ["a"]]


async def test_a_memo_forgets_what_was_not_used_for_longest(form):
    counting = CountingEmbedder()
    memo = Either(MemoEmbedder(counting, size=2), form)
    for text in ("a", "b", "a", "c", "a", "b"):
        await memo.embed([text])
    assert counting.texts == ["a", "b", "c", "b"]


async def test_a_memo_smaller_than_a_call_still_answers(form):
    memo = Either(MemoEmbedder(CountingEmbedder(), size=1), form)
    assert (await memo.embed(["a", "b", "c"])).shape == (3, 256)


async def test_nobody_can_change_what_a_memo_remembers(form):
    memo = Either(MemoEmbedder(HashingEmbedder()), form)
    before = (await memo.embed(["a"])).copy()
    (await memo.embed(["a"]))[:] = 0
    assert np.array_equal(await memo.embed(["a"]), before)


def test_a_memo_needs_room_for_one():
    with pytest.raises(ConfigError):
        MemoEmbedder(HashingEmbedder(), size=0)


async def test_a_memo_remembers_how_a_text_fits(form):
    counting = CountingEmbedder()
    memo = Either(MemoEmbedder(counting), form)
    assert await memo.fit("a text") == await memo.fit("a text") == counting.fit("a text")
    assert counting.fitted == ["a text", "a text"]


# sentence-transformers


def test_nothing_heavy_is_imported_before_the_first_use():
    print_heavy = "print(sorted({'torch', 'transformers', 'sentence_transformers'} & set(sys.modules)))"
    code = f"import sys; from dispatch_core import *; e = SentenceTransformerEmbedder(); e.model; {print_heavy}"
    assert in_another_process(code) == "[]"


def test_an_absent_package_is_named_with_the_extra_that_brings_it():
    code = """
import importlib.util as util
from dispatch_core import MissingExtra, SentenceTransformerEmbedder
find = util.find_spec
util.find_spec = lambda name, *rest: None if name == "sentence_transformers" else find(name, *rest)
try:
    SentenceTransformerEmbedder().embed(["a"])
except MissingExtra as missing:
    print(missing.extra, missing)
"""
    assert "local" in in_another_process(code)
    assert "pip install 'ai-dispatcher[local]'" in in_another_process(code)


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"])
def test_a_hub_name_of_an_installed_offline_package_needs_no_hub(name, minilm):
    embedder = SentenceTransformerEmbedder(name)
    assert embedder.model == minilm.model == "all-MiniLM-L6-v2"
    assert np.allclose(embedder.embed(["a text"]), minilm.embed(["a text"]), atol=1e-6)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A transformer of two small layers with random weights and a vocabulary of a few words, saved in a folder."""
    from transformers import BertConfig, BertModel, BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "how", "do", "i", "reset", "a", "text"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(tmp_path)
    BertTokenizer.from_pretrained(tmp_path, model_max_length=32).save_pretrained(tmp_path)
    return tmp_path


async def test_a_model_in_a_folder_is_loaded_by_its_path(tiny):
    embedder = SentenceTransformerEmbedder(str(tiny))
    assert (embedder.dims, embedder.max_tokens) == (16, 32)
    rows = await embedder.aembed(["how do i reset", "a text"])
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 1], abs=1e-5)
    assert embedder.fit("how do i reset a frobnicator") == Fit(tokens=8, unknown=1)


async def test_a_name_that_cannot_be_found_is_an_embedding_error():
    embedder = SentenceTransformerEmbedder("no-such-owner/no-such-model")
    for _ in range(2):
        with pytest.raises(EmbeddingError, match="no-such-model"):
            embedder.embed(["a"])
        with pytest.raises(EmbeddingError):
            await embedder.afit("a")


def test_most_chinese_is_unknown_to_minilm(minilm):
    fit = minilm.fit("如何重置我的密码")
    assert fit.unknown / fit.tokens > 0.3
    assert minilm.fit("How do I reset my password?").unknown == 0


@pytest.mark.parametrize("name", ["minilm", "onnx_minilm"])
async def test_a_text_no_tokenizer_can_read_is_an_embedding_error(name, request):
    embedder = request.getfixturevalue(name)
    with pytest.raises(EmbeddingError):
        embedder.embed(["lone \ud800 surrogate"])
    with pytest.raises(EmbeddingError):
        await embedder.afit("lone \ud800 surrogate")


async def test_a_prompt_is_another_vector_space(tiny):
    plain, asking = SentenceTransformerEmbedder(str(tiny)), SentenceTransformerEmbedder(str(tiny), prompt="how do i ")
    assert plain.model != asking.model
    assert np.allclose(asking.embed(["reset"]), plain.embed(["how do i reset"]), atol=1e-6)
    assert await asking.afit("reset") == plain.fit("how do i reset")


def test_a_window_can_be_made_smaller(tiny):
    narrow = SentenceTransformerEmbedder(str(tiny), max_tokens=4)
    assert narrow.max_tokens == 4
    assert np.allclose(narrow.embed(["how do i reset"]), narrow.embed(["how do a text"]), atol=1e-6)
    with pytest.raises(ConfigError):
        SentenceTransformerEmbedder(max_tokens=0)


def test_a_long_text_of_long_words_is_read_as_far_as_the_window_goes(minilm):
    """Its first 4,000 characters are eight tokens."""
    words = " ".join(letter * 500 for letter in "abcdefghij")
    assert not np.allclose(minilm.embed([f"{words} one thing"]), minilm.embed([f"{words} another"]), atol=1e-3)
