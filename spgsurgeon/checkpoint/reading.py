"""A weights file of any known format and layout -> its tensors under the model's own keys, and what it says of itself.

Nothing in a file is ever executed: pickles are disassembled and refused before torch sees them, see `pickles.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from spgsurgeon.checkpoint.formats import Format, format_of
from spgsurgeon.checkpoint.layouts import Layout, choose_weights, layout_of, tensors_at
from spgsurgeon.checkpoint.loading import load_torch_legacy, load_torch_zip
from spgsurgeon.checkpoint.prefixes import wrapper_prefixes
from spgsurgeon.errors import DamagedFileError, SurgeonError, UnsafeInputError, UsageError


@dataclass(frozen=True)
class Checkpoint:
    """The chosen weights of a file, and what the file says about the model they belong to."""

    path: Path
    format: Format
    producer: str | None  # "timm", "torchvision", "lightning"; None for a bare state dict or an unknown script
    library: str | None  # "timm", "torchvision"; None where the file does not settle it
    architecture: str | None  # as the file spells it
    model_args: dict[str, Any]  # how the file says the model was built, under timm.create_model's names; JSON-like
    tensors: dict[str, Tensor]  # on the CPU, in file order, wrapper prefixes removed, memory-mapped where possible
    prefixes: tuple[str, ...]  # the wrapper prefixes removed, outermost first
    path_in_file: tuple[str, ...]  # where in the file the weights were, such as ("state_dict_ema",)
    weights: str  # "raw" or "ema"
    has_ema: bool


def read_checkpoint(path: Path, weights: str | None = None) -> Checkpoint:
    """Read a weights file; `weights` is "ema", "raw", or None for EMA where the file has it.

    Raises UsageError (no such file, no weights in it, the asked weights not in it), DamagedFileError (cut off, empty,
    contradicts itself), UnsafeInputError (asks for more than weights need).
    """
    path = Path(path)
    try:
        return _read(path, format_of(path), weights)
    except OSError as error:
        raise SurgeonError(f"{path} can't be read: {error.strerror or error}") from error


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file, memory-mapped and in file order, and its metadata."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.offset_keys()}, dict(file.metadata() or {})
    except (SafetensorError, RuntimeError, ValueError, KeyError) as error:
        raise DamagedFileError(f"{path} is damaged or cut off: {error}", hint="copy or download it again") from error


def _read(path: Path, form: Format, weights: str | None) -> Checkpoint:
    document, layout = _load(path, form)
    chosen, place = choose_weights(path, layout, weights)
    found = tensors_at(path, document, place)
    _check_expansion(path, found)
    prefixes = wrapper_prefixes(found, any_attribute=layout.producer == "lightning")
    start = len("".join(prefixes))
    return Checkpoint(
        path=path,
        format=form,
        producer=layout.producer,
        library=layout.library,
        architecture=layout.architecture,
        model_args=layout.model_args,
        tensors={key[start:]: tensor for key, tensor in found.items()},
        prefixes=prefixes,
        path_in_file=place,
        weights=chosen,
        has_ema=layout.ema is not None,
    )


def _load(path: Path, form: Format) -> tuple[Mapping[Any, Any], Layout]:
    if form == "safetensors":
        tensors, metadata = read_safetensors(path)
        library = metadata.get("library") or metadata.get("library_name")
        return tensors, Layout(
            library=library if library in ("timm", "torchvision") else None,
            architecture=metadata.get("architecture") or metadata.get("arch"),
            raw=(),
        )
    document = load_torch_zip(path) if form == "torch-zip" else load_torch_legacy(path)
    if not isinstance(document, Mapping):
        raise UsageError(
            f"{path} holds a {type(document).__name__}, not a state dict", hint="save model.state_dict() instead"
        )
    return document, layout_of(document)


def _check_expansion(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are small in the file and huge when copied (strides of zero); tied weights pass."""
    claimed, size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()), path.stat().st_size
    if claimed > 8 * size + 2**20:
        raise UnsafeInputError(
            f"{path} was not loaded: its tensors claim {claimed} bytes in a file of {size}",
            hint="save contiguous tensors",
        )
