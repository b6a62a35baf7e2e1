"""Redis 8, which has vector sets, for the tests: the one on the PATH, or Debian's packages unpacked in a folder.

``python tests/redis8.py`` fetches the packages where `apt-get` is and no such server: nothing is installed, the
server runs on a C library of its own. `DISPATCH_TEST_REDIS8` names another folder.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(os.environ.get("DISPATCH_TEST_REDIS8") or Path(__file__).parent.parent / "build" / "redis8")

_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
_RELEASE = "trixie"
_URI = re.compile(r"(?m)^(?:URIs:|deb(?: \[.*?\])?) *(\S+/debian)(?:/| |$)")
_PACKAGES = ["redis-server", "redis-tools", "libc6", "libssl3t64", "libjemalloc2", "liblua5.1-0", "libsystemd0",
             "liblzf1", "libatomic1", "libstdc++6", "libgcc-s1", "libcap2"]  # fmt: skip
_START = """#!/bin/sh
here=$(dirname "$0")
exec "$here"/{loader} --library-path "$here"/{libraries} "$here"/usr/bin/redis-server "$@"
"""


def found() -> Path | None:
    """The server's program, if there is one."""
    on_path = shutil.which("redis-server")
    if on_path is not None and _major(on_path) >= 8:
        return Path(on_path)
    unpacked = FOLDER / "redis-server"
    return unpacked if unpacked.exists() else None


def _mirror() -> str:
    """Where this machine gets its own packages of Debian."""
    for source in (Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))):
        mirror = _URI.search(source.read_text()) if source.is_file() else None
        if mirror is not None:
            return mirror.group(1)
    sys.exit("no mirror of Debian in /etc/apt")


def fetch() -> None:
    """Download and unpack the packages into the folder, all or nothing."""
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER.parent) as work:
        packages, root = Path(work, "packages"), Path(work, "root")
        for folder in (packages, root, Path(work, "lists/partial"), Path(work, "cache/archives/partial")):
            folder.mkdir(parents=True)
        sources = Path(work, "sources.list")
        sources.write_text(f"deb [signed-by={_KEYS}] {_mirror()} {_RELEASE} main\n")
        settings = {
            "Dir::Etc::sourcelist": sources,
            "Dir::Etc::sourceparts": "-",
            "Dir::State::lists": Path(work, "lists"),
            "Dir::Cache": Path(work, "cache"),
            "APT::Sandbox::User": "root",
        }
        options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        for command in (["update"], ["download", *_PACKAGES]):
            subprocess.run(["apt-get", "-qq", *options, *command], cwd=packages, check=True)
        for package in sorted(packages.glob("*.deb")):
            subprocess.run(["dpkg", "-x", package, root], check=True)
        [loader] = root.glob("usr/lib/*/ld-linux*")
        start = root / "redis-server"
        start.write_text(
            _START.format(loader=loader.relative_to(root), libraries=loader.parent.relative_to(root)),
        )
        start.chmod(0o755)
        shutil.rmtree(FOLDER, ignore_errors=True)
        root.rename(FOLDER)


def _major(program: str) -> int:
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"v=(\d+)", told)
    return int(version[1]) if version and told.startswith("Redis") else 0


def main() -> None:
    if found() is None and shutil.which("apt-get") is not None:
        try:
            fetch()
        except (OSError, subprocess.CalledProcessError) as error:
            if os.environ.get("CI") == "true":
                raise
            print(f"Redis 8 could not be fetched: {error}", file=sys.stderr)
    print(found() or "no Redis 8: tests of vector sets are left out")


if __name__ == "__main__":
    main()
