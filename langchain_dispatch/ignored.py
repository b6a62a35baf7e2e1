"""A limiter in ``with_config`` of a plain model limits nothing, silently. This says so, once.

LangChain moves what it does not know in a config into ``configurable``, which no model reads, and hands it to nobody:
not to callbacks, not to the model's own methods. Only the frame of the model's ``invoke`` or ``stream`` holds it.
"""

from __future__ import annotations

import sys
import threading
import warnings
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.rate_limiters import BaseRateLimiter

from dispatch_core import TokenLimiter

_DEPTHS = (6, 7, 4, 5, 3, *range(8, 13))
"""How many frames may lie between a model's method and here; where LangChain has them now comes first."""
_ENTRIES = frozenset(
    {
        BaseChatModel.invoke.__code__,
        BaseChatModel.ainvoke.__code__,
        BaseChatModel.stream.__code__,
        BaseChatModel.astream.__code__,
    }
)
_warned = threading.Event()


def warn_of_an_ignored_limiter() -> None:
    """Called while a model announces a call: RuntimeWarning if its config holds a limiter that is not the model's.

    Once in a process.
    """
    if _warned.is_set():
        return
    try:
        for depth in _DEPTHS:
            # Frames between are never made to objects: that would be most of the cost.
            frame = sys._getframe(depth)
            if frame.f_code in _ENTRIES:
                _look(frame.f_locals, depth + 3)
                return
    except ValueError:
        # The stack ends before: called by nobody whom we know.
        return


def _look(variables: dict[str, Any], level: int) -> None:
    model = variables.get("self")
    given = ((variables.get("config") or {}).get("configurable") or {}).get("rate_limiter")
    own = getattr(model, "rate_limiter", None)
    if given is None or own is given or getattr(own, "limiter", None) is given:
        return
    # A dispatched model has seen the limiter, and has one of its own.
    if not isinstance(given, BaseRateLimiter | TokenLimiter) or hasattr(type(model), "dispatched"):
        return
    _warned.set()
    warnings.warn(
        f"with_config(rate_limiter=...) limits nothing here: LangChain never shows it to {type(model).__name__}. "
        "Call langchain_dispatch.install() first, or give the model its limiter: "
        "with_rate_limiter(chain, limiter), or dispatch(model).with_config(rate_limiter=limiter)",
        RuntimeWarning,
        stacklevel=level,
    )
