"""Identity: canonical text, digests of scopes and namespaces, entry ids. Pure and stable across processes."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

_DIGEST_BYTES = 20

_written = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=True).encode


def canonical(text: str) -> str:
    """The form in which two texts are the same text: Unicode NFC, unified line ends, no outer white space."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return (text if text.isascii() else unicodedata.normalize("NFC", text)).strip()


def digest(*parts: str, key: bytes = b"") -> str:
    """Hex digest of the parts in order; lengths are part of it, so parts can never run into each other."""
    return hashlib.blake2b(b"".join(map(_framed, parts)), digest_size=_DIGEST_BYTES, key=key).hexdigest()


def _framed(part: str) -> bytes:
    # Lone surrogates reach us from broken clients; they must have an identity too.
    data = part.encode("utf-8", "surrogatepass")
    return len(data).to_bytes(8, "little") + data


def namespace_digest(namespace: str, secret: bytes = b"") -> str:
    """What a store sees of a tenant's name. With a secret (at most 64 bytes) the name cannot be guessed back."""
    return digest("namespace", namespace, key=secret)


def scope_digest(facts: Any) -> str:
    """Digest of JSON-like facts, independent of the order of keys.

    Raises `TypeError` for anything that JSON cannot express: the ``repr`` of an object often holds its address,
    which would make every process, or every call, a scope of its own.
    """
    return digest("scope", _written(facts))


def full_scope(namespace: str, scope: str, embedder: str, sources: Sequence[tuple[str, str]] = ()) -> str:
    """The one filter of a search: tenant, exact part, vector space, and versions of what answers rest on."""
    versions = [part for source in sorted(sources) for part in source]
    return digest("full-scope", namespace, scope, embedder, *versions)


def entry_id(scope: str, text: str) -> str:
    return digest("entry", scope, canonical(text))


@lru_cache(maxsize=4096)
def scope_of(
    namespace: str, secret: bytes, scope: str, embedder: str, sources: tuple[tuple[str, str], ...] = ()
) -> str:
    """The full scope of a namespace that is not digested yet. Most questions share a few, which are remembered."""
    return full_scope(namespace_digest(namespace, secret), scope, embedder, sources)
