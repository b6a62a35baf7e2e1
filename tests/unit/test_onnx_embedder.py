"""Graphs without torch: the same vectors as sentence-transformers, from every kind of folder, in every thread."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fakes import in_another_process
from tiny_models import WINDOW, tiny_bert, with_raw_graph

from dispatch_core import ConfigError, EmbeddingError, Fit, OnnxEmbedder, SentenceTransformerEmbedder
from dispatch_core.embed.encoder import GraphEncoder, batches
from dispatch_core.embed.graph_folder import DESCRIPTION, MODELS_VARIABLE
from dispatch_core.embed.tokens import Tokens

QUESTIONS = [
    "",
    "how do i reset my password",
    "is it open in the morning",
    "frobnicate",
    "how do i reset " * 30,
]
POOLINGS = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken", ("cls", "mean")]


@pytest.fixture(scope="session")
def hub_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as on the hub, whose model has a prompt for questions."""
    return with_raw_graph(tiny_bert(tmp_path_factory.mktemp("hub"), prompts={"query": "query: "}))


@pytest.fixture
def copy(hub_folder: Path, tmp_path: Path) -> Path:
    """The hub's folder, to be changed."""
    return shutil.copytree(hub_folder, tmp_path / "copy")


def _close(one, other):
    return np.allclose(one, other, atol=1e-5)


def test_the_vectors_and_their_name_are_those_of_the_original(onnx_minilm, minilm):
    texts = ["How do I reset my password?", "如何重置我的密码", "", "x" * 9_000, "many words " * 3_000]
    assert onnx_minilm.model == minilm.model == "all-MiniLM-L6-v2"
    assert (onnx_minilm.dims, onnx_minilm.max_tokens) == (minilm.dims, minilm.max_tokens)
    assert _close(onnx_minilm.embed(texts), minilm.embed(texts))
    assert [onnx_minilm.fit(text) for text in texts] == [minilm.fit(text) for text in texts]


def test_neither_torch_nor_transformers_is_imported(exported_minilm):
    code = """
import sys
from dispatch_core import OnnxEmbedder
embedder = OnnxEmbedder(path=sys.argv[1])
assert "onnxruntime" not in sys.modules
embedder.fit("a text")
print(embedder.embed(["a text"]).shape, sorted({"torch", "transformers", "sentence_transformers"} & set(sys.modules)))
"""
    assert in_another_process(code, str(exported_minilm)) == "(1, 384) []"


@pytest.mark.parametrize("absent", ["onnxruntime", "tokenizers"])
def test_an_absent_package_is_named_with_the_extra_that_brings_it(absent, exported_minilm):
    code = """
import sys
sys.modules[sys.argv[1]] = None
from dispatch_core import MissingExtra, OnnxEmbedder
for embedder in (OnnxEmbedder(path=sys.argv[2]), OnnxEmbedder("no-such/model")):
    try:
        embedder.embed(["a"])
    except MissingExtra as missing:
        print(missing)
"""
    said = in_another_process(code, absent, str(exported_minilm))
    assert said.count("OnnxEmbedder needs an optional dependency: pip install 'ai-dispatcher[onnx]'") == 2


# Folders


@pytest.mark.parametrize("pooling", POOLINGS, ids=str)
def test_a_raw_graph_is_pooled_as_the_folder_says(pooling, copy):
    kinds = [pooling] if isinstance(pooling, str) else list(pooling)
    config = {"embedding_dimension": 16, "pooling_mode": kinds, "include_prompt": True}
    (copy / "1_Pooling" / "config.json").write_text(json.dumps(config))
    assert _close(OnnxEmbedder(str(copy)).embed(QUESTIONS), SentenceTransformerEmbedder(str(copy)).embed(QUESTIONS))


def test_the_old_way_to_name_a_pooling_is_understood(copy):
    config = {"word_embedding_dimension": 16, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (copy / "1_Pooling" / "config.json").write_text(json.dumps(config))
    assert _close(OnnxEmbedder(str(copy)).embed(QUESTIONS), SentenceTransformerEmbedder(str(copy)).embed(QUESTIONS))


def test_a_folder_is_known_by_its_path_and_read_up_to_its_window(hub_folder):
    graph, original = OnnxEmbedder(str(hub_folder)), SentenceTransformerEmbedder(str(hub_folder))
    assert graph.model == original.model == str(hub_folder)
    assert (graph.dims, graph.max_tokens) == (16, WINDOW)
    assert graph.fit("how do i frobnicate") == original.fit("how do i frobnicate") == Fit(tokens=6, unknown=1)


def test_the_window_is_found_without_the_settings_of_sentence_transformers(copy):
    (copy / "sentence_bert_config.json").unlink()
    assert OnnxEmbedder(str(copy)).max_tokens == WINDOW


def test_a_text_in_capitals_is_lowered_where_the_folder_asks_for_it(copy):
    settings = json.loads((copy / "tokenizer.json").read_text())
    settings["normalizer"]["lowercase"] = False
    (copy / "tokenizer.json").write_text(json.dumps(settings))
    assert OnnxEmbedder(str(copy)).fit("HOW").unknown == 1
    config = json.loads((copy / "sentence_bert_config.json").read_text())
    (copy / "sentence_bert_config.json").write_text(json.dumps({**config, "do_lower_case": True}))
    assert OnnxEmbedder(str(copy)).fit("HOW").unknown == 0


def test_a_graph_in_the_hubs_cache_is_found_by_name(hub_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    kept = tmp_path / "models--owner--tiny"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("abc")
    shutil.copytree(hub_folder, kept / "snapshots" / "abc")
    embedder = OnnxEmbedder("owner/tiny")
    assert embedder.model == "owner/tiny"
    assert _close(embedder.embed(QUESTIONS), OnnxEmbedder(str(hub_folder)).embed(QUESTIONS))


def test_a_folder_that_happens_to_be_called_like_a_model_hides_nothing(exported_minilm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(MODELS_VARIABLE, str(exported_minilm.parent))
    expected = OnnxEmbedder(exported_minilm.name).embed(QUESTIONS)
    (tmp_path / exported_minilm.name).mkdir()
    embedder = OnnxEmbedder(exported_minilm.name)
    assert embedder.model == exported_minilm.name
    assert _close(embedder.embed(QUESTIONS), expected)


def test_a_path_with_a_name_is_known_by_the_name(hub_folder, exported_minilm):
    assert OnnxEmbedder("owner/tiny", path=hub_folder).model == "owner/tiny"
    assert OnnxEmbedder(path=hub_folder).model == str(hub_folder)
    assert OnnxEmbedder(str(exported_minilm)).model == "all-MiniLM-L6-v2"


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "no-such-owner/no-such-model", "/no/such/folder"])
async def test_a_name_without_a_graph_says_how_to_make_one(name):
    embedder = OnnxEmbedder(name)
    for _ in range(2):
        with pytest.raises(EmbeddingError, match=f"dispatcher export-model {name}`"):
            embedder.embed(["a"])
        with pytest.raises(EmbeddingError, match="no ONNX graph"):
            await embedder.afit("a")


def test_a_folder_without_a_graph_says_what_is_missing(tmp_path):
    with pytest.raises(EmbeddingError, match=r"neither dispatcher\.json.* nor onnx/model\.onnx"):
        OnnxEmbedder(path=tmp_path)


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        (DESCRIPTION, "{", "cannot be read"),
        (DESCRIPTION, "[]", "cannot be read"),
        (DESCRIPTION, '{"format": 1}', "cannot be read"),
        (DESCRIPTION, '{"format": 99}', "exported by another version"),
        ("model.onnx", None, "there is no model.onnx"),
        ("tokenizer.json", None, "there is no tokenizer.json"),
        ("model.onnx", "no graph", "cannot be loaded"),
        ("model.onnx_data", None, "cannot be loaded"),
        ("tokenizer.json", "{}", "cannot be loaded"),
    ],
)
def test_a_broken_export_is_an_embedding_error(file, text, said, exported_minilm, tmp_path):
    broken = shutil.copytree(exported_minilm, tmp_path / "broken")
    (broken / file).unlink()
    if text is not None:
        (broken / file).write_text(text)
    with pytest.raises(EmbeddingError, match=said):
        OnnxEmbedder(path=broken).embed(["a"])


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("1_Pooling/config.json", '{"pooling_mode": "median"}', "pooling median is not known"),
        ("modules.json", '[{"type": "sentence_transformers.models.Dense"}]', r"lacks \(Dense\).*export-model"),
        ("onnx/model.onnx", "no graph", "cannot be loaded"),
    ],
)
def test_a_hub_folder_that_cannot_be_used_is_an_embedding_error(file, text, said, copy):
    (copy / file).write_text(text)
    with pytest.raises(EmbeddingError, match=said):
        OnnxEmbedder(path=copy).embed(["a"])


def test_a_folder_that_tells_no_window_is_an_embedding_error(copy):
    for name in ("sentence_bert_config.json", "tokenizer_config.json", "config.json"):
        (copy / name).unlink()
    with pytest.raises(EmbeddingError, match="how many tokens"):
        OnnxEmbedder(path=copy)


@pytest.mark.parametrize("settings", [{"quantization": "int4"}, {"threads": 0}, {"max_tokens": 0}])
def test_settings_that_cannot_work_are_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        OnnxEmbedder(**settings)


def test_a_graph_that_is_not_rounded_is_not_taken_for_one_that_is(exported_minilm):
    with pytest.raises(ConfigError, match="is not int8"):
        OnnxEmbedder(path=exported_minilm, quantization="int8")


# Prompts


def test_a_prompt_is_another_vector_space(hub_folder):
    graph = OnnxEmbedder(str(hub_folder), prompt="query: ")
    original = SentenceTransformerEmbedder(str(hub_folder), prompt="query: ")
    assert graph.model == original.model != OnnxEmbedder(str(hub_folder)).model
    assert _close(graph.embed(QUESTIONS), original.embed(QUESTIONS))
    assert [graph.fit(text) for text in QUESTIONS] == [original.fit(text) for text in QUESTIONS]
    assert not _close(graph.embed(QUESTIONS), OnnxEmbedder(str(hub_folder)).embed(QUESTIONS))


def test_the_prompt_of_the_model_is_used_unless_another_is_given(copy):
    settings = json.loads((copy / "config_sentence_transformers.json").read_text())
    settings["default_prompt_name"] = "query"
    (copy / "config_sentence_transformers.json").write_text(json.dumps(settings))
    graph, original = OnnxEmbedder(str(copy)), SentenceTransformerEmbedder(str(copy))
    assert _close(graph.embed(QUESTIONS), original.embed(QUESTIONS))
    assert graph.fit("how") == original.fit("how") == OnnxEmbedder(str(copy), prompt="").fit("query: how")


def test_a_prompt_that_is_not_to_be_pooled_is_refused(copy):
    config = {"embedding_dimension": 16, "pooling_mode": "mean", "include_prompt": False}
    (copy / "1_Pooling" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="leaves the prompt out of its pooling"):
        OnnxEmbedder(str(copy), prompt="query: ").embed(["how"])
    assert OnnxEmbedder(str(copy)).embed(["how"]).shape == (1, 16)


# Tokens

LONG = {
    "words": "how do I reset my password? " * 400,
    "lines": "how do I reset my password?\n" * 400,
    "long words": " ".join(letter * 500 for letter in "abcdefghij") + " one two three",
    "one word": "a" * 50_000,
    "blanks first": " " * 9_000 + "one two three",
    "chinese": "如何重置我的密码" * 1_000,
    "numbers": "1234567890 " * 1_000,
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_a_long_text_is_cut_and_its_ids_are_the_same(text, exported_minilm):
    from tokenizers import Tokenizer

    whole = Tokenizer.from_file(str(exported_minilm / "tokenizer.json"))
    whole.no_padding()
    whole.enable_truncation(256)
    tokens = Tokens(exported_minilm / "tokenizer.json", 256)
    assert tokens.ids(text) == whole.encode(text).ids
    fit = tokens.fit(text)
    assert tokens.ids(text) == whole.encode(text).ids
    whole.no_truncation()
    assert fit.tokens == len(whole.encode(text).ids)


async def test_a_lookup_reads_its_text_once(onnx_minilm, monkeypatch):
    read = []
    monkeypatch.setattr(
        Tokens, "_read", lambda self, text, original=Tokens._read: read.append(text) or original(self, text)
    )
    onnx_minilm.fit("a text")
    first = onnx_minilm.embed(["a text"])
    await onnx_minilm.afit("another text")
    await onnx_minilm.aembed(["another text"])
    assert read == ["a text", "another text"]
    assert np.array_equal(onnx_minilm.embed(["a text"]), first)


def test_texts_that_are_never_embedded_are_forgotten(exported_minilm):
    tokens = Tokens(exported_minilm / "tokenizer.json", 256)
    for number in range(1_000):
        tokens.fit(f"text {number}")
    assert len(tokens._kept) == 256


# Threads


def test_a_blocking_call_runs_in_its_callers_thread_and_others_in_the_workers(onnx_minilm, monkeypatch):
    threads = []

    def seen(name):
        original = getattr(GraphEncoder, name)
        return lambda *args: threads.append(threading.current_thread().name) or original(*args)

    for name in ("rows", "fit"):
        monkeypatch.setattr(GraphEncoder, name, seen(name))

    async def ask():
        await onnx_minilm.aembed(["a text"])
        await onnx_minilm.afit("a text")
        await onnx_minilm.afit("a long text " * 1_000)

    onnx_minilm.embed(["a text"])
    asyncio.run(ask())
    here = threading.current_thread().name
    assert [name if name == here else name.split("_")[0] for name in threads] == [
        here,
        "dispatch-embed",
        here,
        "dispatch-embed",
    ]


async def test_a_model_is_never_loaded_on_the_event_loop(hub_folder, monkeypatch):
    loaders = []
    original = OnnxEmbedder._load
    monkeypatch.setattr(
        OnnxEmbedder, "_load", lambda self: loaders.append(threading.current_thread()) or original(self)
    )
    embedder = OnnxEmbedder(str(hub_folder))
    assert (await asyncio.gather(*(embedder.afit("how") for _ in range(8)))) == [Fit(3, 0)] * 8
    assert len(loaders) == 1
    assert loaders[0] is not threading.current_thread()


async def test_as_many_texts_are_embedded_at_once_as_there_are_workers(hub_folder, monkeypatch):
    embedder = OnnxEmbedder(str(hub_folder), threads=3)
    embedder.load()
    together = threading.Barrier(3, timeout=30)
    original = GraphEncoder.rows
    monkeypatch.setattr(
        GraphEncoder, "rows", lambda self, texts: together.wait() is not None and original(self, texts)
    )
    rows = await asyncio.gather(*(embedder.aembed([text]) for text in ("how", "do", "i")))
    assert len(rows) == 3


async def test_many_texts_have_the_vectors_they_have_alone(hub_folder):
    embedder = OnnxEmbedder(str(hub_folder))
    texts = [" ".join(["how do i reset"] * (number % 9)) for number in range(200)]
    alone = np.concatenate([embedder.embed([text]) for text in texts])
    assert _close(embedder.embed(texts), alone)
    assert _close(await embedder.aembed(texts), alone)


def test_many_threads_get_what_one_gets(hub_folder):
    embedder = OnnxEmbedder(str(hub_folder))
    texts = QUESTIONS * 40

    def ask(text):
        return embedder.fit(text), embedder.embed([text])

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, texts))
    for text, (fit, rows) in zip(texts, answers, strict=True):
        assert fit == embedder.fit(text)
        assert np.array_equal(rows, embedder.embed([text]))


def test_batches_hold_texts_of_similar_length_and_every_text_once():
    lengths = [256, 3, 250, 4, 5, 3] + [8] * 40
    found = list(batches(lengths))
    assert sorted(position for batch in found for position in batch) == list(range(len(lengths)))
    assert all(len(batch) <= 16 and len(batch) * max(lengths[n] for n in batch) <= 1024 for batch in found)
    assert {0, 2} <= set(found[-1])
    assert list(batches([])) == []
    assert list(batches([5_000, 6_000])) == [[0], [1]]


def _exit_code_of_a_child(embedder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking a process with threads: that is the point
        child = os.fork()
    if child == 0:
        try:
            both = embedder.embed(["how"]), asyncio.run(embedder.aembed(["how"]))
            os._exit(7 if np.array_equal(*both) else 8)
        finally:
            os._exit(9)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_forked_child_has_workers_of_its_own(hub_folder):
    embedder = OnnxEmbedder(str(hub_folder))
    before = asyncio.run(embedder.aembed(["how"]))
    assert _exit_code_of_a_child(embedder) == 7
    assert np.array_equal(asyncio.run(embedder.aembed(["how"])), before)


def test_a_child_forked_while_a_thread_loads_the_model_is_not_locked_out(hub_folder):
    embedder = OnnxEmbedder(str(hub_folder))
    with embedder._loading:
        assert _exit_code_of_a_child(embedder) == 7
