"""A folder of transformers: what its config.json and the names and shapes of its weights say, and the model it holds.

What is read for `inspect` needs neither torch nor transformers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spgsurgeon.checkpoint import TensorSpec
from spgsurgeon.errors import DamagedFileError, UnsafeInputError, UsageError
from spgsurgeon.loading.locating import Located
from spgsurgeon.loading.manifests import check_manifest_of
from spgsurgeon.models import (
    ENCODER_LAYER,
    LABELLED,
    DepthSite,
    Head,
    Identity,
    Site,
    TransformersConfig,
    classes_of,
    default_head,
    made_up_labels,
    read_transformers_config,
    with_labels,
)

if TYPE_CHECKING:
    from torch import nn

TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "bpe.codes",
    "spiece.model",
    "spm.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "chat_template.jinja",
)
COMPANIONS = (*TOKENIZER, "preprocessor_config.json", "processor_config.json", "generation_config.json")
"""Files beside the weights that go with them unchanged: what makes inputs of a text, a sound or an image."""


@dataclass(frozen=True)
class TransformersFolder:
    """What a folder holds. `site` is where replicas attach, None if there is no head to graft at.

    `parameters` counts the numbers of its weights, those that are shared once. `last_layer` is where replicas of depth
    attach, None if that is not known.
    """

    config: TransformersConfig
    site: Site | None
    companions: tuple[Path, ...]
    parameters: int
    last_layer: DepthSite | None = None

    @property
    def has_tokenizer(self) -> bool:
        """Whether the files of a tokenizer are there."""
        return any(path.name in TOKENIZER for path in self.companions)


@dataclass(frozen=True)
class TransformersModel:
    """The model of a folder. `config` is the config.json that goes with it, `labels` the names of its classes.

    `new` names the parameters of its head if that is a new one.
    """

    module: nn.Module
    identity: Identity
    config: dict[str, Any]
    labels: list[str] | None
    notes: list[str]
    new: tuple[str, ...]

    @property
    def is_new(self) -> bool:
        """Whether its head is new."""
        return bool(self.new)


def read_folder(located: Located) -> TransformersFolder:
    """Return what a located folder of transformers holds. Raises what `transformers_config` raises."""
    assert located.config is not None
    check_manifest_of(located)
    config, entries = read_transformers_config(located.config, located.described_in), located.outline.entries
    _refuse_quantized(entries, located.source)
    parameters = {(spec.path, spec.offset): prod(spec.shape) for spec in entries.values() if _is_floating(spec)}
    site, numbers = _site(config, entries), sum(parameters.values())
    return TransformersFolder(config, site, _companions(located.folder), numbers, _last_layer(config, entries))


def _companions(folder: Path | None) -> tuple[Path, ...]:
    """Return the files that lie beside weights and go with them."""
    places = [folder / name for name in COMPANIONS] if folder else []
    return tuple(path for path in places if path.is_file() and _is_inside(path, path.parent))


def open_folder(
    located: Located, folder: TransformersFolder, task: str | None, num_classes: int | None, seed: int
) -> TransformersModel:
    """Return the model of a located folder of transformers, with its own head, or the new one that is asked for.

    `task` and `num_classes` ask for one, whose weights are a function of `seed`. Raises ArchitectureError if it has no
    head, or the weights don't fit, UsageError for a head that can't be.
    """
    import torch

    from spgsurgeon.checkpoint import load_tensors
    from spgsurgeon.models import TransformersLibrary, find_transformers_sites, library, limited_to, refuse_unlisted

    head, is_new = _head(folder, task, num_classes)
    identity, document = _identity(folder, head, num_classes if is_new else None)
    refuse_unlisted(head.name, document, identity.model_args, folder.config.place)
    tensors, known = load_tensors(located.outline.entries), library("transformers")
    assert isinstance(known, TransformersLibrary)
    with torch.random.fork_rng(devices=[]), limited_to(tensors, identity.name):
        torch.manual_seed(seed)
        module, notes, new = known.load(identity, tensors, new_head=is_new)
    identity = replace(identity, num_classes=find_transformers_sites(module)[0].classes)
    if is_new:
        notes = [_said(folder, head, identity), *notes]
    return TransformersModel(module, identity, document, _names(identity), notes, new)


def _refuse_quantized(entries: Mapping[str, TensorSpec], place: str) -> None:
    for key, spec in entries.items():
        if key.endswith(".weight") and (not _is_floating(spec) or spec.dtype.startswith("F8")):
            raise UnsafeInputError(
                f"{place} holds quantized weights ({key} is {spec.dtype}), and these can't be retrained",
                hint="give the weights that were quantized",
                code="quantized-weights",
                unsafe=[key],
            )


def _is_floating(spec: TensorSpec) -> bool:
    return spec.dtype.startswith(("F", "BF"))


def _site(config: TransformersConfig, entries: Mapping[str, TensorSpec]) -> Site | None:
    head = config.head
    if head is None:
        return None
    into, out = (head.tied, head.tied) if config.ties else (f"{head.module}.weight", f"{head.logits}.weight")
    shapes = [_shape(str(key), head, entries, config.place) for key in (into, out)]
    classes = classes_of(config, shapes[1][0], str(out))
    return Site(head.module, "Linear", shapes[0][1], classes)


def _last_layer(config: TransformersConfig, entries: Mapping[str, TensorSpec]) -> DepthSite | None:
    """Return what `find_transformers_depth_site` finds in the model, by the file's own names; None where it refuses."""
    head, said = config.head, config.arguments
    width = said.get("hidden_size", said.get("dim"))
    skips = said.get("layerdrop", 0.1) > 0 if head and head.family.modality == "waves" else False
    matches = [(match, key) for key in entries if (match := _LAYER.match(key))]
    if head is None or not head.family.layers or not matches or width is None:
        return None
    if skips or said.get("use_weighted_layer_sum"):
        return None
    number = max(int(match["number"]) for match, _ in matches)
    last = {key: match for match, key in matches if int(match["number"]) == number}
    layers, body = next(iter(last.values()))["layers"], head.family.body
    return DepthSite(
        module=f"{'' if layers.startswith(f'{body}.') else f'{body}.'}{layers}.{number}",
        width=width,
        family=head.family.prefix,
        block=ENCODER_LAYER,
        blocks=1,
        block_parameters=sum(prod(entries[key].shape) for key in last) + width,
        depth=number + 1,
        block_depth=1,
        unit="layers",
    )


_LAYER = re.compile(r"(?P<layers>(?:\w+\.)*?layers?)\.(?P<number>\d+)\.")
"""The beginning of a key in an encoder's layer: `bert.encoder.layer.11.`."""


def _shape(key: str, head: Head, entries: Mapping[str, TensorSpec], place: str) -> tuple[int, ...]:
    """Return the shape of a weight [to, from], which a file whose keys are all the body's has without its name."""
    spec = entries.get(key) or entries.get(key.removeprefix(f"{head.family.body}."))
    if spec is None:
        raise DamagedFileError(f"{place} says {head.name}, and the weights beside it have no {key}")
    if len(spec.shape) != 2:
        raise DamagedFileError(f"{place} says {head.name}, and {key} beside it is {list(spec.shape)}")
    return spec.shape


def _head(folder: TransformersFolder, task: str | None, num_classes: int | None) -> tuple[Head, bool]:
    """Return the head that is asked for, and whether it is a new one."""
    config = folder.config
    if task is None and config.head is None and num_classes is not None:
        head = default_head(config.model_type)
        if head is None:
            raise config.headless()
    else:
        head = config.with_head(task)
    has_classes = head.task in LABELLED
    if num_classes is not None and not has_classes:
        raise UsageError(f"{head.name} has no classes to choose a number of", hint="leave --num-classes out")
    if num_classes == 1:
        raise UsageError("a head of one class has nothing to choose from", hint="--num-classes is 2 or more")
    if head is config.head and folder.site is not None:
        return head, num_classes not in (None, folder.site.classes)
    if has_classes and num_classes is None:
        raise UsageError(f"{head.name} is a new head here: for how many classes?", hint="--num-classes N")
    return head, True


def _identity(folder: TransformersFolder, head: Head, new_classes: int | None) -> tuple[Identity, dict[str, Any]]:
    """Return what is built, and the config.json that says so; `new_classes` replace those of the folder."""
    config = folder.config
    document, labels = dict(config.document), config.labels
    if head is not config.head or new_classes is not None:
        document = {key: value for key, value in document.items() if key not in _OF_THE_HEAD}
        document["architectures"], labels = [head.name], None
    classes = new_classes or (folder.site.classes if folder.site and head is config.head else 0)
    if head.task in LABELLED:
        labels = labels or made_up_labels(classes)
        document |= {"id2label": dict.fromkeys(map(str, range(classes)))}
        document = with_labels(document, labels)
    cfg = {"label_names": labels} if labels and head.task in LABELLED else None
    return Identity("transformers", head.name, classes, config.arguments, cfg), document


_OF_THE_HEAD = ("id2label", "label2id", "num_labels", "_num_labels", "problem_type")


def _names(identity: Identity) -> list[str] | None:
    """Return the names of the classes; None if they are those that transformers makes up."""
    names = (identity.pretrained_cfg or {}).get("label_names")
    return None if not names or names == made_up_labels(len(names)) else list(names)


def _said(folder: TransformersFolder, head: Head, identity: Identity) -> str:
    """Return the note on a new head."""
    config = folder.config
    classes = f" for {identity.num_classes} classes" if identity.num_classes and head.task in LABELLED else ""
    if head is config.head and folder.site is not None:
        return f"new head{classes} instead of {folder.site.classes}: untrained"
    return f"new head{classes}, {head.task} ({head.name} from {config.named or config.model_type}): untrained"


def _is_inside(path: Path, folder: Path) -> bool:
    """Return whether a file really lies in `folder`, or where the Hub's cache keeps what its folders link to."""
    real, home = path.resolve(), folder.resolve()
    return real.is_relative_to(home) or (
        home.parent.name == "snapshots" and real.is_relative_to(home.parent.parent / "blobs")
    )
