"""`dispatch(init_chat_model())`: a model that is chosen when it is called is dispatched when it is chosen."""

from __future__ import annotations

from typing import Any, cast

from langchain.chat_models.base import _ConfigurableModel
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.runnables import Runnable, RunnableConfig

from dispatch_core import TokenLimiter
from langchain_dispatch.chat import dispatch
from langchain_dispatch.given import limiter_in
from langchain_dispatch.rate_limiter import as_rate_limiter


class DispatchedConfigurable(_ConfigurableModel):
    """What LangChain makes of it on the way, by ``bind_tools`` or ``with_config``, is of this class, too."""

    _given: dict[str, Any]

    def with_config(self, config: RunnableConfig | None = None, **kwargs: Any) -> DispatchedConfigurable:
        made = _again(super().with_config(config, **kwargs), self._given)
        limiter = limiter_in(cast("RunnableConfig", {**(config or {}), **kwargs}))
        if limiter is not None:
            # A config would be lost by ``bind_tools``.
            made._given["rate_limiter"] = as_rate_limiter(limiter)
        return made

    def bind_tools(self, *args: Any, **kwargs: Any) -> Any:
        return _again(super().__getattr__("bind_tools")(*args, **kwargs), self._given)

    def with_structured_output(self, *args: Any, **kwargs: Any) -> Any:
        return _again(super().__getattr__("with_structured_output")(*args, **kwargs), self._given)

    def _model(self, config: RunnableConfig | None = None) -> Runnable[Any, Any]:
        # What was queued is for the dispatched model.
        chosen: Any = _again(_copy(self, ()), self._given)
        model = dispatch(super(DispatchedConfigurable, chosen)._model(config), **self._given)
        for name, args, kwargs in self._queued_declarative_operations:
            model = getattr(model, name)(*args, **kwargs)
        return model

    def _model_params(self, config: RunnableConfig | None) -> dict[str, Any]:
        # Where any field may be chosen, all that a config has is one of the model; but ours finds its limiter there.
        params = super()._model_params(config)
        if isinstance(params.get("rate_limiter"), BaseRateLimiter | TokenLimiter):
            del params["rate_limiter"]
        return params


def dispatched(model: _ConfigurableModel, given: dict[str, Any]) -> DispatchedConfigurable:
    """A copy of the model; ``given`` are the arguments of `dispatch`."""
    known = model._given if isinstance(model, DispatchedConfigurable) else {}
    same = _copy(model, model._queued_declarative_operations)
    return _again(same, {**known, **{name: value for name, value in given.items() if value is not None}})


def _copy(model: _ConfigurableModel, queued: Any) -> _ConfigurableModel:
    # Not by `copy`, for which it has attributes without end.
    return _ConfigurableModel(
        default_config=model._default_config,
        configurable_fields=model._configurable_fields,
        config_prefix=model._config_prefix,
        queued_declarative_operations=queued,
    )


def _again(made: Any, given: dict[str, Any]) -> DispatchedConfigurable:
    made.__class__ = DispatchedConfigurable
    made._given = dict(given)
    return made  # type: ignore[no-any-return]
