"""Schemas of the documents in a folder: what `graft.json` and `state.json` may say, with types and bounds.

A seal only says that a document is as somebody sealed it, and a stranger can seal what he likes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from spgsurgeon.checkpoint.refusals import MalformedError

_REASONS = 3  # of a union each member has one
_LARGEST = 2**53  # that every reader of JSON takes for a whole number

Natural = Annotated[int, Field(ge=0, le=_LARGEST)]
Hash = Annotated[str, Field(max_length=200)]
Name = Annotated[str, Field(max_length=10_000)]
Names = Annotated[list[Name], Field(max_length=1_000_000)]


class Document(BaseModel):
    """What these schemas share. Keys that they don't know are of other versions, and left alone."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="allow", defer_build=True)


class BaseOfManifest(Document):
    """What was grafted. What of it may reach a library is checked by `models.check_manifest`."""

    source: Name
    library: Name
    architecture: Name
    num_classes: Natural
    model_args: dict[str, Any]
    content_hash: Hash
    tensors: Natural
    layout: Hash
    notes: Names | None = None
    keys: Names | None = None
    files: dict[Name, Hash] | None = None
    hub_id: Name | None = None


class SiteOfManifest(Document):
    """Where replicas attach; lists are of several heads."""

    module: Name | Names
    width: Natural | list[Natural | None] | None = None
    side: Literal["input", "output"] = "input"
    key: Name | list[Name | None] | None = None


class KindOfManifest(Document):
    """Which replicas; the kind knows its own settings."""

    kind: Name


class ManifestDocument(Document):
    """`graft.json`."""

    package_version: Name
    base: BaseOfManifest
    trp: KindOfManifest
    site: SiteOfManifest
    temporary_parameters: Natural
    weights_hash: Hash
    temporary_hash: Hash
    config_hash: Hash


class StateDocument(Document):
    """`state.json`, as far as its folder goes by it; `runs` knows the rest."""

    hashes: dict[Literal["optimizer", "ema"], Hash]


def check_schema(kind: Any, document: object) -> None:
    """Raise MalformedError, naming the key and what it is, unless a document is of a schema or any other type."""
    try:
        (kind if isinstance(kind, TypeAdapter) else TypeAdapter(kind)).validate_python(document)
    except ValidationError as error:
        raise MalformedError(fault_of(error, document)) from error


def fault_of(error: ValueError, document: object) -> str:
    """Return the first fault of a document in words: its key, what it is there, and what it must be."""
    assert isinstance(error, ValidationError)
    faults = error.errors(include_url=False)
    given, keys = document, list[str]()
    for part in faults[0]["loc"]:
        within = isinstance(given, Sequence) and isinstance(part, int) and part < len(given)
        if not within and not (isinstance(given, Mapping) and part in given):
            break  # what follows tells the members of a union apart
        given = given[part]  # type: ignore[index]
        keys.append(_shown(part))
    reasons = dict.fromkeys(fault["msg"].lower() for fault in faults[:_REASONS])
    where = ".".join(keys)
    if faults[0]["type"] == "missing":
        return f"{_joined(where, _shown(faults[0]['loc'][-1]))} is missing"
    return f"{where or 'it'} is {given!a:.60}; {' or '.join(reasons):.200}"


def _joined(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _shown(key: object) -> str:
    text = str(key)
    return (text if text.isprintable() else ascii(text)[1:-1])[:60]
