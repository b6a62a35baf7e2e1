"""What all settings have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Tokens = Annotated[int, Field(ge=1)]


class Strict(BaseModel):
    """Values that are checked when they are read and never change; names that are not known are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
