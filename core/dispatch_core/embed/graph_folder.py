"""Folders that hold an encoder as an ONNX graph: those we export, and those of sentence-transformers on the hub."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dispatch_core.embed.pooling import kinds_of
from dispatch_core.errors import ConfigError, EmbeddingError

DESCRIPTION = "dispatcher.json"
"""The file by which a folder that we exported says what it holds."""

MODELS_VARIABLE = "DISPATCHER_MODELS"
"""Environment variable: the folder of exported models, if not the user's cache folder."""

FORMAT = 1
INT8 = "int8"

_HUB_FILES = ["onnx/model.onnx", "onnx/model.onnx_data", "*.json"]
_MODEL_FILES = (DESCRIPTION, "onnx/model.onnx", "modules.json", "config.json")
_HUB_OWNER = "sentence-transformers"


@dataclass(frozen=True, slots=True)
class GraphFolder:
    """A graph with what is to be known to use it.

    ``model`` is the name it was exported under, None for a hub's folder. ``pooling`` is empty if the graph pools by
    itself. ``prompt`` is the one the model is used with when none is given; ``pools_prompt`` is False if the tokens
    of a prompt are left out of the pooling.
    """

    graph: Path
    tokenizer: Path
    max_tokens: int
    model: str | None = None
    quantization: str | None = None
    pooling: tuple[str, ...] = ()
    prompt: str = ""
    pools_prompt: bool = True
    lower: bool = False


def short_name(model: str) -> str:
    """The name without the hub's default owner, as it is used in ids."""
    return model.removeprefix(f"{_HUB_OWNER}/")


def space_of(model: str, quantization: str | None, prompt: str | None) -> str:
    """The id of the vector space: exact graphs share it with sentence-transformers, rounded ones and prompts do not.

    A float32 graph differs from the original by less than one step of a float's seventh digit: vectors of both may
    meet in one store. A window of other length changes no vector of a text that fits in both.
    """
    name = short_name(model) + (f"@{quantization}" if quantization else "")
    return name if prompt is None else f"{name}|{prompt}"


def models_folder() -> Path:
    """Where exported models are kept: ``DISPATCHER_MODELS``, or below the user's cache folder."""
    chosen = os.environ.get(MODELS_VARIABLE)
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "ai-dispatcher" / "models"


def names_folder(model: str) -> bool:
    """Is it the path of a model's folder, rather than a name? Any folder may happen to be called like a model."""
    path = Path(model)
    stated = path.is_absolute() or model.startswith(".")
    return path.is_dir() and (stated or any((path / file).is_file() for file in _MODEL_FILES))


def exported_folder(model: str, quantization: str | None = None) -> Path:
    """Where the export of a model is kept, whether or not it exists."""
    name = str(Path(model).resolve()) if names_folder(model) else short_name(model)
    flat = name.strip("/\\").replace("/", "--").replace("\\", "--").replace(":", "")
    return models_folder() / (flat + (f"@{quantization}" if quantization else ""))


def find_folder(model: str, quantization: str | None = None, *, download: bool = False) -> Path | None:
    """The folder with the graph of a model given by name or path: its own, the exported one, the hub's; or None.

    The hub's local cache is looked through; its server is asked only for a ``download``, whose errors are raised.
    """
    exported = exported_folder(model, quantization)
    if (Path(model) / DESCRIPTION).is_file() or (quantization is None and _is_hub_folder(Path(model))):
        return Path(model)
    if (exported / DESCRIPTION).is_file():
        return exported
    if quantization is not None or Path(model).is_absolute() or names_folder(model):
        return None
    return _from_hub(model if "/" in model else f"{_HUB_OWNER}/{model}", download=download)


def read_folder(path: Path) -> GraphFolder:
    """Read what a folder says of itself. Raises `EmbeddingError` if it holds no graph that can be used."""
    try:
        if (path / DESCRIPTION).is_file():
            found = _exported(path)
        elif _is_hub_folder(path):
            found = _of_hub(path)
        else:
            raise EmbeddingError(
                f"{path} holds no ONNX graph: neither {DESCRIPTION}, which `dispatcher export-model` writes, "
                "nor onnx/model.onnx of a hub's folder"
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EmbeddingError(f"the settings of the model in {path} cannot be read: {error!r}") from error
    for file in (found.graph, found.tokenizer):
        if not file.is_file():
            raise EmbeddingError(f"{path} is not complete: there is no {file.name}")
    return found


def checked_quantization(asked: str | None) -> str | None:
    if asked not in (None, INT8):
        raise ConfigError(f"quantization is None or {INT8!r}, got {asked!r}")
    return asked


def _exported(path: Path) -> GraphFolder:
    facts = _json(path / DESCRIPTION)
    if facts["format"] != FORMAT:
        raise EmbeddingError(f"{path} was exported by another version; run `dispatcher export-model` again")
    return GraphFolder(
        graph=path / "model.onnx",
        tokenizer=path / "tokenizer.json",
        max_tokens=int(facts["max_tokens"]),
        model=str(facts["model"]),
        quantization=checked_quantization(facts["quantization"]),
        prompt=str(facts["prompt"]),
        pools_prompt=bool(facts["pools_prompt"]),
        lower=bool(facts["lower"]),
    )


def _of_hub(path: Path) -> GraphFolder:
    modules = [module["type"].rsplit(".", 1)[-1] for module in _json(path / "modules.json", [])]
    unknown = [name for name in modules if name not in ("Transformer", "Pooling", "Normalize")]
    if unknown:
        raise EmbeddingError(
            f"the model in {path} has modules that its graph lacks ({', '.join(unknown)}); "
            "`dispatcher export-model` makes a graph with all of them"
        )
    pooling = _json(path / "1_Pooling" / "config.json", {})
    settings = _json(path / "config_sentence_transformers.json", {})
    beside = path / "onnx" / "tokenizer.json"
    return GraphFolder(
        graph=path / "onnx" / "model.onnx",
        tokenizer=beside if beside.is_file() else path / "tokenizer.json",
        max_tokens=_window(path),
        pooling=kinds_of(pooling),
        prompt=(settings.get("prompts") or {}).get(settings.get("default_prompt_name")) or "",
        pools_prompt=bool(pooling.get("include_prompt", True)),
        lower=bool(_json(path / "sentence_bert_config.json", {}).get("do_lower_case", False)),
    )


def _window(path: Path) -> int:
    """In tokens; what sentence-transformers would come to."""
    stated = _json(path / "sentence_bert_config.json", {}).get("max_seq_length")
    if stated:
        return int(stated)
    limits = [
        _json(path / "tokenizer_config.json", {}).get("model_max_length"),
        _json(path / "config.json", {}).get("max_position_embeddings"),
    ]
    known = [int(limit) for limit in limits if limit]
    if not known:
        raise EmbeddingError(f"no file in {path} says how many tokens the model reads")
    return min(known)


def _is_hub_folder(path: Path) -> bool:
    return (path / "onnx" / "model.onnx").is_file()


def _from_hub(name: str, *, download: bool) -> Path | None:
    from huggingface_hub import snapshot_download, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(name, "onnx/model.onnx")
    except HFValidationError:
        # A path, rather than a name.
        return None
    if isinstance(cached, str):
        return Path(cached).parent.parent
    if not download:
        return None
    folder = Path(snapshot_download(name, allow_patterns=_HUB_FILES))
    return folder if _is_hub_folder(folder) else None


def _json(file: Path, otherwise: Any = None) -> Any:
    if otherwise is not None and not file.is_file():
        return otherwise
    return json.loads(file.read_text(encoding="utf-8"))
