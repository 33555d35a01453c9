"""What the sections of a recipe share: their base and the ranges of their numbers.

Sections are frozen and refuse unknown keys and implicit conversions (no `true` for 1, no 3.0 for 3). Which keys were
set rather than left at their default is in pydantic's `model_fields_set`, section by section. The text under a field
says what it means, to people and to `recipe_keys`.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, Union, cast

from pydantic import BaseModel, ConfigDict, Discriminator, Field, GetCoreSchemaHandler, Tag
from pydantic_core import CoreSchema, PydanticCustomError

Count = Annotated[int, Field(ge=1)]
Steps = Annotated[int, Field(ge=1, le=1000)]  # each takes memory of its own before anything is tried
NonNegativeInt = Annotated[int, Field(ge=0)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Decay = Annotated[float, Field(gt=0, lt=1)]


def fault_at(key: str, message: str) -> PydanticCustomError:
    """A fault of a whole section that shows best at one of its keys."""
    return PydanticCustomError("conflict", "{reason}", {"reason": message, "key": key})


class Section(BaseModel):
    """What all sections share."""

    # Building is deferred, as most sections are checked as parts of a whole recipe.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)


@cache
def meanings(section: type[Section]) -> dict[str, str]:
    """Return what each key of a section means: the text under its field, or under that of a section it derives from.

    Read when asked: pydantic can do so for each class as it is made (`use_attribute_docstrings`), which costs tens of
    milliseconds at each start of a command. Where there is no source, nothing is known.
    """
    found: dict[str, str] = {}
    for part in section.__mro__[: section.__mro__.index(Section)]:
        with suppress(OSError):
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(part))).body
            for field, text in pairwise(cast(ast.ClassDef, tree).body):
                if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                    name, meaning = ast.unparse(field.target), ast.literal_eval(text.value)
                    found.setdefault(name, inspect.cleandoc(meaning))
    return {name: found[name] for name in section.model_fields if name in found}


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
