"""Names that a package shows, imported when they are asked for (PEP 562): importing it costs next to nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module


def names_of(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """The ``__getattr__`` and ``__dir__`` of a package whose names live in these modules of its own.

    To be taken where type checkers do not look: they believe a package with a ``__getattr__`` to have every name.
    """
    module = sys.modules[package]

    def getattr_(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found: object = getattr(import_module(f"{package}.{homes[name]}"), name)
        # From now on it is there like any other.
        setattr(module, name, found)
        return found

    def dir_() -> list[str]:
        return sorted({*vars(module), *homes})

    return getattr_, dir_
