"""What is sent to the model, and its price: known when the model must be asked, for a hit needs neither."""

from __future__ import annotations

from collections.abc import Callable

from dispatch_core._flow import Flow
from dispatch_core.compress import Careful
from dispatch_core.types import Cost
from llamaindex_dispatch.compression import shortened
from llamaindex_dispatch.identity import Prompt


class Sending:
    """A ``prompt`` that may still be made shorter; ``price`` says what one costs, and is None without a limiter."""

    def __init__(self, prompt: Prompt, careful: Careful | None, price: Callable[[Prompt], Cost] | None) -> None:
        self.prompt = prompt
        self._careful = careful
        self._price = price
        self._cost: Cost | None = None

    def priced(self) -> Flow[Cost | None]:
        """Make the prompt what will be sent, and its cost; both once."""
        if self._careful is not None:
            careful, self._careful = self._careful, None
            self.prompt = yield from shortened(careful, self.prompt)
        if self._cost is None and self._price is not None:
            self._cost = self._price(self.prompt)
        return self._cost
