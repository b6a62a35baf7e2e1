"""The optional layer that makes prompts shorter before they are sent: after the cache, before the limiter."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dispatch_core.compress.careful import Careful
    from dispatch_core.compress.extractive import Extractive
    from dispatch_core.compress.frames import TAGS, Frame
    from dispatch_core.compress.history import History
    from dispatch_core.compress.known import FRAMES
    from dispatch_core.compress.layout import estimated
    from dispatch_core.compress.lingua import LLMLinguaCompressor
    from dispatch_core.compress.lossless import Lossless
    from dispatch_core.compress.pipeline import Pipeline
    from dispatch_core.compress.relevance import Weights
else:
    # Imported when they are asked for.
    from dispatch_core import _lazy

    __getattr__, __dir__ = _lazy.names_of(
        __name__,
        {
            "Careful": "careful",
            "Extractive": "extractive",
            "FRAMES": "known",
            "TAGS": "frames",
            "Frame": "frames",
            "History": "history",
            "LLMLinguaCompressor": "lingua",
            "Lossless": "lossless",
            "Pipeline": "pipeline",
            "Weights": "relevance",
            "estimated": "layout",
        },
    )

__all__ = [
    "FRAMES",
    "TAGS",
    "Careful",
    "Extractive",
    "Frame",
    "History",
    "LLMLinguaCompressor",
    "Lossless",
    "Pipeline",
    "Weights",
    "estimated",
]
