"""A preprocessor_config.json as data: its values, each of a type and within bounds. Nothing of it reaches a library."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spgsurgeon.errors import ArchitectureError, DamagedFileError, UsageError, first_line

PREPROCESSOR_FILE = "preprocessor_config.json"


@dataclass(frozen=True)
class PreprocessorFile:
    """What such a file says. Every reader takes what counts if the file does not say it; null is not saying it."""

    place: str
    says: Mapping[str, Any]

    def flag(self, name: str, otherwise: bool) -> bool:
        """Return whether something is done. Raises DamagedFileError, as the others do, for another type."""
        value = self._said(name, otherwise)
        if type(value) is not bool:
            raise self.damaged(name, "true or false")
        return value

    def whole(self, name: str, otherwise: int | None, low: int, high: int) -> int:
        """Return a whole number from `low` to `high`; None as `otherwise` means that the file must say it."""
        value = self._said(name, otherwise)
        if type(value) is not int or not low <= value <= high:
            raise self.damaged(name, f"a whole number from {low:,} to {high:,}")
        return value

    def number(self, name: str, otherwise: float, low: float, high: float) -> float:
        """Return a number from `low` to `high`."""
        value = self._said(name, otherwise)
        if type(value) not in (int, float) or not math.isfinite(value) or not low <= value <= high:
            raise self.damaged(name, f"a number from {low:g} to {high:g}")
        return float(value)

    def numbers(self, name: str, otherwise: Sequence[float], low: float, high: float) -> tuple[float, ...]:
        """Return as many numbers from `low` to `high` as `otherwise` has; a single one stands for all of them."""
        value = self._said(name, list(otherwise))
        value = [value] * len(otherwise) if type(value) in (int, float) else value
        if not isinstance(value, list) or len(value) != len(otherwise):
            raise self.damaged(name, f"{len(otherwise)} numbers")
        if not all(type(one) in (int, float) and math.isfinite(one) and low <= one <= high for one in value):
            raise self.damaged(name, f"{len(otherwise)} numbers from {low:g} to {high:g}")
        return tuple(float(one) for one in value)

    def must_be(self, name: str, value: Any) -> None:
        """Raise ArchitectureError if the file says anything else, which is not reproduced here."""
        said = self._said(name, value)
        if said != value or (type(said) is bool) is not (type(value) is bool):
            raise self.not_reproduced(f"{name} is {said!a:.60}, and only {value!a} is")

    def not_reproduced(self, reason: str) -> ArchitectureError:
        """Return the error for what this package can't do as the file says."""
        return ArchitectureError(
            f"{self.place} asks for what is not reproduced here: {reason}", code="preprocessing-not-reproduced"
        )

    def damaged(self, name: str, wanted: str) -> DamagedFileError:
        """Return the error for a value that can't be."""
        return DamagedFileError(f"{self.place} is damaged: {name} is {self.says.get(name)!a:.60}, not {wanted}")

    def _said(self, name: str, otherwise: Any) -> Any:
        value = self.says.get(name)
        return otherwise if value is None else value


def preprocessor_file(companions: Sequence[Path], name: str, tells: str) -> PreprocessorFile:
    """Return the one among the files beside the weights of the model `name`, which `tells` how its samples are
    prepared, as it says in words. Raises UsageError if there is none."""
    path = next((path for path in companions if path.name == PREPROCESSOR_FILE), None)
    if path is None:
        raise UsageError(
            f"{name} has no {PREPROCESSOR_FILE} beside its weights, so {tells} is not known",
            hint="copy it from the base",
            code="missing-preprocessor",
        )
    return PreprocessorFile(str(path), read_object(path))


def read_object(path: Path) -> dict[str, Any]:
    """Return what a JSON file says. Raises DamagedFileError for what is not an object."""
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path} is damaged: {first_line(error)}") from error
    if not isinstance(found, dict):
        raise DamagedFileError(f"{path} is damaged: it is not an object")
    return found
