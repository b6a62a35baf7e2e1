"""A limiter in ``with_config`` of a plain model limits nothing, silently. This says so, once.

LangChain moves what it does not know in a config into ``configurable``, which no model reads, and hands it to nobody:
not to callbacks, not to the model's own methods. Only the frame of the model's ``invoke`` or ``stream`` holds it.
"""

from __future__ import annotations

import sys
import threading
import warnings
from types import FrameType
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.rate_limiters import BaseRateLimiter

from dispatch_core import TokenLimiter

_NEAR = 12
"""How many frames lie at most between a model's method and its callbacks."""
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
    frame: FrameType | None = sys._getframe(1)
    for depth in range(_NEAR):
        if frame is None:
            return
        if frame.f_code in _ENTRIES:
            _look(frame.f_locals, depth + 4)
            return
        frame = frame.f_back


def _look(variables: dict[str, Any], level: int) -> None:
    model = variables.get("self")
    given = ((variables.get("config") or {}).get("configurable") or {}).get("rate_limiter")
    if not isinstance(given, BaseRateLimiter | TokenLimiter) or getattr(model, "rate_limiter", None) is given:
        return
    if hasattr(type(model), "dispatched"):
        # It has seen the limiter, and has one of its own.
        return
    _warned.set()
    warnings.warn(
        f"with_config(rate_limiter=...) limits nothing here: LangChain never shows it to {type(model).__name__}. "
        "Call langchain_dispatch.install() before with_config, or give the model its limiter: "
        "with_rate_limiter(chain, limiter), or dispatch(model).with_config(rate_limiter=limiter)",
        RuntimeWarning,
        stacklevel=level,
    )
