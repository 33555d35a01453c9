"""What the sections of a recipe share: their base and the ranges of their numbers.

Sections are frozen and refuse unknown keys and implicit conversions (no `true` for 1, no 3.0 for 3). Which keys were
set rather than left at their default is in pydantic's `model_fields_set`, section by section. The text under a field
is its description, for people and for `recipe_keys`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Union

from pydantic import BaseModel, ConfigDict, Discriminator, Field, GetCoreSchemaHandler, Tag
from pydantic_core import CoreSchema, PydanticCustomError

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


@dataclass(frozen=True)
class OneOf:
    """Makes a field one of several sections, told apart by their key `by`; left out, that is `default`.

    `sections` gives them by name. A discriminated union, so each section refuses the keys of the others.
    """

    sections: Callable[[], Mapping[str, type[Section]]]
    by: str
    default: str

    def name_of(self, value: Any) -> str | None:
        """Return which section `value`, a mapping or a section, says that it is; None if it is neither."""
        if isinstance(value, Section):
            return str(getattr(value, self.by))
        if not isinstance(value, Mapping):
            return None
        name = value.get(self.by, self.default)
        return name if isinstance(name, str) else repr(name)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        members = tuple(Annotated[section, Tag(name)] for name, section in self.sections().items())
        return handler.generate_schema(Annotated[Union[members], Discriminator(self.name_of)])  # noqa: UP007
