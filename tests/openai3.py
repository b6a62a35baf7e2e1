"""OpenAI's SDK of version 3, in a folder of its own: what stands beside it here may need version 2.

``python tests/openai3.py`` fetches it where pip finds it: nothing else is installed anew.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "build" / "openai3"

_WANTED = "openai>=3,<4"


def found() -> Path | None:
    """The folder to put on ``PYTHONPATH``, if it is there."""
    return FOLDER if (FOLDER / "openai").is_dir() else None


def fetch() -> None:
    """Install it and what it needs into the folder, all or nothing."""
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER.parent) as work:
        root = Path(work, "root")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*pip, "--target", str(root), _WANTED], check=True)
        shutil.rmtree(FOLDER, ignore_errors=True)
        root.rename(FOLDER)


def main() -> None:
    if found() is None:
        try:
            fetch()
        except (OSError, subprocess.CalledProcessError) as error:
            if os.environ.get("CI") == "true":
                raise
            print(f"version 3 of OpenAI's SDK could not be fetched: {error}", file=sys.stderr)
    print(found() or "no version 3 of OpenAI's SDK: its tests are left out")


if __name__ == "__main__":
    main()
