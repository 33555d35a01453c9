"""JSON objects in the files of others, read with bounds."""

from __future__ import annotations

import json
from typing import Any

from spgsurgeon.checkpoint.refusals import MalformedError

LONGEST_DOCUMENT = 2**26  # characters; what is written here has some thousands
_DEEPEST = 50  # levels


def json_object(text: str) -> dict[str, Any]:
    """Return the JSON object that a text is. Raises MalformedError for one far too long or deep, and for others."""
    if len(text) > LONGEST_DOCUMENT:
        raise MalformedError(f"it has more than {LONGEST_DOCUMENT} characters")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"it is not JSON ({error!s:.120})") from error
    if _is_nested(document, _DEEPEST):
        raise MalformedError(f"it is nested deeper than {_DEEPEST} levels")
    if not isinstance(document, dict):
        raise MalformedError(f"it holds a {type(document).__name__}, not an object")
    return document


def _is_nested(document: Any, levels: int) -> bool:
    """Whether a document is nested deeper than so many levels; what walks through it may call itself for each."""
    inside = [document]
    for _ in range(levels + 1):
        containers = [value for value in inside if isinstance(value, dict | list)]
        inside = [entry for one in containers for entry in (one.values() if isinstance(one, dict) else one)]
        if not inside:
            return False
    return True
