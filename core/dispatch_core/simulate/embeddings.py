"""What an embedding request of the OpenAI protocol asks, and the vectors that answer it. No I/O.

Texts of one meaning group lie close together, whatever their words; texts nobody listed lie as close as the words
they share. Every model has a space of its own. A vector asked for with fewer ``dimensions`` is the beginning of the
whole one, made unit length again.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, cast

import numpy as np

from dispatch_core.embed.hashing import HashingEmbedder
from dispatch_core.simulate.answers import AnswerBook
from dispatch_core.simulate.request import ApiError, is_count, model_of, need, parsed
from dispatch_core.simulate.text import count, digest
from dispatch_core.types import Matrix, Vector

MAX_INPUTS = 2048
MAX_INPUT_TOKENS = 8192
MAX_REQUEST_TOKENS = 300_000
SIZES: Mapping[str, int] = {"text-embedding-3-small": 1536, "text-embedding-3-large": 3072}
OTHER_SIZE = 1536
FIXED = "text-embedding-ada-002"
"""The model that knows no ``dimensions``."""

_LATENT = 256
_OWN_WORDS = 0.35
"""How far a text of a meaning group lies from its middle, in the direction of its own words."""

_hashing = HashingEmbedder(_LATENT)


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """A valid request. ``texts`` stand for token arrays too; ``tokens`` are those of all inputs."""

    model: str
    texts: tuple[str, ...]
    tokens: int
    dimensions: int
    encoding: Literal["float", "base64"]


def parse_embedding(body: bytes) -> EmbeddingRequest:
    """Read a request body. Raises `ApiError` (400) in the words of the API for anything it cannot answer."""
    data = parsed(body)
    model = model_of(data)
    inputs = _inputs(data.get("input"))
    sizes = [len(given) if isinstance(given, list) else count(given) for given in inputs]
    for size in sizes:
        if size > MAX_INPUT_TOKENS:
            message = f"This model's maximum context length is {MAX_INPUT_TOKENS} tokens, however you requested "
            message += f"{size} tokens ({size} in your prompt; 0 for the completion). Please reduce your prompt; or "
            raise ApiError(400, f"{message}completion length.")
    if sum(sizes) > MAX_REQUEST_TOKENS:
        name = "max_tokens_per_request"
        message = f"Requested {sum(sizes)} tokens, max {MAX_REQUEST_TOKENS} tokens per request"
        raise ApiError(400, message, kind=name, code=name)
    encoding = data.get("encoding_format") or "float"
    need(encoding in ("float", "base64"), "encoding_format", "'float' or 'base64'", "invalid_value")
    return EmbeddingRequest(
        model=model,
        texts=tuple(_text_of(given) for given in inputs),
        tokens=sum(sizes),
        dimensions=_dimensions(data.get("dimensions"), model),
        encoding="base64" if encoding == "base64" else "float",
    )


def vectors(request: EmbeddingRequest, book: AnswerBook) -> Matrix:
    """One unit vector for each input, shape ``(inputs, dimensions)``: the same in every process."""
    latent = np.stack([_latent(text, book) for text in request.texts])
    rows = latent @ _basis(request.model)[:, : request.dimensions]
    unit: Matrix = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def embedding_list(request: EmbeddingRequest, rows: Matrix) -> dict[str, Any]:
    """The body of a response."""
    data = [
        {"object": "embedding", "index": index, "embedding": _encoded(row, request.encoding)}
        for index, row in enumerate(rows)
    ]
    usage = {"prompt_tokens": request.tokens, "total_tokens": request.tokens}
    return {"object": "list", "data": data, "model": request.model, "usage": usage}


def _inputs(given: Any) -> list[str | list[int]]:
    """A text, texts, an array of tokens, or arrays of tokens."""
    if given is None:
        code = "missing_required_parameter"
        raise ApiError(400, "Missing required parameter: 'input'.", param="input", code=code)
    single = isinstance(given, str) or (isinstance(given, list) and bool(given) and _is_token(given[0]))
    inputs = [given] if single else given
    need(isinstance(inputs, list), "input", "a string, or an array of strings or of tokens")
    need(bool(inputs), "input", "an array with at least one element", "empty_array")
    if len(inputs) > MAX_INPUTS:
        message = f"Invalid 'input': array too long. Expected an array with maximum length {MAX_INPUTS}, but got an "
        raise ApiError(400, f"{message}array with length {len(inputs)} instead.", code="array_above_max_length")
    kind = str if isinstance(inputs[0], str) else list
    for one in inputs:
        need(isinstance(one, kind), "input", "strings only, or arrays of tokens only")
        need(bool(one), "input", "no empty string or array", "invalid_value")
        need(kind is str or all(map(_is_token, one)), "input", "tokens: integers of at least 0")
    return cast("list[str | list[int]]", inputs)


def _is_token(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _text_of(given: str | Sequence[int]) -> str:
    """Tokens are words to a simulator that has no vocabulary: arrays that share tokens lie close."""
    return given if isinstance(given, str) else " ".join(map(str, given))


def _dimensions(given: Any, model: str) -> int:
    whole = SIZES.get(model, OTHER_SIZE)
    if given is None:
        return whole
    if model == FIXED:
        raise ApiError(400, "This model does not support specifying dimensions.", param="dimensions")
    need(is_count(given, whole), "dimensions", f"an integer from 1 to {whole}", "invalid_value")
    return int(given)


def _latent(text: str, book: AnswerBook) -> Vector:
    words: Vector
    [words] = _hashing.embed([text])
    group = book.listed(text)
    if group is None:
        return words
    mixed: Vector = _direction(f"group {group}") + np.float32(_OWN_WORDS) * words
    return mixed


@lru_cache(maxsize=4096)
def _direction(name: str) -> Vector:
    drawn = _dice(name).standard_normal(_LATENT)
    unit: Vector = (drawn / np.linalg.norm(drawn)).astype(np.float32)
    return unit


@lru_cache(maxsize=8)
def _basis(model: str) -> Matrix:
    """The space of a model: a random projection, which keeps angles."""
    size = SIZES.get(model, OTHER_SIZE)
    basis: Matrix = _dice(f"model {model}").standard_normal((_LATENT, size)).astype(np.float32)
    return basis


def _dice(name: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(int(digest(name), 16)))


def _encoded(row: Vector, encoding: str) -> str | list[float]:
    if encoding == "base64":
        return base64.b64encode(row.astype("<f4").tobytes()).decode()
    return [round(float(number), 8) for number in row]
