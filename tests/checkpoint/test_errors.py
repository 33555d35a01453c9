from __future__ import annotations

import pytest

from spgsurgeon.errors import ArchitectureError, DamagedFileError, SurgeonError, UsageError


@pytest.mark.parametrize("kind", [SurgeonError, DamagedFileError, UsageError, ArchitectureError])
def test_an_error_without_a_code_of_its_own_has_its_kind_as_one(kind: type[SurgeonError]) -> None:
    assert kind("no").code == kind.kind


def test_a_code_is_kept_beside_the_kind_and_apart_from_the_details() -> None:
    error = UsageError("out exists", hint="--force", code="output-exists", paths=["out"])
    assert (error.kind, error.code, error.details) == ("usage", "output-exists", {"paths": ["out"]})


def test_a_kind_that_an_error_is_given_later_is_its_code_too() -> None:
    error = SurgeonError("a job of several failed")
    error.kind = "data"
    assert error.code == "data"
