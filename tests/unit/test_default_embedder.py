"""Which embedder a name becomes: a graph if there is one, else the model itself."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fakes import in_another_process

from dispatch_core import ConfigError, MemoEmbedder, OnnxEmbedder, SentenceTransformerEmbedder, default_embedder
from langchain_dispatch.embedder import as_embedder


@pytest.fixture
def exported(exported_minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """all-MiniLM-L6-v2 is where `export-model` would put it."""
    shutil.copytree(exported_minilm, tmp_path / "all-MiniLM-L6-v2")
    monkeypatch.setenv("DISPATCHER_MODELS", str(tmp_path))


NAMES = [None, "all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"]


@pytest.mark.parametrize("name", NAMES)
def test_without_a_graph_it_is_the_model_itself(name):
    embedder = default_embedder(name)
    assert isinstance(embedder, SentenceTransformerEmbedder)
    assert embedder.model == "all-MiniLM-L6-v2"


@pytest.mark.parametrize("name", NAMES)
def test_with_a_graph_it_is_the_graph_of_the_same_vectors(name, exported, minilm):
    embedder = default_embedder(name)
    assert isinstance(embedder, OnnxEmbedder)
    assert embedder.model == minilm.model
    assert embedder.embed(["a text"]) @ minilm.embed(["a text"]).T == pytest.approx(1.0, abs=1e-6)


def test_a_folder_with_a_graph_is_used_by_its_path(exported_minilm):
    assert isinstance(default_embedder(str(exported_minilm)), OnnxEmbedder)


def test_a_prefix_insists_on_the_runtime(exported):
    assert isinstance(default_embedder("local:all-MiniLM-L6-v2"), SentenceTransformerEmbedder)
    assert isinstance(default_embedder("onnx:all-MiniLM-L6-v2"), OnnxEmbedder)
    assert isinstance(default_embedder("onnx:not-exported"), OnnxEmbedder)
    assert default_embedder("onnx:all-MiniLM-L6-v2").model == "all-MiniLM-L6-v2"


@pytest.mark.parametrize("name", ["", "onnx:", "local:"])
def test_no_name_is_no_model(name):
    with pytest.raises(ConfigError, match="names no model"):
        default_embedder(name)


@pytest.mark.parametrize("absent", ["onnxruntime", "tokenizers"])
def test_without_the_runtime_a_graph_is_not_taken(absent, exported):
    code = """
import sys
sys.modules[sys.argv[1]] = None
from dispatch_core import default_embedder
print(type(default_embedder()).__name__)
"""
    assert in_another_process(code, absent) == "SentenceTransformerEmbedder"


def test_choosing_loads_nothing(exported):
    code = """
import sys
from dispatch_core import default_embedder
kind = type(default_embedder()).__name__
print(kind, sorted({"onnxruntime", "tokenizers", "huggingface_hub", "torch", "transformers"} & set(sys.modules)))
"""
    assert in_another_process(code) == "OnnxEmbedder []"


def test_a_langchain_user_gets_it_without_asking(exported):
    for given in (None, "all-MiniLM-L6-v2"):
        memo = as_embedder(given)
        assert isinstance(memo, MemoEmbedder)
        assert isinstance(memo.wrapped, OnnxEmbedder)
