"""JSON as all of this package writes it: such as every reader takes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")


def as_json(document: Any, indent: int | None = None) -> str:
    """Return a document as JSON: NaN and infinity, which JSON lacks, are null.

    Half a character of a file's name that is not UTF-8 is escaped, as no stream could write it.
    """
    text = json.dumps(finite(document), indent=indent, ensure_ascii=False, allow_nan=False)
    return _SURROGATE.sub(lambda half: f"\\u{ord(half[0]):04x}", text)


def finite(value: Any) -> Any:
    """Return plain data with None for each NaN and infinity in it."""
    if isinstance(value, Mapping):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
