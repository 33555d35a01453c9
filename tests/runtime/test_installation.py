"""What `doctor` reads of the installed metadata."""

import pytest
from packaging.requirements import Requirement

from spgsurgeon.runtime import installation


def test_a_wheel_may_write_names_with_hyphens(monkeypatch: pytest.MonkeyPatch) -> None:
    written = [Requirement("huggingface-hub>=0.30")]
    monkeypatch.setattr(installation, "_requirements_of", lambda *_: written)
    (row,) = (row for row in installation.packages() if row["name"] == "huggingface_hub")
    assert (row["required"], row["ok"]) == (">=0.30", True)
