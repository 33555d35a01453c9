"""How the samples of a source are read, as the data section of a recipe or the options of a command say it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from spgsurgeon.data.sources.class_names import Classes
from spgsurgeon.data.sources.image_decoding import AS_IS, Decoding

NO_COLUMNS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Reading:
    """See `opening.open_source`."""

    classes: Classes = None
    ignore: tuple[int, ...] = ()
    values: Mapping[int, int] = field(default_factory=dict)
    decoding: Decoding = AS_IS
    columns: Mapping[str, str] = field(default_factory=dict)
    """Of a table, by the roles that they play."""
