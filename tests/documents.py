"""Markdown files whose Python blocks are run: what is in them, and what they print."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

from fakes import in_another_process

ROOT = Path(__file__).parents[1]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.S | re.M)
_BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", re.S | re.M)


class Block(NamedTuple):
    """A Python block, and the output that is shown right below it ("" if none is)."""

    code: str
    output: str


def blocks_of(page: Path) -> list[Block]:
    return [Block(code, output.strip()) for code, output in _BLOCK.findall(page.read_text("utf-8"))]


def fences_of(page: Path) -> list[tuple[str, str]]:
    """The language and the content of every fenced block."""
    return _FENCE.findall(page.read_text("utf-8"))


def run_as_one_program(blocks: list[Block]) -> list[str]:
    """What each block prints when all are run in their order, each with the names of those before it."""
    return [output.strip() for output in json.loads(in_another_process(_RUN, json.dumps([b.code for b in blocks])))]


_RUN = """
import contextlib, io, json, sys
names, outputs = {"__name__": "__main__"}, []
for number, code in enumerate(json.loads(sys.argv[1])):
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, f"<block {number}>", "exec"), names)
    outputs.append(printed.getvalue())
print(json.dumps(outputs))
"""
