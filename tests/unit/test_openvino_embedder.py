"""`OpenVinoEmbedder` runs the graphs of `OnnxEmbedder`, in one space with it unless it rounds."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from dispatch_core import ConfigError, MissingExtra, OpenVinoEmbedder

TEXTS = ["How do I reset my password?", "如何重置我的密码", "", "many words " * 3_000]


def test_the_vectors_are_those_of_the_graph_in_its_other_runtime(exported_minilm, onnx_minilm):
    embedder = OpenVinoEmbedder(path=exported_minilm)
    assert embedder.model == onnx_minilm.model
    assert (embedder.dims, embedder.max_tokens) == (onnx_minilm.dims, onnx_minilm.max_tokens)
    assert np.allclose(embedder.embed(TEXTS), onnx_minilm.embed(TEXTS), atol=1e-5)


def test_what_is_rounded_is_another_space(exported_minilm):
    exact, rounded = OpenVinoEmbedder(path=exported_minilm), OpenVinoEmbedder(path=exported_minilm, precision="bf16")
    assert rounded.model == f"{exact.model}@bf16"
    # Where the processor does not round, the vectors are the exact ones.
    assert np.allclose(exact.embed(TEXTS), rounded.embed(TEXTS), atol=0.05)


def test_threads_do_not_share_the_buffers_of_a_run(exported_minilm):
    embedder = OpenVinoEmbedder(path=exported_minilm)
    alone = [embedder.embed([text]) for text in TEXTS]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            together = pool.map(lambda text: embedder.embed([text]), TEXTS)
            assert all(np.allclose(one, other, atol=1e-6) for one, other in zip(alone, together, strict=True))


def test_another_precision_is_refused(exported_minilm):
    with pytest.raises(ConfigError, match="precision is one of f32, bf16"):
        OpenVinoEmbedder(path=exported_minilm, precision="int4")


def test_without_the_package_its_extra_is_named(exported_minilm, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtra, match=r"ai-dispatcher\[openvino\]"):
        OpenVinoEmbedder(path=exported_minilm).embed(["a"])
