"""The header of a safetensors file: JSON that says where every tensor lies, checked against itself and the file."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from spgsurgeon.checkpoint.refusals import MalformedError, UnreadableError, UnsafeError
from spgsurgeon.checkpoint.state_dict.specs import DTYPE_SIZES, TensorSpec, is_possible

HEADER_LIMIT = 100_000_000  # bytes; the format's own

MOST_TENSORS = 80_000  # as many as the pickle of a file may have; a file of a hundred megabytes could name a million

_KNOWN_DTYPES = DTYPE_SIZES.keys() - {"C128"}
_PACKED_DTYPES = ("F4", "F6_E2M3", "F6_E3M2")  # several elements a byte


@dataclass(frozen=True, slots=True)
class SafetensorsHeader:
    """The tensors in the order of their bytes, and the writer's own strings."""

    entries: dict[str, TensorSpec]
    metadata: dict[str, str]


def read_header(file: BinaryIO) -> SafetensorsHeader:
    """Return the header of an open safetensors file, reading nothing but it.

    As strict as the format's own reader: known dtypes, offsets that fit the shapes, data that is covered without hole
    or overlap and ends where the file does; stricter in refusing a key that occurs twice. Raises MalformedError
    naming the fault, UnreadableError for a dtype whose elements share bytes.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if length > min(HEADER_LIMIT, size - 8):
        raise MalformedError(f"its header claims {length} bytes, the file has {size}")
    raw = file.read(length)
    if raw.count(b'"data_offsets"') > MOST_TENSORS:  # before time is spent on reading it
        raise _too_many()
    try:
        document = _strict_json(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"its header is not JSON ({error!s:.120})") from error
    if not isinstance(document, dict):
        raise MalformedError("its header is not a JSON object")
    if len(document) > MOST_TENSORS + 1:
        raise _too_many()
    metadata = {} if (said := document.pop("__metadata__", None)) is None else said
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise MalformedError("its metadata is not a table of strings")
    return SafetensorsHeader(_entries(file, document, 8 + length, size), metadata)


def _too_many() -> UnsafeError:
    return UnsafeError(
        f"its header names more than {MOST_TENSORS:,} tensors; models have thousands",
        hint="save model.state_dict() alone",
        code="too-many-tensors",
    )


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object as a dict; ValueError where a key occurs twice. For json's `object_pairs_hook`."""
    document = dict(pairs)
    if len(document) < len(pairs):
        raise ValueError("a key occurs twice")
    return document


def _strict_json(text: str) -> Any:
    """Return a JSON document; ValueError also for what Python's reader takes and the format's own does not."""
    whole = _whole if "-0" in text else int
    document = json.loads(text, object_pairs_hook=unique_keys, parse_int=whole)
    if "\\ud" in text.lower():
        json.dumps(document, ensure_ascii=False).encode()  # of a lone surrogate, half a character
    return document


def _whole(digits: str) -> int:
    if digits == "-0":
        raise ValueError("-0 is no whole number")
    return int(digits)


def _entries(file: BinaryIO, document: dict[str, Any], start: int, size: int) -> dict[str, TensorSpec]:
    """Return the tensors of the data that reaches from byte `start` to the end of the file at `size`."""
    placed = sorted(_places(document), key=lambda place: place[:2])
    entries, end, path = {}, 0, Path(file.name)
    for begin, stop, key in placed:
        if begin != end:
            raise MalformedError(f"tensor {key!r:.120} begins at byte {begin} of the data, not {end}")
        info, end = document[key], stop
        entries[key] = TensorSpec(info["dtype"], tuple(info["shape"]), path, start + begin)
    if start + end != size:
        cut = "it is cut off: " if size < start + end else ""
        raise MalformedError(f"{cut}its tensors end at byte {start + end}, the file at {size}")
    return entries


def _places(document: dict[str, Any]) -> Iterator[tuple[int, int, str]]:
    """Yield each tensor's first byte, its end, and its key, after checking that they fit its shape."""
    for key, info in document.items():
        match info:
            case {"dtype": str() as dtype, "shape": list() as shape, "data_offsets": [begin, end], **others} if (
                _is_short(others)
            ):
                pass
            case _:
                raise MalformedError(f"tensor {key!r:.120} is described in an unknown manner")
        if dtype in _PACKED_DTYPES:
            raise UnreadableError(
                f"holds tensor {key!r:.120} of dtype {dtype}, which is not read here", hint="convert it first"
            )
        if dtype not in _KNOWN_DTYPES:
            raise MalformedError(f"tensor {key!r:.120} has the unknown dtype {dtype!r:.40}")
        whole = all(type(number) is int and number >= 0 for number in (begin, end, *shape))
        if not whole or not is_possible(shape):
            raise MalformedError(f"tensor {key!r:.120} has an impossible shape or place")
        if end - begin != math.prod(shape) * DTYPE_SIZES[dtype]:
            raise MalformedError(f"tensor {key!r:.120} has {end - begin} bytes, which is not what its shape takes")
        yield begin, end, key


def _is_short(fields: object) -> bool:
    """Whether fields that nobody reads are such as the format's own reader takes: not deep, no endless number."""
    try:
        return not fields or len(json.dumps(fields, allow_nan=False)) <= 200
    except (ValueError, RecursionError):
        return False
