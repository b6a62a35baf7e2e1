"""The settings that make prompts shorter: ``compression`` in ``dispatch.yaml``."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from dispatch_core.compress import FRAMES, TAGS, Extractive, Frame, History, LLMLinguaCompressor, Lossless, Pipeline
from dispatch_core.compress.frames import tags_of
from dispatch_core.compress.lingua import MODEL
from dispatch_core.errors import CompressionError, ConfigError, MissingExtra
from dispatch_core.messages import Message, Part, Role
from dispatch_core.ports import Compressor, Embedder
from dispatch_gateway.strict import Share, Strict, Tokens

_FIRST_WORDS = (Message("user", (Part("Are you ready now? We begin.", "context"), Part("Ready?", "question"))),)


def _template(text: str) -> str:
    return Frame(text).template


def _name(tag: str) -> str:
    tags_of([tag])
    return tag


def _several(steps: Any) -> Any:
    """One may be given as it is."""
    return (steps,) if isinstance(steps, str | dict) else steps


class LosslessStep(Strict):
    """Of `dispatch_core.Lossless`: it has no settings of its own."""


class ExtractiveStep(Strict):
    """Of `dispatch_core.Extractive`. ``share`` is that of the tokens to keep, unless there is a budget."""

    share: Share = 0.5


class HistoryStep(Strict):
    """Of `dispatch_core.History`. ``tokens`` may be left out where there is a budget."""

    tokens: Tokens | None = None


class LLMLinguaStep(Strict):
    """Of `dispatch_core.LLMLinguaCompressor`."""

    share: Share = 0.5
    model: str = MODEL
    device: str = "cpu"


class Step(Strict):
    """One compressor with its settings: ``lossless``, or ``extractive: {share: 0.4}``."""

    lossless: LosslessStep | None = None
    extractive: ExtractiveStep | None = None
    history: HistoryStep | None = None
    llmlingua: LLMLinguaStep | None = None

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        if isinstance(given, str):
            return {given: {}}
        return {name: {} if own is None else own for name, own in given.items()} if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _one(self) -> Step:
        if len(self.model_fields_set) != 1:
            raise ValueError(f"one of {', '.join(type(self).model_fields)}")
        return self


class Shortening(Strict):
    """How prompts are made shorter: the ``steps``, one after another. ``budget`` is what each aims at, in tokens;
    prompts of fewer than ``least`` or more than ``most`` are left as they are. ``frames`` (templates with a
    ``{context}``), ``tags`` and ``roles`` tell where context is, beside what the core knows."""

    steps: Annotated[tuple[Step, ...], BeforeValidator(_several), Field(min_length=1)]
    budget: Tokens | None = None
    least: int = Field(default=0, ge=0)
    most: Tokens = 50_000
    frames: tuple[Annotated[str, AfterValidator(_template)], ...] = ()
    tags: tuple[Annotated[str, AfterValidator(_name)], ...] = ()
    roles: tuple[Role, ...] = ()

    @model_validator(mode="after")
    def _aims_at_something(self) -> Shortening:
        if self.budget is None and any(one.history is not None and one.history.tokens is None for one in self.steps):
            raise ValueError("history needs tokens, or all steps a budget")
        return self

    @property
    def embeds(self) -> bool:
        return any(one.extractive is not None for one in self.steps)

    def made(self, embedder: Embedder | None) -> Compressor:
        """The compressor of these settings. Raises `ConfigError`, which names the step that cannot work."""
        made = []
        for number, step in enumerate(self.steps):
            try:
                made.append(self._of(step, embedder))
            except (ConfigError, CompressionError, MissingExtra) as error:
                raise ConfigError(f"steps[{number}]: {error}") from error
        return Pipeline(*made, budget=self.budget)

    def _of(self, step: Step, embedder: Embedder | None) -> Compressor:
        told: dict[str, Any] = {"frames": (*self.frames, *FRAMES), "tags": (*self.tags, *TAGS)}
        if step.extractive is not None:
            if embedder is None:
                raise ConfigError("extractive needs an embedding model, and cache.embedder gives none")
            return Extractive(embedder, share=step.extractive.share, roles=self.roles, **told)
        if step.history is not None:
            return History(step.history.tokens)
        if step.llmlingua is not None:
            own = step.llmlingua
            lingua = LLMLinguaCompressor(own.model, share=own.share, device=own.device, roles=self.roles, **told)
            # Now, and not while the first caller waits.
            lingua.compress(_FIRST_WORDS, 1)
            return lingua
        return Lossless(roles={"user", "tool", *self.roles}, **told)
