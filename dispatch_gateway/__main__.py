"""``python -m dispatch_gateway``: the same as ``dispatcher serve``."""

from __future__ import annotations

import sys

from dispatch_core.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
