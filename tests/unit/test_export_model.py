"""``dispatcher export-model``: the graph is the model, or there is no graph."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from fakes import in_another_process
from tiny_models import tiny_bert, tiny_xlm_roberta

from dispatch_core import EmbeddingError, OnnxEmbedder, SentenceTransformerEmbedder
from dispatch_core.__main__ import main
from dispatch_core.embed import export
from dispatch_core.embed.export import TEXTS, export_model
from dispatch_core.embed.graph_folder import DESCRIPTION, exported_folder, models_folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_bert(tmp_path_factory.mktemp("tiny"), prompts={"query": "query: "}, default_prompt="query"))


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "models"
    monkeypatch.setenv("DISPATCHER_MODELS", str(folder))
    return folder


def test_an_exported_model_is_found_by_its_name(tiny, models, capsys):
    assert main(["export-model", tiny]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "16 dimensions, 32 tokens" in out
    assert f"compared with the original on {len(TEXTS)} texts: numbers differ by" in out
    graph, original = OnnxEmbedder(tiny), SentenceTransformerEmbedder(tiny)
    assert graph.model == original.model
    assert np.allclose(graph.embed(TEXTS), original.embed(TEXTS), atol=1e-5)
    assert [graph.fit(text) for text in TEXTS] == [original.fit(text) for text in TEXTS]
    assert [path.name for path in models.iterdir()] == [exported_folder(tiny).name]


def test_the_comparison_is_kept_beside_the_graph(tiny, tmp_path):
    done = export_model(tiny, to=tmp_path / "here")
    assert done.folder == tmp_path / "here"
    assert {"model.onnx", "tokenizer.json", DESCRIPTION} <= {path.name for path in done.folder.iterdir()}
    assert len({path.stat().st_mode for path in done.folder.iterdir()}) == 1
    facts = json.loads((done.folder / DESCRIPTION).read_text())
    assert facts["model"] == tiny
    assert facts["verified"]["texts"] == len(TEXTS)
    assert facts["verified"]["difference"] == done.difference <= 1e-5
    assert OnnxEmbedder(path=done.folder).model == tiny


@pytest.mark.parametrize("pooling", ["cls", "max", ("mean", "lasttoken")], ids=str)
def test_pooling_is_inside_the_graph(pooling, tmp_path):
    done = export_model(str(tiny_bert(tmp_path, pooling=pooling)))
    assert done.dims == (16 if isinstance(pooling, str) else 32)
    assert done.difference <= 1e-5


def test_further_modules_are_inside_the_graph(tmp_path):
    done = export_model(str(tiny_bert(tmp_path, dense=True)))
    assert (done.dims, done.difference <= 1e-5) == (8, True)


def test_a_model_made_as_bge_m3_is(tmp_path):
    folder = str(tiny_xlm_roberta(tmp_path))
    assert export_model(folder).difference <= 1e-5
    graph, original = OnnxEmbedder(folder), SentenceTransformerEmbedder(folder)
    for text in ("how do  i reset", "frobnicate how", " how", "how\ttext", ""):
        assert graph.fit(text) == original.fit(text)


def test_int8_is_another_vector_space_in_another_folder(tiny, models, capsys):
    assert main(["export-model", tiny, "--int8"]) == 0
    assert "thresholds must be found anew" in capsys.readouterr().out
    with pytest.raises(EmbeddingError, match="no ONNX graph"):
        OnnxEmbedder(tiny).embed(["how"])
    rounded = OnnxEmbedder(tiny, quantization="int8")
    assert rounded.model == f"{tiny}@int8" == OnnxEmbedder(path=exported_folder(tiny, "int8")).model
    exact = SentenceTransformerEmbedder(tiny).embed(["how do i reset"])
    assert 0.9 < (rounded.embed(["how do i reset"]) * exact).sum() < 0.99999


def test_int8_that_was_not_exported_says_how_to():
    with pytest.raises(EmbeddingError, match="export-model all-MiniLM-L6-v2 --int8`"):
        OnnxEmbedder(quantization="int8").embed(["a"])


def test_a_graph_that_differs_is_not_kept_and_the_earlier_one_stays(tiny, models, monkeypatch, capsys):
    export_model(tiny)
    before = {path: path.read_bytes() for path in exported_folder(tiny).iterdir()}
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    assert main(["export-model", tiny]) == 2
    assert "the graph of" in (err := capsys.readouterr().err)
    assert "is not the model" in err
    assert {path: path.read_bytes() for path in exported_folder(tiny).iterdir()} == before
    assert [path.name for path in models.iterdir()] == [exported_folder(tiny).name]


def test_a_new_export_replaces_the_earlier_one(tiny, models):
    folder = export_model(tiny).folder
    (folder / "model.onnx").write_text("broken since")
    assert export_model(tiny).folder == folder
    assert OnnxEmbedder(tiny).embed(["how"]).shape == (1, 16)
    assert [path.name for path in models.iterdir()] == [folder.name]


def test_a_folder_with_other_things_is_not_replaced(tiny, tmp_path, capsys):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("Dear")
    assert main(["export-model", tiny, "--to", str(tmp_path / "letters")]) == 2
    assert "is no exported model: it is not replaced" in capsys.readouterr().err
    assert (tmp_path / "letters" / "dear.txt").read_text() == "Dear"


def test_an_empty_folder_may_be_filled(tiny, tmp_path):
    (tmp_path / "empty").mkdir()
    assert export_model(tiny, to=tmp_path / "empty").difference <= 1e-5


def test_a_model_that_cannot_be_found_is_told(capsys, models):
    assert main(["export-model", "no-such-owner/no-such-model"]) == 2
    assert "'no-such-owner/no-such-model' could not be loaded" in capsys.readouterr().err
    assert not models.exists()


@pytest.mark.parametrize("absent", ["torch", "sentence_transformers", "onnx", "onnxruntime"])
def test_an_absent_package_is_named_with_the_extra_that_brings_it(absent):
    code = """
import sys
sys.modules[sys.argv[1]] = None
from dispatch_core.__main__ import main
sys.stderr = sys.stdout
print(main(["export-model"]))
"""
    said = in_another_process(code, absent)
    assert said.endswith("2")
    assert "pip install 'ai-dispatcher[export]'" in said


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, "home/.cache/ai-dispatcher/models"),
        ("linux", {"XDG_CACHE_HOME": "xdg"}, "xdg/ai-dispatcher/models"),
        ("darwin", {}, "home/Library/Caches/ai-dispatcher/models"),
        ("win32", {}, "home/AppData/Local/ai-dispatcher/models"),
        ("win32", {"LOCALAPPDATA": "local"}, "local/ai-dispatcher/models"),
        ("linux", {"XDG_CACHE_HOME": "xdg", "DISPATCHER_MODELS": "mine"}, "mine"),
    ],
)
def test_models_are_kept_where_the_platform_keeps_such_things(platform, variables, expected, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: Path("home"))
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "DISPATCHER_MODELS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert models_folder() == Path(expected)
