"""JSON documents that carry their own hash, so that a changed number or name in them is noticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from spgsurgeon.checkpoint.refusals import MalformedError
from spgsurgeon.runtime import finite

_SEAL = "document_hash"


def document_hash(document: Mapping[str, Any]) -> str:
    """Return the hex SHA-256 of what a JSON document says, whatever its whitespace and the order of its keys."""
    plain = json.loads(json.dumps(document))  # as it will be read: keys are texts, tuples are lists
    return hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document with its own hash as its last entry."""
    rest = _unsealed(finite(document))  # as it will be written
    return {**rest, _SEAL: document_hash(rest)}


def check_seal(document: Mapping[str, Any]) -> None:
    """Raise MalformedError if the document is not the one that was sealed."""
    if document.get(_SEAL) != document_hash(_unsealed(document)):
        raise MalformedError(
            f"it was changed after it was written: what it says does not match its {_SEAL}",
            hint="copy its folder again; a run or a grafted folder can't be edited by hand",
            code="changed-file",
        )


def _unsealed(document: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key != _SEAL}
