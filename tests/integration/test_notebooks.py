"""The notebooks: each runs from its first cell to its last, and is what its script says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from notebooks.execute import FOLDER, executed, scripts, unexecuted

NOISE = re.compile(
    # Paths, places and people of a machine, and what tools say about themselves.
    r"/(?:home|root|tmp|Users|var|opt)/|[A-Z]:\\\\|site-packages|https?://(?!127\.0\.0\.1)|localhost:\d|[Ww]arning|it/s\]"
)


@pytest.fixture(params=scripts(), ids=lambda script: script.stem)
def script(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def _kept(script: Path) -> Any:
    return nbformat.read(script.with_suffix(".ipynb"), as_version=4)


def _code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _is_quiet(notebook: Any) -> None:
    for cell in _code(notebook):
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr", output
            assert not NOISE.search(_words(output)), _words(output)


def _words(output: Any) -> str:
    """Everything that an output says, without its pictures."""
    shown = {kind: said for kind, said in output.get("data", {}).items() if not kind.startswith("image/")}
    return str(output.get("text", "")) + json.dumps(shown, ensure_ascii=False)


def _kinds(notebook: Any) -> list[set[str]]:
    """Of each cell, what kinds of things it shows."""
    return [
        {kind for output in cell.outputs for kind in output.get("data", {output.output_type: ""})}
        for cell in _code(notebook)
    ]


def test_every_notebook_has_its_script_and_every_script_its_notebook():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == {path.stem for path in scripts()}


def test_script_and_notebook_say_the_same(script):
    kept = _kept(script)
    nbformat.validate(kept)
    assert [(cell.cell_type, cell.source) for cell in kept.cells] == [
        (cell.cell_type, cell.source) for cell in unexecuted(script).cells
    ]


def test_what_it_shows_is_kept_and_is_of_no_particular_machine(script):
    kept = _kept(script)
    _is_quiet(kept)
    assert [cell.execution_count for cell in _code(kept)] == list(range(1, len(_code(kept)) + 1))
    kinds = set().union(*_kinds(kept))
    assert {"image/png", "text/html", "stream"} <= kinds
    assert "language_info" not in kept.metadata


def test_it_runs_and_shows_the_kinds_of_things_that_are_kept(script):
    notebook = executed(script)
    _is_quiet(notebook)
    assert _kinds(notebook) == _kinds(_kept(script))
