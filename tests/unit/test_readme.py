"""The README says what is true: its code runs, and prints what it says. The Chinese one says the same."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from documents import ROOT, blocks_of, fences_of
from fakes import in_another_process

README = ROOT / "README.md"
CHINESE = ROOT / "README.zh-CN.md"
BLOCKS = blocks_of(README)


@pytest.mark.parametrize(("code", "output"), BLOCKS, ids=range(len(BLOCKS)))
def test_a_code_block_prints_what_it_says(
    code: str, output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert in_another_process(code) == output


def test_the_commands_shown_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"^make (\w+)", README.read_text("utf-8"), re.M):
        assert re.search(rf"^{target}:", makefile, re.M)
    subprocess.run([sys.executable, "-m", "dispatch_core", "simulate", "--help"], check=True, capture_output=True)


def test_the_chinese_readme_has_the_same_blocks() -> None:
    # They are run once, as those of the other.
    assert fences_of(CHINESE) == fences_of(README)


def _figures(page: Path) -> list[list[str]]:
    """The numbers in each line of the tables."""
    return [re.findall(r"\d[\d.,]*\d|\d", line) for line in re.findall(r"^\|.*\|$", page.read_text("utf-8"), re.M)]


def test_the_chinese_readme_has_the_same_figures() -> None:
    assert _figures(CHINESE) == _figures(README)


def test_the_chinese_readme_names_the_same_things() -> None:
    """What stands in backticks is code, in both languages: a setting that one of them has is in the other."""
    code, other = (set(re.findall(r"(?<!`)`([^`]+)`(?!`)", page.read_text("utf-8"))) for page in (README, CHINESE))
    words = {re.sub(r"\s+", " ", name) for name in code} ^ {re.sub(r"\s+", " ", name) for name in other}
    assert not words
