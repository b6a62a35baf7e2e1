"""``dispatcher serve``: the gateway in the foreground, until a signal. Importing this needs no extra."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import secrets
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dispatch_core.errors import MissingExtra

if TYPE_CHECKING:
    from dispatch_gateway.config import Settings

ABOUT = """An OpenAI-compatible gateway with a semantic cache and token-aware limits.

Without a file it listens on 127.0.0.1:8080, keeps answers in memory and asks OPENAI_BASE_URL with OPENAI_API_KEY.
On SIGTERM it finishes what is under way; on SIGHUP it reads keys, models and limits anew."""

_NEEDED = ("starlette", "uvicorn", "aiohttp", "pydantic", "prometheus_client", "yaml")
_LEVELS = ("debug", "info", "warning", "error")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``dispatcher serve`` on `parser`."""
    add = parser.add_argument
    add("-c", "--config", type=Path, metavar="FILE", help="settings in YAML, with ${NAME} from the environment")
    add("--host", help="address to listen on, instead of the file's")
    add("--port", type=int, help="port to listen on, 0 for a free one, instead of the file's")
    add("--log-level", choices=_LEVELS, default="info", help="of the JSON lines on stderr (default: %(default)s)")
    add("--check", action="store_true", help="check the settings, make what they name, and stop")
    add("--new-key", action="store_true", help="print a new virtual key and its hash for the settings, and stop")


def run(options: argparse.Namespace) -> int:
    """Serve; 0 when told to stop, 1 when calls were cut off or the port was taken. Raises `DispatchError`."""
    if any(importlib.util.find_spec(name) is None for name in _NEEDED):
        raise MissingExtra("the gateway", "gateway")
    from dispatch_gateway.server import serve
    from dispatch_gateway.service import Service

    if options.new_key:
        from dispatch_gateway.config import hash_of

        key = f"dk-{secrets.token_urlsafe(32)}"
        print(f"key:  {key}\nhash: {hash_of(key)}")
        return 0
    settings = _settings(options)
    if options.check:
        # What they name is made as for serving: a model that is not there, or an extra, is no matter of form.
        Service(settings)
        print("the settings are valid")
        return 0
    _log_to_stderr(options.log_level)
    reload_signal = getattr(signal, "SIGHUP", None)
    return serve(settings, reread=lambda: _settings(options), reload_signal=reload_signal)


def _settings(options: argparse.Namespace) -> Settings:
    from dispatch_gateway.config import settings_from

    given = {name: getattr(options, name) for name in ("host", "port") if getattr(options, name) is not None}
    return settings_from(options.config, listen=given)


def _log_to_stderr(level: str) -> None:
    from dispatch_gateway.logs import JsonLines

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Its lines name addresses and paths of every connection; ours say what there is to say.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
