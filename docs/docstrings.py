"""Docstrings as the reference shows them: examples are code, and names of this package are links.

An extension of griffe, which reads the sources for mkdocstrings (see zensical.toml).
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import griffe

_SHOWN = {
    path.rpartition(".")[2]: path
    for page in sorted((Path(__file__).parent / "reference").glob("*.md"), reverse=True)
    for path in re.findall(r"^::: (\S+)$", page.read_text("utf-8"), re.M)
}
"""The full names of what has an entry, by the name that docstrings use; the core's go before those of the fronts."""

_EXAMPLE = re.compile(r"^>>> .*(?:\n(?!\s*$).*)*", re.M)
_NAME = re.compile(r"(?<!`)`([A-Za-z_][\w.]*)`(?!`)")


class ShownDocstrings(griffe.Extension):
    """Rewrites each docstring to Markdown when its object has been read."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = shown(inspect.cleandoc(obj.docstring.value), own=obj.name)


def shown(text: str, own: str = "") -> str:
    """The Markdown of a docstring: no link leads from ``own`` to itself."""
    text = _EXAMPLE.sub(r"```pycon\n\g<0>\n```", text)
    text = re.sub(r"::$", ":", text, flags=re.M)

    def link(name: re.Match[str]) -> str:
        path = _SHOWN.get(name[1])
        return name[0] if path is None or name[1] == own else f"[`{name[1]}`][{path}]"

    parts = re.split(r"(```.*?```)", text, flags=re.S)
    return "".join(part if part.startswith("```") else _NAME.sub(link, part) for part in parts)
