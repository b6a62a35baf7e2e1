"""Run the notebooks and keep what they show: ``python -m notebooks.execute``.

The percent scripts are the source. Each becomes the notebook beside it, run from its first cell to its last.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).resolve().parent
_WIDGET = "application/vnd.jupyter.widget-view+json"
TIMEOUT = 180
"""Seconds for one cell: there for hangs, on the slowest of machines."""


def scripts() -> Sequence[Path]:
    """The notebooks in their order, as percent scripts."""
    return sorted(FOLDER.glob("[0-9]*.py"))


def unexecuted(script: Path) -> Any:
    """The notebook of a script, without outputs; the same script gives the same bytes."""
    notebook = jupytext.read(script, fmt="py:percent")
    notebook.metadata = NotebookNode(
        kernelspec=NotebookNode(name="python3", display_name="Python 3", language="python")
    )
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata = NotebookNode()
    return notebook


def executed(script: Path) -> Any:
    """The same with the outputs of a run. Raises `nbclient.exceptions.CellExecutionError`."""
    notebook = unexecuted(script)
    with tempfile.TemporaryDirectory(prefix="dispatch-notebook-") as folder:
        client = NotebookClient(
            notebook,
            timeout=TIMEOUT,
            resources={"metadata": {"path": str(FOLDER)}},
            record_timing=False,
            # It warns of listeners on the way: there are none within one machine.
            extra_arguments=["--log-level=ERROR"],
        )
        client.execute(env=_environment(folder))
    # Which Python ran it is no part of a notebook, and a bar is for those who wait.
    for name in ("language_info", "widgets"):
        notebook.metadata.pop(name, None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = _merged([output for output in cell.outputs if _WIDGET not in output.get("data", {})])
    return notebook


def _merged(outputs: Sequence[Any]) -> list[Any]:
    """What was printed together, as one text."""
    merged: list[Any] = []
    for output in outputs:
        if merged and output.output_type == merged[-1].output_type == "stream" and output.name == merged[-1].name:
            merged[-1].text += output.text
        else:
            merged.append(output)
    return merged


def _environment(folder: str) -> dict[str, str]:
    root = FOLDER.parent
    ours = os.pathsep.join([str(root / "core"), str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {
        **os.environ,
        "PYTHONPATH": ours,
        "HF_HUB_OFFLINE": "1",
        # What somebody set up for himself is no part of a notebook.
        "IPYTHONDIR": folder,
        "MPLCONFIGDIR": os.environ.get("MPLCONFIGDIR", folder),
    }


def main(names: Sequence[str]) -> None:
    """Execute the notebooks whose names begin as given, or all."""
    for script in scripts():
        if names and not script.name.startswith(tuple(names)):
            continue
        began = time.perf_counter()
        nbformat.write(executed(script), script.with_suffix(".ipynb"))
        print(f"{script.stem}: {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
