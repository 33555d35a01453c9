"""A weights file of any known format and layout -> where its tensors lie, under the model's own keys, and what it says.

Nothing in a file is ever executed: pickles are disassembled into plain data, see `pickles.py`. No tensor is read, and
neither torch nor numpy is imported; `tensors.py` reads the values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spgsurgeon.checkpoint.containers.documents import Document, read_document
from spgsurgeon.checkpoint.containers.formats import Format
from spgsurgeon.checkpoint.containers.shards import INDEX_SUFFIX, read_shards
from spgsurgeon.checkpoint.refusals import MalformedError, UnsafeError, naming
from spgsurgeon.checkpoint.state_dict.beside import lists_beside, sets_beside
from spgsurgeon.checkpoint.state_dict.choosing import Choice, choose_weights, under
from spgsurgeon.checkpoint.state_dict.layouts import specs_at
from spgsurgeon.checkpoint.state_dict.prefixes import refuse_flat_parameters, unwrap
from spgsurgeon.checkpoint.state_dict.specs import TensorSpec


@dataclass(frozen=True)
class Outline:
    """The chosen weights of a file, and what the file says about the model they belong to."""

    path: Path
    format: Format  # of the shards, where `path` is an index
    producer: str | None  # "timm", "torchvision", "lightning"; None for a bare state dict or an unknown script
    library: str | None  # "timm", "torchvision"; None if the file does not settle it
    architecture: str | None  # as the file spells it
    model_args: dict[str, Any]  # how the file says the model was built, under timm.create_model's names; JSON-like
    entries: dict[str, TensorSpec]  # in file order, wrapper prefixes removed
    prefixes: tuple[str, ...]  # the wrapper prefixes removed, outermost first
    path_in_file: tuple[str, ...]  # where in the file the weights were, such as ("state_dict_ema",)
    weights: str  # "raw", "ema", or the name of the section or attribute that was asked for
    has_ema: bool
    sets_beside: tuple[str, ...]  # other state dicts with the model's keys, by the names that --weights takes
    description: dict[str, Any] | None  # the config.json that the file carries
    lists_beside: tuple[str, ...]  # lists of tensors of the model's shapes: averages that have no keys


def read_outline(path: Path, weights: str | None = None) -> Outline:
    """Return the outline of a weights file, or of the shards of a `*.index.json`.

    `weights` is "ema", "raw", None for EMA where the file has it, or the name of a top-level section, of an attribute
    that the keys begin with, or of both (`teacher.backbone`). Raises UsageError (no such file, no weights in
    it, the asked weights not in it, tensors that are not dense), DamagedFileError (cut off, empty, contradicts
    itself), UnsafeInputError (asks for more than weights need).
    """
    path = Path(path)
    with naming(path):
        if path.name.endswith(INDEX_SUFFIX):
            document, found = read_shards(path)
            document = replace(document, values={}, layout=replace(document.layout, ema=None))  # of the first shard
            choice = choose_weights(document, weights)
        else:
            document = read_document(path)
            choice = choose_weights(document, weights)
            found = specs_at(document.values, choice.place, document.spec_of)
        _check_keys(found)
        _check_expansion(found)
        return _outline(path, document, choice, found)


def _outline(path: Path, document: Document, choice: Choice, found: dict[str, TensorSpec]) -> Outline:
    layout = document.layout
    taken, prefixes = under(document, choice, found)
    unwrapped = unwrap(taken, any_attribute=layout.producer == "lightning" and choice.attribute is None)
    return Outline(
        path=path,
        format=document.format,
        producer=layout.producer,
        library=layout.library,
        architecture=layout.architecture,
        model_args=layout.model_args,
        entries=dict(zip(unwrapped.keys, taken.values(), strict=True)),
        prefixes=(*prefixes, *unwrapped.prefixes),
        path_in_file=choice.place,
        weights=choice.name,
        has_ema=layout.ema is not None or choice.name == "ema",
        description=layout.description,
        sets_beside=sets_beside(document, choice, taken),
        lists_beside=lists_beside(document, taken),
    )


def _check_keys(found: Mapping[str, TensorSpec]) -> None:
    refuse_flat_parameters(found)
    try:
        "".join(found).encode()
    except UnicodeEncodeError as error:
        raise MalformedError(f"a key is not text ({error.reason})") from error


def _check_expansion(found: Mapping[str, TensorSpec]) -> None:
    """Refuse tensors that are small in the file and huge when copied (strides of zero); tied weights pass."""
    claimed = sum(spec.nbytes for spec in found.values())
    size = sum(file.stat().st_size for file in {spec.path for spec in found.values()})
    if claimed > 8 * size + 2**20:
        raise UnsafeError(f"its tensors claim {claimed} bytes in a file of {size}", hint="save contiguous tensors")
