"""The questions over `benchmarks/data/compression`: long prompts with planted facts, the same on every run.

A topic is a kind of document (a lease, a package leaflet) with three of its kind that differ in every fact. All three
go into one prompt, so that each fact has two others that read the same beside it; the sentences around them are drawn
from patterns. Half of the topics are for development, the other half for the report.
"""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from dispatch_core import Message
from dispatch_core.compress.layout import estimated

DATA = Path(__file__).parent.parent / "data" / "compression"
LAYOUTS = ("documents", "chunks")
TOKENS = 4000
_CHUNK = 700
_CHOICE = re.compile(r"\[([^\[\]]*\|[^\[\]]*)\]")
_LLAMAINDEX = (
    "Context information is below.\n---------------------\n{context}\n---------------------\n"
    "Given the context information and not prior knowledge, answer the query.\nQuery: {question}\nAnswer: "
)
_LANGCHAIN = (
    "Use the following pieces of context to answer the question at the end. If you don't know the answer, just say "
    "that you don't know, don't try to make up an answer.\n\n{context}\n\nQuestion: {question}\nHelpful Answer:"
)


@dataclass(frozen=True, slots=True)
class Question:
    """A question, the context that holds its answer, and the line of it that must survive."""

    topic: str
    language: str
    half: str
    layout: str
    text: str
    answer: str
    line: str
    context: str

    def messages(self, context: str | None = None) -> list[Message]:
        """The prompt as LlamaIndex, or for chunks LangChain, makes it, of another ``context`` if one is given."""
        template = _LLAMAINDEX if self.layout == "documents" else _LANGCHAIN
        prompt = template.format(context=self.context if context is None else context, question=self.text)
        return [Message.of("system", "You answer questions about documents."), Message.of("user", prompt)]


def questions(half: str | None = None) -> Iterator[Question]:
    """All questions, or those of one half, "develop" or "report"; those with the same context follow each other."""
    for path in sorted(DATA.glob("*.toml")):
        topic = tomllib.loads(path.read_text(encoding="utf-8"))
        if half in (None, topic["half"]):
            for layout in LAYOUTS:
                context = _context(topic, path.stem, layout)
                for fact in topic["facts"]:
                    for name, value in zip(topic["names"], fact["values"], strict=True):
                        line = next(line for line in fact["say"].splitlines() if "{x}" in line)
                        yield Question(
                            path.stem,
                            topic["language"],
                            topic["half"],
                            layout,
                            fact["ask"].format(name=name),
                            value,
                            line.format(x=value),
                            context,
                        )


def _context(topic: dict[str, Any], stem: str, layout: str) -> str:
    documents = [_document(topic, stem, number) for number in range(len(topic["names"]))]
    if layout == "documents":
        return "\n\n".join("\n\n".join(document) for document in documents)
    chunks = [
        f"source: {name}\n\n{chunk}"
        for name, document in zip(topic["names"], documents, strict=True)
        for chunk in _chunks(document[1:])
    ]
    random.Random(stem).shuffle(chunks)
    return "\n\n".join(chunks)


def _chunks(blocks: list[str]) -> list[str]:
    chunks: list[str] = []
    held: list[str] = []
    for block in blocks:
        held.append(block)
        if sum(map(len, held)) > _CHUNK:
            chunks.append("\n\n".join(held))
            held = []
    return [*chunks, *(["\n\n".join(held)] if held else [])]


def _document(topic: dict[str, Any], stem: str, number: int) -> list[str]:
    """Title, headings and paragraphs of about a third of the tokens of a prompt."""
    rng = random.Random(f"{stem} {number}")
    space = "" if topic["language"] == "zh" else " "
    planted: dict[str, list[str]] = {section: [] for section in topic["sections"]}
    for fact in topic["facts"]:
        planted[fact["section"]].append(fact["say"].format(x=fact["values"][number]))
    room = TOKENS // len(topic["names"]) - sum(estimated(one) for facts in planted.values() for one in facts)
    drawn = _fillers(topic, rng, room // len(planted))
    blocks = [topic["title"].format(name=topic["names"][number])]
    for section, facts in planted.items():
        prose = [fact for fact in facts if fact[0] not in "-`|(1"] + next(drawn)
        rng.shuffle(prose)
        paragraphs = list(_paragraphs(prose, rng, space))
        for fact in facts:
            if fact[0] in "-`|(1":
                paragraphs.insert(rng.randrange(len(paragraphs) + 1), fact)
        blocks += [section, *paragraphs]
    return blocks


def _fillers(topic: dict[str, Any], rng: random.Random, tokens: int) -> Iterator[list[str]]:
    """For each section, sentences of so many tokens."""
    while True:
        drawn: list[str] = []
        size = 0
        while size < tokens:
            sentence = _CHOICE.sub(lambda found: rng.choice(found[1].split("|")), rng.choice(topic["fillers"]))
            if sentence not in drawn:
                drawn.append(sentence)
                size += estimated(sentence)
        yield drawn


def _paragraphs(sentences: list[str], rng: random.Random, space: str) -> Iterator[str]:
    left = iter(sentences)
    while taken := list(islice(left, rng.randint(2, 6))):
        yield space.join(taken)
