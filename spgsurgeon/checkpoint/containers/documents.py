"""One weights file of any format as a document: sections, settings and, somewhere in it, tensors that stay unread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from spgsurgeon.checkpoint.containers.formats import Format, format_of
from spgsurgeon.checkpoint.containers.headers import SafetensorsHeader, read_header
from spgsurgeon.checkpoint.containers.objects import json_object
from spgsurgeon.checkpoint.containers.torch_files import TorchFile, read_torch_legacy, read_torch_zip
from spgsurgeon.checkpoint.layout import CONFIG
from spgsurgeon.checkpoint.pickle.nodes import describe
from spgsurgeon.checkpoint.pickle.rebuilding import tensor_spec
from spgsurgeon.checkpoint.refusals import MalformedError, UnreadableError, naming
from spgsurgeon.checkpoint.state_dict.layouts import Layout, SpecOf, layout_of, text
from spgsurgeon.errors import UsageError


@dataclass(frozen=True)
class Document:
    """What a file holds, and how. `spec_of(key, value)` is where a value lies if it is a tensor, else None."""

    format: Format
    values: Mapping[Any, Any]
    layout: Layout
    spec_of: SpecOf


def read_document(path: Path) -> Document:
    """Return the document in a weights file; refuses what is not a weights file, damaged or unsafe."""
    with naming(path), opened_weights(path) as file:
        form = format_of(file, path.name)
        if form == "safetensors":
            return _safetensors(read_header(file))
        return _torch(form, read_torch_zip(file) if form == "torch-zip" else read_torch_legacy(file))


def opened_weights(path: Path) -> BinaryIO:
    """Open what a user calls weights. Raises UsageError if there is nothing, or something else than a file."""
    if path.is_dir():
        raise UnreadableError("is a folder, not a weights file", code="not-a-file")
    if path.exists() and not path.is_file():
        raise UnreadableError("is a pipe or a device, not a file", hint="write it to a file first", code="not-a-file")
    try:
        return path.open("rb", buffering=0)  # the directory of an archive is read through the same descriptor
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}", hint="check the path", code="no-such-file") from None
    except OSError as error:
        raise UnreadableError(f"can't be read: {error.strerror}", code="unreadable-file") from error


def _safetensors(header: SafetensorsHeader) -> Document:
    said = header.metadata.get
    library = said("library") or said("library_name")
    layout = Layout(
        producer="transformers" if library == "transformers" else None,
        library=library if library in ("timm", "torchvision") else None,
        architecture=text(said("architecture")) or text(said("arch")),
        raw=(),
        description=_described(said(CONFIG)),
    )
    return Document("safetensors", header.entries, layout, lambda key, _: header.entries[key])


def _torch(form: Format, file: TorchFile) -> Document:
    if not isinstance(file.tree, Mapping):
        raise UnreadableError(
            f"holds a {describe(file.tree)}, not a state dict", hint="save model.state_dict() instead"
        )
    layout = replace(layout_of(file.tree), description=_described(file.description))
    return Document(form, file.tree, layout, partial(tensor_spec, file))


def _described(text: str | None) -> dict[str, Any] | None:
    """Return the config.json that a file carries."""
    if text is None:
        return None
    try:
        return json_object(text)
    except MalformedError as error:
        raise MalformedError(f"of the {CONFIG} inside: {error.message}") from error
