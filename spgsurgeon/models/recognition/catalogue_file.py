"""Writes the catalogue's file; what is in it is said, and read, by `catalogue.py`."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from spgsurgeon.models.recognition.catalogue import Entry, Record
from spgsurgeon.models.recognition.fingerprints import key_sample, masked, pair_sample, without_counters

_EARLIEST = (1980, 1, 1, 0, 0, 0)  # the time in the archive, so that the same content gives the same bytes


def write(path: Path, records: Iterable[Record], versions: Mapping[str, str]) -> None:
    """Write the catalogue of these records, built with these versions of the libraries."""
    records = list(records)
    members = {"table.json": table(records, versions), "samples.json": _samples(records)} | _families(records)
    members["twins.json"] = _twins(records)
    with zipfile.ZipFile(path, "w") as archive:
        for name, document in members.items():
            quick = name == "table.json"  # read each time; the others are large, and seldom needed
            information = zipfile.ZipInfo(name, _EARLIEST)
            information.compress_type = zipfile.ZIP_DEFLATED if quick else zipfile.ZIP_LZMA
            content = json.dumps(document, separators=(",", ":")).encode()
            archive.writestr(information, content, compresslevel=9)


def table(records: list[Record], versions: Mapping[str, str]) -> dict[str, Any]:
    """Return a column for each field of Entry: its distinct values, and which of them each row has."""
    rows = [asdict(record.entry) for record in records]
    columns = {}
    for field in fields(Entry):
        values = [row[field.name] for row in rows]
        if field.name == "heads":
            values = [[list(head.values()) for head in heads] for heads in values]
        if field.name == "last_stage":
            values = [stage and list(stage.values()) for stage in values]
        texts = [json.dumps(value) for value in values]
        pool = list(dict.fromkeys(texts))
        places = {text: place for place, text in enumerate(pool)}
        columns[field.name] = ([json.loads(text) for text in pool], [places[text] for text in texts])
    return {"versions": dict(versions), "columns": columns}


def _samples(records: list[Record]) -> dict[str, Any]:
    keys, pairs = {}, {}
    for entry, shapes in ((record.entry, without_counters(record.layout)) for record in records if record.layout):
        varying = {key for key, *_ in (*entry.class_places, *entry.channel_places)}
        keys[entry.key_hash] = key_sample(shapes)
        pairs[entry.shape_hash] = pair_sample({key: shape for key, shape in shapes.items() if key not in varying})
    return {"keys": keys, "pairs": pairs}


def _twins(records: list[Record]) -> dict[str, Any]:
    """Return the traits of those that weights fit as well as they fit others, with or without a classifier."""
    known = [record for record in records if record.layout and not record.entry.model_args]
    alike: dict[Any, dict[str, Record]] = {}
    for record in known:
        for shapes in (_shapes(record), _shapes(record, record.entry.head_keys)):
            alike.setdefault(shapes, {})[record.entry.name] = record
    twins = {name: record for some in alike.values() if len(some) > 1 for name, record in some.items()}
    return {name: dict(record.traits) for name, record in sorted(twins.items())}


def _shapes(record: Record, absent: Iterable[str] = ()) -> frozenset[tuple[str, Any]]:
    """Return the keys and shapes whatever the number of classes."""
    shapes = without_counters(masked(record.layout, record.entry.class_places, ()))
    return frozenset((key, tuple(shape)) for key, shape in shapes.items() if key not in set(absent))


def _families(records: list[Record]) -> dict[str, Any]:
    families: dict[str, dict[str, dict[str, str]]] = {}
    for entry, layout in ((record.entry, record.layout) for record in records if record.layout):
        family = families.setdefault(f"{entry.library}/{entry.family}.json", {"keys": {}, "shapes": {}})
        shapes = masked(layout, entry.class_places, entry.channel_places).values()
        family["keys"][entry.order_hash] = "\n".join(layout)
        family["shapes"][f"{entry.order_hash} {entry.shape_hash}"] = ";".join(" ".join(map(str, s)) for s in shapes)
    return families
