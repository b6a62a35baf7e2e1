"""The ``dispatcher`` command. Its parts are imported when they are asked for."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from dispatch_core import calibrate, simulate
from dispatch_core.embed import export_cli
from dispatch_core.errors import DispatchError

_OF_FRONTS = {
    "serve": ("dispatch_gateway.serve", "put the dispatcher in front of any OpenAI-compatible endpoint"),
    "top": ("dispatch_gateway.top", "watch a running gateway"),
}
"""Commands that are a front's: the core knows where to find them, and imports no front."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit code, 2 for wrong arguments or settings."""
    parser = argparse.ArgumentParser(prog="dispatcher", description="Semantic cache and token-aware limits for LLMs.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    provider = commands.add_parser(
        "simulate",
        help="serve a rate-limited, OpenAI-compatible provider without a model",
        description=simulate.__doc__,
    )
    simulate.add_arguments(provider)
    provider.set_defaults(run=simulate.run)
    questions = commands.add_parser(
        "calibrate",
        help="find the cache policy for your own questions",
        description=calibrate.ABOUT,
    )
    calibrate.add_arguments(questions)
    questions.set_defaults(run=calibrate.run)
    graph = commands.add_parser(
        "export-model",
        help="make an embedding model fast: write it as an ONNX graph, once",
        description=export_cli.ABOUT,
    )
    export_cli.add_arguments(graph)
    graph.set_defaults(run=export_cli.run)
    for name, (module, says) in _OF_FRONTS.items():
        command = importlib.import_module(module)
        front = commands.add_parser(
            name, help=says, description=command.ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        command.add_arguments(front)
        front.set_defaults(run=command.run)
    options = parser.parse_args(argv)
    try:
        code = int(options.run(options))
        # Here, where it can still be caught that nobody reads on: `dispatcher calibrate ... | head`.
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except DispatchError as error:
        print(f"dispatcher {options.command}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
