"""OpenTelemetry spans: one of a client for each call of a model, an internal one for each answer from the cache.

Names follow the semantic conventions for generative AI, v1.36, or the newer set where
``OTEL_SEMCONV_STABILITY_OPT_IN`` contains ``gen_ai_latest_experimental``. Neither prompts nor answers are recorded.
The only file that needs ``pip install 'ai-dispatcher[otel]'``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dispatch_core.errors import MissingExtra
from dispatch_core.types import Match, Usage

if TYPE_CHECKING:
    from opentelemetry.trace import Span, TracerProvider

OPT_IN = "OTEL_SEMCONV_STABILITY_OPT_IN"
LATEST = "gen_ai_latest_experimental"

NAMES: Mapping[str, str] = {
    "operation": "gen_ai.operation.name",
    "provider": "gen_ai.system",
    "model": "gen_ai.request.model",
    "max_tokens": "gen_ai.request.max_tokens",
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "server": "server.address",
    "error": "error.type",
    "hit": "dispatch.cache.hit",
    "similarity": "dispatch.cache.similarity",
    "saved_tokens": "dispatch.cache.saved_tokens",
    "deployment": "dispatch.deployment",
    "queued": "dispatch.queue.seconds",
    "left_out": "dispatch.compression.saved_tokens",
}
"""The name of each attribute, by v1.36."""

NEWER: Mapping[str, str] = {"provider": "gen_ai.provider.name"}
"""Where the newer set differs."""

CACHE_SPAN = "dispatch.cache"


class Call:
    """The span of a call of a model, while it is under way."""

    def __init__(self, span: Span, names: Mapping[str, str]) -> None:
        self._span = span
        self._names = names

    def note(self, **facts: str | float | None) -> None:
        """Attributes by the short names of `NAMES`; what is None is not there."""
        for name, value in facts.items():
            if value is not None:
                self._span.set_attribute(self._names[name], value)

    def used(self, usage: Usage | None) -> None:
        if usage is not None:
            self.note(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens)

    def failed(self, kind: str) -> None:
        """``kind`` is a status code or the name of an exception."""
        from opentelemetry.trace import StatusCode

        self.note(error=kind)
        self._span.set_status(StatusCode.ERROR)


class Spans:
    """Makes the spans. Raises `MissingExtra` without OpenTelemetry's API.

    ``provider`` is that of the process by default. ``env`` says which set of names is used.
    """

    def __init__(self, provider: TracerProvider | None = None, env: Mapping[str, str] = os.environ) -> None:
        try:
            from opentelemetry import propagate, trace
        except ImportError as error:
            raise MissingExtra("tracing", "otel") from error
        self._tracer = trace.get_tracer("ai-dispatcher", tracer_provider=provider)
        self._extract = propagate.extract
        opted_in = {choice.strip() for choice in env.get(OPT_IN, "").split(",")}
        self.names = {**NAMES, **NEWER} if LATEST in opted_in else NAMES

    @contextmanager
    def call(
        self, operation: str, model: str, headers: Mapping[str, str], **facts: str | float | None
    ) -> Iterator[Call]:
        """The span of a client; ``headers`` may name the caller's trace. What is raised inside is its failure."""
        from opentelemetry.trace import SpanKind

        context: Any = self._extract(headers)
        span = self._tracer.start_span(f"{operation} {model}", context=context, kind=SpanKind.CLIENT)
        call = Call(span, self.names)
        call.note(operation=operation, model=model, **facts)
        try:
            yield call
        except BaseException as error:
            call.failed(type(error).__name__)
            raise
        finally:
            span.end()

    def hit(self, match: Match, headers: Mapping[str, str]) -> None:
        """An answer from the cache: no call of a model."""
        span = self._tracer.start_span(CACHE_SPAN, context=self._extract(headers))
        found = Call(span, self.names)
        found.note(hit=match.kind, similarity=match.score, saved_tokens=match.entry.usage.total)
        span.end()
