"""Builds the catalogue: every image classifier and segmentation model of both libraries, on the meta device.

`python -m spgsurgeon.models.recognition.cataloguing [-o FILE] [--jobs N]`. What follows the number of classes or
of input channels, and what goes with the classifier, is found by building each model with other numbers and comparing:
nothing goes by the names of layers. The same versions of the libraries give the same file, byte for byte.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import nn
from torch.overrides import TorchFunctionMode

from spgsurgeon.errors import ArchitectureError, UnsafeInputError
from spgsurgeon.models.libraries.identity import Identity
from spgsurgeon.models.libraries.registry import LIBRARIES, library
from spgsurgeon.models.preprocessing import of_images
from spgsurgeon.models.recognition.catalogue import FILE, Entry, Head, Record, installed_version
from spgsurgeon.models.recognition.catalogue_file import write
from spgsurgeon.models.recognition.fingerprints import (
    Places,
    Shape,
    Shapes,
    key_hash,
    order_hash,
    shape_hash,
    without_counters,
)
from spgsurgeon.models.recognition.twins import traits_of
from spgsurgeon.models.recognition.varying_shapes import places_between
from spgsurgeon.models.sites.depth import find_depth_site
from spgsurgeon.models.sites.heads import DepthSite
from spgsurgeon.models.sites.search import find_sites

_CLASSES, _CHANNELS = 13, 5  # no default, and prime: a size that changes by another ratio is not taken for them
_USUAL_CLASSES = 1000

# Files of these may lack the auxiliary heads; torchvision takes GoogLeNet's off when it loads its own weights.
_VARIANTS: dict[str, tuple[dict[str, Any], ...]] = {
    "torchvision/googlenet": ({"aux_logits": False},),
    "torchvision/inception_v3": ({"aux_logits": False},),
    "torchvision/deeplabv3_mobilenet_v3_large": ({"aux_loss": False},),
    "torchvision/deeplabv3_resnet101": ({"aux_loss": False},),
    "torchvision/deeplabv3_resnet50": ({"aux_loss": False},),
    "torchvision/fcn_resnet101": ({"aux_loss": False},),
    "torchvision/fcn_resnet50": ({"aux_loss": False},),
}


def describe(library_name: str, architecture: str, model_args: Mapping[str, Any] | None = None) -> Record:
    """Return what the catalogue says of one architecture of the installed library.

    One that can't be built has an empty layout and empty hashes, and its `refusal` says why.
    """
    default_classes = library(library_name).default_classes(architecture)
    asked = Identity(library_name, architecture, default_classes, model_args=dict(model_args or {}))
    try:
        model = build_on_meta(asked)
    except ArchitectureError as error:
        return Record(_entry(asked, refusal=error.message), {})
    preprocessing = of_images(library(library_name).preprocessing(asked, model), architecture)
    size, traits = preprocessing.input_size, traits_of(model, preprocessing)
    full = replace(asked, num_classes=default_classes or _USUAL_CLASSES)
    model = model if default_classes else _build_if_possible(full) or model
    shapes = _shapes(model)
    classes = _places(shapes, _other(full, num_classes=_CLASSES), full.num_classes, _CLASSES)
    channels = _places(shapes, _other(full, model_args={"in_chans": _CHANNELS}), size[0], _CHANNELS)
    head_keys = _head_keys(shapes, _other(full, num_classes=0), classes)
    heads, refusal = _heads(model, size)
    entry = _entry(
        asked,
        channels=size[0],
        input_size=size,
        heads=heads,
        refusal=refusal,
        last_stage=_last_stage(model, size) if heads else None,
        buffers=_buffers(model),
        class_places=classes,
        channel_places=channels,
        head_keys=head_keys,
        **_hashes(shapes, classes, channels, head_keys),
    )
    return Record(entry, shapes, traits)


def build_on_meta(identity: Identity) -> nn.Module:
    """Return the module without its weights. Raises ArchitectureError if the library can't build it.

    Some constructors compute with tensors of their own, which the meta device can't; these get all but parameters real.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a head for no classes, say, which is what was asked for
        try:
            with torch.device("meta"):
                return library(identity.library).build(identity)
        except ArchitectureError:
            with _UninitializedOnMeta():
                return library(identity.library).build(identity).to("meta")


class _UninitializedOnMeta(TorchFunctionMode):
    """Makes `torch.empty`, which parameters are made by, give tensors on the meta device."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return func(*args, **(kwargs or {}) | ({"device": "meta"} if func is torch.empty else {}))


def _build_if_possible(identity: Identity) -> nn.Module | None:
    try:
        return build_on_meta(identity)
    except ArchitectureError:
        return None


def _other(identity: Identity, **changes: Any) -> Shapes | None:
    """Return the shapes of the model with other arguments; None if the library does not build it with them."""
    changes["model_args"] = identity.model_args | changes.get("model_args", {})
    try:
        module = _build_if_possible(replace(identity, **changes))
    except UnsafeInputError:  # no argument of this library, as torchvision has none for the channels
        return None
    return None if module is None else _shapes(module)


def _shapes(module: nn.Module) -> dict[str, Shape]:
    return {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}


def _places(shapes: Shapes, other: Shapes | None, number: int, other_number: int) -> Places:
    return () if other is None else places_between(shapes, other, number, other_number)


def _head_keys(shapes: Shapes, headless: Shapes | None, class_places: Places) -> tuple[str, ...]:
    """Return what the library leaves out for no classes; where it can't do that, what follows the number of classes."""
    follow = dict.fromkeys(key for key, _, _ in class_places)
    if headless is None or any(shapes.get(key) != shape for key, shape in headless.items()):
        return tuple(follow)
    absent = tuple(key for key in shapes if key not in headless)
    return absent if follow.keys() <= set(absent) else tuple(follow)


def _heads(model: nn.Module, size: tuple[int, int, int]) -> tuple[tuple[Head, ...], str | None]:
    try:
        sites = find_sites(model, torch.zeros(1, *size, device="meta"))
    except ArchitectureError as error:
        return (), error.message
    return tuple(Head(site.module, site.type, site.width, site.key) for site in sites), None


def _last_stage(model: nn.Module, size: tuple[int, int, int]) -> DepthSite | None:
    try:
        return find_depth_site(model, torch.zeros(1, *size, device="meta"))
    except ArchitectureError:
        return None


def _buffers(model: nn.Module) -> tuple[str, ...]:
    """Return the last parts of the keys of the buffers, or whole keys where a parameter is called the same."""
    parameters = {key.rpartition(".")[2] for key, _ in model.named_parameters()}
    saved = [key for key, _ in model.named_buffers() if key in model.state_dict()]
    return tuple(sorted({key if (leaf := key.rpartition(".")[2]) in parameters else leaf for key in saved}))


def _hashes(shapes: Shapes, classes: Places, channels: Places, head_keys: tuple[str, ...]) -> dict[str, Any]:
    shapes = without_counters(shapes)
    headless = {key: shape for key, shape in shapes.items() if key not in head_keys}
    return {
        "tensors": len(shapes),
        "key_hash": key_hash(shapes),
        "shape_hash": shape_hash(shapes, classes, channels),
        "order_hash": order_hash(shapes),
        "headless_key_hash": key_hash(headless),
        "headless_shape_hash": shape_hash(headless, (), channels),
    }


def _entry(identity: Identity, **known: Any) -> Entry:
    empty: dict[str, Any] = {
        "channels": 3,
        "input_size": (3, 224, 224),
        "heads": (),
        "refusal": None,
        "last_stage": None,
        "buffers": (),
        "class_places": (),
        "channel_places": (),
        "head_keys": (),
        "tensors": 0,
        **dict.fromkeys(("key_hash", "shape_hash", "order_hash", "headless_key_hash", "headless_shape_hash"), ""),
    }
    return Entry(
        library=identity.library,
        architecture=identity.architecture,
        family=_family(identity),
        task=library(identity.library).task(identity.architecture),
        classes=identity.num_classes,
        model_args=identity.model_args,
        **empty | known,
    )


def _family(identity: Identity) -> str:
    """Return the library's module that the architecture is built in."""
    get_builder = timm.models.model_entrypoint if identity.library == "timm" else torchvision.models.get_model_builder
    return str(get_builder(identity.architecture).__module__.rpartition(".")[2])


def describe_all(jobs: int) -> Iterator[Record]:
    """Yield a record for every architecture of both libraries, and for the variants, by library and name."""
    work = [
        (name, architecture, args)
        for name in LIBRARIES
        for architecture in library(name).architectures()
        for args in ({}, *_VARIANTS.get(f"{name}/{architecture}", ()))
    ]
    with get_context("forkserver").Pool(jobs, torch.set_num_threads, (1,)) as pool:
        for done, record in enumerate(pool.imap(_describe, work, chunksize=4), 1):
            if record.entry.refusal:
                print(f"{record.entry.name}: {record.entry.refusal}", file=sys.stderr)
            if done % 100 == 0 or done == len(work):
                print(f"{done} of {len(work)}", file=sys.stderr, flush=True)
            yield record


def _describe(asked: tuple[str, str, dict[str, Any]]) -> Record:
    return describe(*asked)


def main() -> None:
    """Build the catalogue of the installed libraries."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=FILE)
    parser.add_argument("-j", "--jobs", type=int, default=2)
    options = parser.parse_args()
    versions = {name: installed_version(name) for name in (*LIBRARIES, "torch")}
    write(options.output, list(describe_all(options.jobs)), versions)


if __name__ == "__main__":
    main()
