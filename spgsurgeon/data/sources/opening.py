"""One split of a data set, opened by whatever reads its form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from spgsurgeon.data.sources.class_names import Classes
from spgsurgeon.data.sources.forms import form_of
from spgsurgeon.data.sources.image_decoding import AS_IS, Decoding
from spgsurgeon.data.sources.reading import NO_COLUMNS, Reading
from spgsurgeon.data.sources.source import Source
from spgsurgeon.data.transforms.masks import NO_VALUES


def open_source(
    source: str,
    path: str | Path | None,
    split: str,
    *,
    classes: Classes = None,
    ignore: Iterable[int] = (),
    values: Mapping[int, int] = NO_VALUES,
    decoding: Decoding = AS_IS,
    columns: Mapping[str, str] = NO_COLUMNS,
) -> Source[Any]:
    """Open one split of a data set; nothing is downloaded but by Hugging Face's own library.

    `source` is of one of the forms in `forms.SOURCES`, and `path` the folder it lies in. `classes` are names by mask
    value or label, or their number, for the forms that take them; the others bring theirs. Mask values in `ignore` are
    not scored, `values` says which class others stand for. `columns` names those of a table by the roles that they
    play. Raises UsageError for what is not there, and for streams:
    training could not resume at the sample at which it stopped.
    """
    form = form_of(source)
    module, _, function = form.opener.partition(":")
    opener = getattr(import_module(module), function)
    reading = Reading(classes, tuple(ignore), dict(values), decoding, dict(columns))
    opened: Source[Any] = opener(source, path, split, reading)
    return opened
