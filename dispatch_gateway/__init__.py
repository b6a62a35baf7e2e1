"""AI Dispatcher as a service: an OpenAI-compatible gateway with a semantic cache and token-aware limits.

``dispatcher serve`` starts it; a client changes its ``base_url`` and nothing else.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dispatch_gateway.app import gateway
    from dispatch_gateway.config import Settings, settings_from
else:
    # Imported when they are asked for.
    from dispatch_core import _lazy

    __getattr__, __dir__ = _lazy.names_of(
        __name__,
        {"Settings": "config", "gateway": "app", "settings_from": "config"},
    )

__all__ = ["Settings", "gateway", "settings_from"]
