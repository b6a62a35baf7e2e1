"""The README says what is true: its code runs, and prints what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import in_another_process

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", README.read_text("utf-8"), re.S | re.M)


@pytest.mark.parametrize(("code", "output"), BLOCKS, ids=range(len(BLOCKS)))
def test_a_code_block_prints_what_it_says(
    code: str, output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert in_another_process(code) == output.strip()


def test_the_commands_shown_exist() -> None:
    makefile = (README.parent / "Makefile").read_text("utf-8")
    for target in re.findall(r"^make (\w+)", README.read_text("utf-8"), re.M):
        assert re.search(rf"^{target}:", makefile, re.M)
    subprocess.run([sys.executable, "-m", "dispatch_core", "simulate", "--help"], check=True, capture_output=True)
