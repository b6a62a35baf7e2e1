"""What a config gives to a model, and which models are chosen by one."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config

from dispatch_core import TokenLimiter
from langchain_dispatch.rate_limiter import as_rate_limiter


def limited(model: BaseChatModel, config: RunnableConfig | None) -> BaseChatModel:
    """The model with the limiter of its config, where LangChain leaves it. One that is inherited, from a chain, a
    function or an agent around it, takes no other's place."""
    # A binding makes an inherited config look like one of its own.
    inherited = limiter_in(var_child_runnable_config.get())
    given = limiter_in(config) or inherited
    if given is None or is_limited_by(model, given) or (given is inherited and model.rate_limiter is not None):
        return model
    return model.model_copy(update={"rate_limiter": as_rate_limiter(given)})


def is_limited_by(model: BaseChatModel, given: object) -> bool:
    own = model.rate_limiter
    return own is given or getattr(own, "limiter", None) is given


def limiter_in(config: RunnableConfig | None) -> Any:
    """The limiter of a config, where it was given or where LangChain moved it; None if there is none."""
    if config is None:
        return None
    given = config.get("rate_limiter") or (config.get("configurable") or {}).get("rate_limiter")
    return given if given is not None and isinstance(given, BaseRateLimiter | TokenLimiter) else None


def is_configurable(model: object) -> bool:
    """Is it a model of ``init_chat_model`` that is chosen when it is called?"""
    return any(kind.__name__ == "_ConfigurableModel" for kind in type(model).__mro__)
