"""Encoders as ONNX graphs, run by OpenVINO: for processors that compute in bfloat16, and other devices."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dispatch_core.embed.encoder import POOLED_OUTPUT, Graph
from dispatch_core.embed.graph_folder import GraphFolder
from dispatch_core.embed.onnx import OnnxEmbedder
from dispatch_core.embed.pooling import Floats, Ints
from dispatch_core.errors import ConfigError, MissingExtra

_PRECISIONS = ("f32", "bf16")


class OpenVinoEmbedder(OnnxEmbedder):
    """`OnnxEmbedder` with another runtime: the same graphs, settings and workers.

    ``precision="bf16"`` is faster on processors that compute in bfloat16. Similarities move by up to 0.003, so it is
    another vector space, with an id of its own. ``device`` is OpenVINO's, such as ``"CPU"`` or ``"GPU"``; threads are
    bounded on the CPU only.

    Raises what `OnnxEmbedder` raises, and `ConfigError` for another precision.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        path: str | Path | None = None,
        quantization: str | None = None,
        prompt: str | None = None,
        max_tokens: int | None = None,
        threads: int | None = None,
        precision: str = "f32",
        device: str = "CPU",
    ) -> None:
        if precision not in _PRECISIONS:
            raise ConfigError(f"precision is one of {', '.join(_PRECISIONS)}, got {precision!r}")
        self._precision = precision
        self._device = device
        super().__init__(
            model, path=path, quantization=quantization, prompt=prompt, max_tokens=max_tokens, threads=threads
        )
        if precision != "f32":
            self.model = f"{self.model}@{precision}"

    def _needs(self) -> None:
        try:
            import openvino  # noqa: F401
            import tokenizers  # noqa: F401
        except ImportError as error:
            raise MissingExtra(type(self).__name__, "openvino") from error

    def _open(self, folder: GraphFolder) -> Graph:
        return _OpenVinoGraph(folder.graph, self._device, self._precision)


class _OpenVinoGraph:
    def __init__(self, file: Path, device: str, precision: str) -> None:
        import openvino

        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision}
        if device == "CPU":
            # One core a call, as many calls as there are workers.
            settings |= {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
        self._compiled: Any = openvino.Core().compile_model(str(file), device, settings)
        self.inputs = frozenset(given.any_name for given in self._compiled.inputs)
        names: Sequence[str] = [out.any_name for out in self._compiled.outputs]
        self._output = names.index(POOLED_OUTPUT) if POOLED_OUTPUT in names else 0
        # A request holds the buffers of one run: each thread has its own.
        self._own = threading.local()

    def run(self, feeds: Mapping[str, Ints]) -> Floats:
        request = getattr(self._own, "request", None)
        if request is None:
            request = self._own.request = self._compiled.create_infer_request()
        found = request.infer(dict(feeds), share_inputs=True, share_outputs=False)
        return np.asarray(found[self._output], dtype=np.float32)
