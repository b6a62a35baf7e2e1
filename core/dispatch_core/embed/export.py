"""``dispatcher export-model``: a sentence-transformers model as one ONNX graph, compared with the original.

Pooling and normalisation are inside the graph. It is put in place only if its vectors are those of the original.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import itertools
import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dispatch_core.embed.encoder import POOLED_OUTPUT
from dispatch_core.embed.graph_folder import DESCRIPTION, FORMAT, INT8, exported_folder, short_name
from dispatch_core.embed.onnx import OnnxEmbedder
from dispatch_core.embed.sentence import loaded_model
from dispatch_core.errors import EmbeddingError, MissingExtra
from dispatch_core.types import Matrix

TOLERANCE = 1e-5
"""Largest difference of a number in a vector that an exact graph may show."""

TEXTS = (
    "",
    "?",
    "a",
    "Hello",
    "How do I reset my password?",
    "how can i change the pasword of my acount",
    "Is the return of an opened item possible within 30 days, and who pays the shipping costs of EUR 4.99?",
    "Convert 60k km/h to m/s; 1,000.5 != 1000,5",
    "The café's naïve façade cost £12½ in Zürich.",
    "ПРИВЕТ, как изменить пароль?",
    "如何重置我的密码",
    "パスワードをリセットするには",
    "كيف أغير كلمة المرور",
    "🎉🏳️‍🌈👩‍👩‍👧 party",
    "def f(x: int) -> int:\n    return x ** 2  # squared",
    "SELECT id FROM users WHERE name = 'O''Brien' -- done",
    "https://example.org/path?q=1&lang=en#part",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "x" * 300,
    "[CLS] [SEP] [PAD] <s> </s> <|endoftext|>",
    "   blanks   before \t between \n and after   ",
    "Yes. No. Perhaps! Who knows? " * 12,
    "the quick brown fox jumps over the lazy dog " * 40,
    "long words and numbers 12345 67890 mixed with more of the same " * 400,
)
"""What both are compared on: short and long, beyond the window, in many scripts."""

_NEEDED = ("torch", "sentence_transformers", "onnx", "onnxruntime", "tokenizers")
_OPSET = 17


@dataclass(frozen=True, slots=True)
class Export:
    """What was written where, and how far its vectors are from the original's on `TEXTS`.

    ``difference`` is the largest of any number in a vector, ``similarity_shift`` the largest change of the cosine of
    two texts, ``lowest_cosine`` that of a text with itself.
    """

    folder: Path
    model: str
    quantization: str | None
    dims: int
    max_tokens: int
    size: int
    difference: float
    similarity_shift: float
    lowest_cosine: float


def export_model(model: str, *, to: Path | None = None, quantization: str | None = None) -> Export:
    """Export a model, by name or path, into a folder that `OnnxEmbedder` finds by the same name, or into ``to``.

    An earlier export there is replaced as a whole. Raises `MissingExtra` without torch, and `EmbeddingError` if the
    model cannot be loaded or exported, or if the graph differs by more than `TOLERANCE`; then nothing is changed.
    """
    if any(importlib.util.find_spec(name) is None for name in _NEEDED):
        raise MissingExtra("dispatcher export-model", "export")
    target = to or exported_folder(model, quantization)
    if target.exists() and not (target / DESCRIPTION).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise EmbeddingError(f"{target} exists and is no exported model: it is not replaced")
    # Weights stored as halves are widened: graphs of halves are slow where the vectors are made on a CPU.
    encoder = loaded_model(model, device="cpu").float().eval()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as scratch:
        made = Path(scratch) / "new"
        made.mkdir()
        facts = _facts(encoder, short_name(model), quantization)
        try:
            _write(encoder, made, facts)
            if quantization == INT8:
                _to_int8(made / "model.onnx")
            _weights_apart(made / "model.onnx")
        except Exception as error:
            raise EmbeddingError(f"{model!r} cannot be exported: {error}") from error
        done = _compared(encoder, made, target, facts)
        _describe(made, {**facts, "verified": _verified(done)})
        _swap(made, target, Path(scratch) / "old")
    return done


def _facts(encoder: Any, model: str, quantization: str | None) -> dict[str, Any]:
    pooling = next((part for part in encoder if hasattr(part, "include_prompt")), None)
    return {
        "format": FORMAT,
        "model": model,
        "quantization": quantization,
        "max_tokens": int(encoder.max_seq_length),
        "prompt": encoder.prompts.get(encoder.default_prompt_name) or "",
        "pools_prompt": bool(getattr(pooling, "include_prompt", True)),
        "lower": bool(getattr(encoder[0], "do_lower_case", False)),
        "made_with": {name: importlib.metadata.version(name) for name in ("torch", "onnx", "sentence-transformers")},
    }


def _write(encoder: Any, folder: Path, facts: dict[str, Any]) -> None:
    import torch

    tokenizer = encoder.tokenizer
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    _describe(folder, facts)
    typed = "token_type_ids" in tokenizer.model_input_names

    class Unit(torch.nn.Module):
        """All modules of the model, then unit length."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            features = {"input_ids": input_ids, "attention_mask": attention_mask}
            if typed:
                features["token_type_ids"] = torch.zeros_like(input_ids)
            return torch.nn.functional.normalize(self.encoder(features)["sentence_embedding"], p=2.0, dim=1)

    example = tokenizer(["an example", "of two texts"], padding=True, return_tensors="pt")
    both = {0: "texts", 1: "tokens"}
    with torch.no_grad(), _narrowly_quiet():
        torch.onnx.export(
            Unit(),
            (example["input_ids"], example["attention_mask"]),
            str(folder / "model.onnx"),
            dynamo=False,
            opset_version=_OPSET,
            input_names=["input_ids", "attention_mask"],
            output_names=[POOLED_OUTPUT],
            dynamic_axes={"input_ids": both, "attention_mask": both, POOLED_OUTPUT: {0: "texts"}},
        )


@contextmanager
def _narrowly_quiet() -> Iterator[None]:
    """Tracing tells what might go wrong; the comparison afterwards says whether it did."""
    from torch.jit._trace import TracerWarning  # not exported by name

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=TracerWarning)
        warnings.filterwarnings(
            "ignore", r"You are using the legacy TorchScript-based ONNX export", DeprecationWarning
        )
        warnings.filterwarnings("ignore", r"The feature will be removed", DeprecationWarning)
        warnings.filterwarnings("ignore", r"Exporting aten::index operator", UserWarning)
        yield


def _to_int8(graph: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    exact = graph.with_name("exact.onnx")
    graph.rename(exact)
    root = logging.getLogger()
    root.addFilter(_is_no_advice)
    try:
        quantize_dynamic(exact, graph, weight_type=QuantType.QInt8, per_channel=True)
    finally:
        root.removeFilter(_is_no_advice)
    exact.unlink()


def _weights_apart(graph: Path) -> None:
    """Weights in a file of their own are mapped, not read: loading takes a third, and processes share the memory."""
    import onnx

    model = onnx.load(graph)
    weights = graph.with_name("model.onnx_data")
    for part in graph.parent.iterdir():
        # Of a model beyond 2 GB each weight is a file by now.
        if part.name not in (DESCRIPTION, "tokenizer.json"):
            part.unlink()
    onnx.save_model(model, graph, save_as_external_data=True, location=weights.name)
    if weights.exists():
        weights.chmod(graph.stat().st_mode)


def _is_no_advice(record: logging.LogRecord) -> bool:
    """The advice to optimise the graph first: onnxruntime does so at loading, and the drift is measured and told."""
    return "pre-processing before quantization" not in record.getMessage()


def _compared(encoder: Any, made: Path, target: Path, facts: dict[str, Any]) -> Export:
    """Each text alone and all together; for an exact graph the difference must be none."""
    expected: Matrix = encoder.encode(
        list(TEXTS), batch_size=1, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
    )
    graph = OnnxEmbedder(path=made)
    found = np.concatenate([graph.embed([text]) for text in TEXTS])
    together = graph.embed(TEXTS)
    difference = float(max(np.abs(found - expected).max(), np.abs(together - expected).max()))
    if facts["quantization"] is None and not difference <= TOLERANCE:
        raise EmbeddingError(
            f"the graph of {facts['model']!r} is not the model: its vectors differ by up to {difference:.1e}, "
            f"allowed are {TOLERANCE:.0e}; it was not kept"
        )
    pairs = list(itertools.combinations(range(len(TEXTS)), 2))
    shifts = [abs(float(found[a] @ found[b]) - float(expected[a] @ expected[b])) for a, b in pairs]
    return Export(
        folder=target,
        model=graph.model,
        quantization=facts["quantization"],
        dims=graph.dims,
        max_tokens=graph.max_tokens,
        size=sum(file.stat().st_size for file in made.iterdir()),
        difference=difference,
        similarity_shift=max(shifts),
        lowest_cosine=float((found * expected).sum(axis=1).min()),
    )


def _verified(done: Export) -> dict[str, Any]:
    return {
        "texts": len(TEXTS),
        "difference": done.difference,
        "similarity_shift": done.similarity_shift,
        "lowest_cosine": done.lowest_cosine,
    }


def _describe(folder: Path, facts: dict[str, Any]) -> None:
    (folder / DESCRIPTION).write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _swap(made: Path, target: Path, old: Path) -> None:
    """Whoever opens the folder finds all of the old export or all of the new one; between two renames, none."""
    if target.exists():
        target.rename(old)
    try:
        made.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
