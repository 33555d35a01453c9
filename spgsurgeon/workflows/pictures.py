"""The pictures of a run, as a recipe's data section describes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from spgsurgeon.recipe.data_section import HOLDOUT, MASKS, DataSection
from spgsurgeon.training.mask_sources import open_mask_source
from spgsurgeon.training.shard_source import with_classes
from spgsurgeon.training.sources import ImageSource, Source, open_source
from spgsurgeon.training.subsets import hold_out, hold_out_masks, limit_classes


@dataclass(frozen=True)
class Data:
    """What a run trains on and what it is scored on."""

    train: Source[Any]
    evaluation: Source[Any]


def open_data(section: DataSection) -> Data:
    """Open what the section describes; classes that are counted off labels are counted over both splits."""
    train = _open_split(section, section.train)
    if section.eval == HOLDOUT:
        return Data(*_parted(section, train))
    evaluation = _open_split(section, section.eval)
    most = max(len(train.classes), len(evaluation.classes))
    return Data(_parted(section, with_classes(train, most))[0], with_classes(evaluation, most))


def open_training(section: DataSection) -> Source[Any]:
    """Open what a run trains on, without the other split: sample numbers of its records are numbers in this."""
    return _parted(section, _open_split(section, section.train))[0]


def _open_split(section: DataSection, split: str) -> Source[Any]:
    if section.source in MASKS:
        return open_mask_source(section.source, section.path, split, classes=section.classes, ignore=section.ignore)
    return open_source(section.source, section.path, split, classes=section.classes)


def _parted(section: DataSection, train: Source[Any]) -> tuple[Source[Any], Source[Any]]:
    """Return what of the training split is trained on, and what is held out (where nothing is: all of it)."""
    held = train
    if section.holdout is not None and section.source in MASKS:
        train, held = hold_out_masks(train, section.holdout)
    elif section.holdout is not None:
        train, held = hold_out(cast(ImageSource, train), section.holdout)
    if section.limit is not None:
        train = limit_classes(cast(ImageSource, train), section.limit)  # with masks the schema refuses it
    return train, held
