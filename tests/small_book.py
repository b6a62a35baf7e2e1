"""A few questions and answers for the simulator, as the files it reads."""

from __future__ import annotations

import json
from pathlib import Path

QUESTIONS = [
    {"id": "1", "group": "paris", "text": "What is the capital of France?", "kind": "fact", "lang": "en"},
    {"id": "2", "group": "paris", "text": "Which city is France's capital?"},
    {"id": "3", "group": "rome", "text": "What is the capital of Italy?"},
    {"id": "4", "group": "重置", "text": "如何重置密码？"},
]
ANSWERS = [
    {"group": "paris", "answer": "The capital of France is Paris."},
    {"group": "rome", "answer": "The capital of Italy is Rome."},
    {"group": "重置", "answer": "在设置页面点击重置密码。"},
]
PARIS = ANSWERS[0]["answer"]
RAG = (
    "Context information is below.\n---------------------\nWhat is the capital of Italy?\nRome is in Italy.\n"
    "---------------------\nGiven the context information and not prior knowledge, answer the query.\n"
    "Query: {}\nAnswer: "
)


def written_to(folder: Path) -> tuple[Path, Path]:
    """The question file and the answer file."""
    paths = folder / "questions.jsonl", folder / "answers.jsonl"
    for path, rows in zip(paths, (QUESTIONS, ANSWERS), strict=True):
        path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return paths
