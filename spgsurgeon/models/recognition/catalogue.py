"""What is known of every architecture of timm and torchvision, without importing either.

`catalogue.zip` lies beside this file; `cataloguing.py` builds it, and says how it was found out. Its members:
`table.json` all that an exact match needs, a column a field; `samples.json` what the nearest are picked by;
`LIBRARY/FAMILY.json` the keys and shapes of a family's architectures, each list once; `twins.json` what else is known
of those with the same keys and shapes, see `twins.py`.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from spgsurgeon.models.recognition.fingerprints import COUNTER, Places, Shape, Shapes
from spgsurgeon.models.recognition.twins import Traits
from spgsurgeon.models.sites.heads import DepthSite

FILE = Path(__file__).with_name("catalogue.zip")


@dataclass(frozen=True)
class Head:
    """What makes logits: its path in the model, the name of its class, the width of its input (see `heads.Site`)."""

    module: str
    type: str
    width: int
    key: str | None = None


@dataclass(frozen=True)
class Entry:
    """An architecture as its library builds it, and how to recognise its weights.

    `family` is the library's module that holds it, `task` what it predicts (see `Library.task`); `classes` (0: no
    classifier) and `channels` are the library's defaults, `input_size` is (channels, height, width) in pixels. `heads`
    is empty if dropout replicas can't attach, and `refusal` then says why; for an architecture without a classifier
    it is the one that the library gives on request. `last_stage` is None if replicas of depth can't attach.
    `buffers` are the last parts of the keys that are not parameters. `head_keys` go when the classifier goes; hashes
    (see `fingerprints.py`) of an architecture without a classifier are of the model with one, if it can have one.
    `model_args` are arguments of the library's factory for a variant of the architecture; mostly there are none.
    """

    library: str
    architecture: str
    family: str
    task: str
    classes: int
    channels: int
    input_size: tuple[int, int, int]
    heads: tuple[Head, ...]
    refusal: str | None
    last_stage: DepthSite | None
    buffers: tuple[str, ...]
    class_places: Places
    channel_places: Places
    head_keys: tuple[str, ...]
    tensors: int
    key_hash: str
    shape_hash: str
    order_hash: str
    headless_key_hash: str
    headless_shape_hash: str
    model_args: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The MODEL form of the command line."""
        return f"{self.library}/{self.architecture}"

    def is_buffer(self, key: str) -> bool:
        """Return whether the tensor of that key is a buffer, which no optimizer trains."""
        return key.rpartition(".")[2] in self.buffers

    def parameters(self, shapes: Shapes) -> int:
        """Return how many parameters tensors of these shapes hold, buffers left out."""
        return sum(_product(shape) for key, shape in shapes.items() if not self.is_buffer(key))


@dataclass(frozen=True)
class Record:
    """An architecture, its keys and shapes in the order of its state dict (see `full_layout`), and its traits."""

    entry: Entry
    layout: dict[str, Shape]
    traits: Traits = field(default_factory=dict)


class Catalogue:
    """The table of a `catalogue.zip`: one row an architecture, made an Entry when it is asked for."""

    def __init__(self, table: Mapping[str, Any], samples: Callable[[], Any]) -> None:
        self.versions: dict[str, str] = table["versions"]
        self._columns: dict[str, tuple[list[Any], list[int]]] = table["columns"]
        self._rows: dict[str, dict[Any, list[int]]] = {}
        self._made: dict[int, Entry] = {}
        self._read_samples = samples

    def column(self, field: str) -> list[Any]:
        """Return the values of one field of all entries, as JSON has them, row by row."""
        pool, places = self._columns[field]
        return [pool[place] for place in places]

    def value(self, field: str, row: int) -> Any:
        """Return one field of the architecture of that row, as JSON has it."""
        pool, places = self._columns[field]
        return pool[places[row]]

    def rows_with(self, field: str, value: str) -> list[int]:
        """Return the rows whose `field`, one of the hashes, is `value`."""
        if field not in self._rows:
            rows: dict[str, list[int]] = {}
            for row, known in enumerate(self.column(field)):
                rows.setdefault(known, []).append(row)
            self._rows[field] = rows
        return self._rows[field].get(value, [])

    def entry(self, row: int) -> Entry:
        """Return the architecture of that row."""
        if row not in self._made:
            self._made[row] = Entry(**{field: pool[places[row]] for field, (pool, places) in self._fields.items()})
        return self._made[row]

    @cached_property
    def _fields(self) -> dict[str, tuple[list[Any], list[int]]]:
        """The columns with the values of Entry: tuples where JSON has lists."""
        frozen = {
            field: ([_frozen(value) for value in pool], places) for field, (pool, places) in self._columns.items()
        }
        heads, places_of_heads = frozen["heads"]
        stages, places_of_stages = frozen["last_stage"]
        return frozen | {
            "heads": ([tuple(Head(*head) for head in some) for some in heads], places_of_heads),
            "last_stage": ([DepthSite(*stage) if stage else None for stage in stages], places_of_stages),
        }

    @cached_property
    def entries(self) -> dict[str, Entry]:
        """Every architecture by its name, as its library builds it without further arguments."""
        everything = map(self.entry, range(len(self.column("architecture"))))
        return {entry.name: entry for entry in everything if not entry.model_args}

    @cached_property
    def samples(self) -> dict[str, dict[str, list[int]]]:
        """The samples of keys (by key hash, under "keys") and of keys with shapes (by shape hash, under "pairs")."""
        samples: dict[str, dict[str, list[int]]] = self._read_samples()
        return samples


@cache
def known_traits() -> dict[str, Traits]:
    """Return what is known, beyond keys and shapes, of architectures that share these with others, by their names."""
    traits: dict[str, Traits] = _read("twins.json")
    return traits


@cache
def catalogue() -> Catalogue:
    """Return the catalogue that ships with the package."""
    return Catalogue(_read("table.json"), lambda: _read("samples.json"))


def layout(entry: Entry) -> dict[str, Shape]:
    """Return the keys and shapes of the architecture as its library builds it, in the order of its state dict."""
    full = full_layout(entry)
    absent = () if entry.classes else entry.head_keys
    return {key: shape for key, shape in full.items() if key not in absent}


def full_layout(entry: Entry) -> dict[str, Shape]:
    """Return `layout(entry)` with the classifier that the library gives on request where there is none by default.

    That classifier's shapes are then those for 1000 classes.
    """
    if not entry.key_hash:
        return {}
    family = _family(f"{entry.library}/{entry.family}.json")
    keys = family["keys"][entry.order_hash].split("\n")
    text = family["shapes"][f"{entry.order_hash} {entry.shape_hash}"].split(";")
    shapes = {key: [int(size) for size in shape.split()] for key, shape in zip(keys, text, strict=True)}
    for places, number in ((entry.class_places, entry.classes or 1000), (entry.channel_places, entry.channels)):
        for key, dimension, factor in places:
            shapes[key][dimension] = factor * number
    return {key: tuple(shape) for key, shape in shapes.items()}


def installed_version(library: str) -> str:
    """Return the version of an installed library, without the suffix that says for which device it was compiled."""
    from importlib.metadata import version  # takes longer to import than an exact match in all, which needs it not

    return version(library).partition("+")[0]


def counters_of(shapes: Shapes) -> list[str]:
    """Return the keys of the counters that belong to these shapes: one beside each running mean."""
    mean = "running_mean"
    return [key.removesuffix(mean) + COUNTER for key in shapes if key.rpartition(".")[2] == mean]


@cache
def _family(member: str) -> dict[str, dict[str, str]]:
    family: dict[str, dict[str, str]] = _read(member)
    return family


def _read(member: str) -> Any:
    with zipfile.ZipFile(FILE) as archive:
        return json.loads(archive.read(member))


def _frozen(value: Any) -> Any:
    return tuple(_frozen(part) for part in value) if isinstance(value, list) else value


def _product(shape: Shape) -> int:
    product = 1
    for size in shape:
        product *= size
    return product
