"""The command around `export_model`: arguments in, what was written and how exact it is out."""

from __future__ import annotations

import argparse
from pathlib import Path

from dispatch_core.embed.graph_folder import INT8, MODELS_VARIABLE

ABOUT = f"""Write a sentence-transformers model as an ONNX graph, with which embedding is faster and needs no torch.
The graph is compared with the original and kept only if its vectors are the same. OnnxEmbedder and the default
embedder find it by the model's name, in the user's cache folder or in ${MODELS_VARIABLE}."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``dispatcher export-model`` on `parser`."""
    add = parser.add_argument
    add("model", metavar="MODEL", nargs="?", default="all-MiniLM-L6-v2", help="name or folder (%(default)s)")
    add("--to", type=Path, metavar="DIR", help="write there instead; then OnnxEmbedder(path=DIR)")
    add("--int8", action="store_true", help="round weights to 8 bits: faster, and another vector space")


def run(options: argparse.Namespace) -> int:
    """Export and report; 0 if the graph is in place. Raises `DispatchError`."""
    from dispatch_core.embed.export import TEXTS, TOLERANCE, export_model

    print(f"exporting {options.model} ...", flush=True)
    done = export_model(options.model, to=options.to, quantization=INT8 if options.int8 else None)
    print(f"{done.folder}: {done.dims} dimensions, {done.max_tokens} tokens, {done.size / 1e6:.0f} MB")
    if done.quantization is None:
        print(
            f"compared with the original on {len(TEXTS)} texts: numbers differ by {done.difference:.1e} at most "
            f"(allowed: {TOLERANCE:.0e})"
        )
    else:
        print(
            f"compared with the original on {len(TEXTS)} texts: the cosine of a text's two vectors is "
            f"{done.lowest_cosine:.3f} at least, that of two texts moves by up to {done.similarity_shift:.3f}\n"
            f"its vectors are kept apart as {done.model!r}; thresholds must be found anew: dispatcher calibrate"
        )
    return 0
