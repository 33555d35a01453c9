"""What the sections of a recipe share: their base and the ranges of their numbers.

Sections are frozen and refuse unknown keys and implicit conversions (no `true` for 1, no 3.0 for 3). Which keys were
set rather than left at their default is in pydantic's `model_fields_set`, section by section. The text under a field
is its description, for people and for `recipe_keys`.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

Count = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Decay = Annotated[float, Field(gt=0, lt=1)]


def fault_at(key: str, message: str) -> PydanticCustomError:
    """A fault of a whole section that shows best at one of its keys."""
    return PydanticCustomError("conflict", "{reason}", {"reason": message, "key": key})


class Section(BaseModel):
    """What all sections share."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
