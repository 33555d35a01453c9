"""The images of a run, as a recipe's data section describes them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from spgsurgeon.data import (
    MASKED,
    Cache,
    Data,
    Decoding,
    ImageSource,
    LabelledSubset,
    Source,
    StagedTransform,
    check_batched,
    check_several_classes,
    estimate,
    form_of,
    hold_out,
    hold_out_masks,
    limit_classes,
    limit_samples,
    open_source,
    read_class_map,
    renamed,
    samples_of,
    several_sizes,
    with_classes,
    with_common_names,
    with_label_noise,
    wrong_labels,
)
from spgsurgeon.errors import SurgeonError
from spgsurgeon.loading import OpenedModel
from spgsurgeon.models import Preprocessing, SamplePreprocessing, TextPreprocessing
from spgsurgeon.recipe import HOLDOUT, DataSection
from spgsurgeon.runtime import free_memory, free_on, processes_here

DECODED_PICTURES = "SPGSURGEON_DECODED_PICTURES"
"""The environment variable with the folder in which runs keep decoded images for each other; without it none does."""


@contextmanager
def decoded_pictures_in(folder: Path) -> Iterator[None]:
    """Let runs inside the block, those of processes that it starts too, share the images they decode in `folder`.

    They are of use to later runs as well, and stay there until somebody removes them.
    """
    before = os.environ.get(DECODED_PICTURES)
    os.environ[DECODED_PICTURES] = str(folder.absolute())
    try:
        yield
    finally:
        if before is None:
            del os.environ[DECODED_PICTURES]
        else:
            os.environ[DECODED_PICTURES] = before


def data_folders(section: DataSection) -> list[Path]:
    """Return the folders that are read: those of the splits where there are such, else the whole data's.

    What lies beside the splits, as runs may, is not read.
    """
    form = form_of(section.source)
    if section.path is None or not form.needs_path:
        return []
    root = Path(section.path).expanduser()
    found = (root / name for name in (section.train, section.eval, *form.parts))
    return [path for path in found if path.is_dir()] or [root]


def open_data(section: DataSection) -> Data:
    """Open what the section describes; classes that are counted off labels are counted over both splits.

    Raises UsageError for a single class, and what the sources raise.
    """
    train = _open_split(section, section.train)
    if section.eval == HOLDOUT:
        train, held = _parted(section, _renamed(section, train))
        return Data(train, _limited(section, held), _said_of_noise(section, train))
    evaluation = _open_split(section, section.eval)
    train, evaluation = with_common_names(train, evaluation)
    most = max(len(train.classes), len(evaluation.classes))
    train, evaluation = (_renamed(section, with_classes(part, most)) for part in (train, evaluation))
    train = _parted(section, train)[0]
    return Data(train, _limited(section, evaluation), _said_of_noise(section, train))


def open_training(section: DataSection) -> Source[Any]:
    """Open what a run trains on, without the other split: sample numbers of its records are numbers in this."""
    return _parted(section, _renamed(section, _open_split(section, section.train)))[0]


def _open_split(section: DataSection, split: str) -> Source[Any]:
    decoding = Decoding(section.value_range, section.max_pixels)
    return open_source(
        section.source,
        section.path,
        split,
        classes=section.classes,
        ignore=section.ignore,
        values=section.mask_values or {},
        decoding=decoding,
        columns=section.columns or {},
    )


def _renamed(section: DataSection, source: Source[Any]) -> Source[Any]:
    """Return a split with its classes as the model calls them, if the section says so."""
    found = renamed(source, read_class_map(section.class_map), "data.class_map")
    if form_of(section.source).classed != "nothing":
        check_several_classes(found)
    return found


def _parted(section: DataSection, train: Source[Any]) -> tuple[Source[Any], Source[Any]]:
    """Return what of the training split is trained on, and what is held out (where nothing is: all of it).

    Labels are made wrong in what is trained on alone, and each by its number in the whole split: whatever is held out.
    """
    held, noise = train, section.label_noise
    given = cast(ImageSource, train)
    if noise.rate:  # the schema refuses it of samples without a label
        given = with_label_noise(given, noise.kind, noise.rate, noise.seed, noise.pairs)
    if section.holdout is not None and samples_of(section.source) == MASKED:
        train, held = hold_out_masks(train, section.holdout)
    elif section.holdout is not None:
        left, held = hold_out(cast(ImageSource, train), section.holdout)
        train = LabelledSubset(given, left.indices)
    else:
        train = given
    if section.limit is not None:
        train = limit_classes(cast(ImageSource, train), section.limit)  # with masks the schema refuses it
    return train, held


def _said_of_noise(section: DataSection, train: Source[Any]) -> tuple[str, ...]:
    """Return the note on labels that are made wrong by design, if any are."""
    if not section.label_noise.rate:
        return ()
    count = f"{wrong_labels(train):,} of the {len(train):,} training labels are wrong by design"
    return (f"{count} (data.label_noise: {section.label_noise.words}); what is held out or scored on keeps its own",)


def settled_preprocessing(opened: OpenedModel, data: DataSection, image_size: int | None) -> SamplePreprocessing:
    """Return how the model wants its samples, as far as a recipe's data section leaves it that choice."""
    sized = opened.preprocessing.at(image_size)
    if isinstance(sized, Preprocessing):
        sized = sized.cropped(data.eval_crop_pct)
    if isinstance(sized, TextPreprocessing):
        sized = replace(sized, mlm_probability=data.mlm_probability)
    return sized.limited(data.max_length, data.max_seconds, stops=data.too_long == "stop")


def _limited(section: DataSection, evaluation: Source[Any]) -> Source[Any]:
    return evaluation if section.eval_limit is None else limit_samples(evaluation, section.eval_limit)


def choose_cache(
    kind: str, device: torch.device, parts: Iterable[tuple[Source[Any], Any]], say: Callable[[str], None]
) -> Cache | None:
    """Return what data.cache asks for, checked against each of the sources and what is done to its images.

    Raises UsageError for images that can't be augmented in batches on the device, SurgeonError where they are not
    likely to fit. A few are decoded for that.
    """
    if kind == "none":
        return None
    needed = 0
    for source, transform in parts:
        assert isinstance(transform, StagedTransform), "the schema refuses images with masks"
        found = estimate(cast(ImageSource, source), transform)
        needed += found.size
        if kind == "device":
            check_batched(transform)
            if len(found.shapes) > 1:
                raise several_sizes(source, found.shapes)
    named = os.environ.get(DECODED_PICTURES)
    _check_room(needed * (1 if named else processes_here()), free_memory(), "memory", kind)
    if kind == "device":
        _check_room(needed, free_on(device), str(device), kind)
    return Cache(device if kind == "device" else None, Path(named) if named else None, say)


def _check_room(needed: int, free: int | None, where: str, kind: str) -> None:
    """Raise SurgeonError if decoded images would take more than half of what is free: a run needs some too."""
    if free is not None and needed > free / 2:
        raise SurgeonError(
            f"data.cache={kind}: the decoded images take about {needed / 2**30:.1f} GiB, more than half of the "
            f"{free / 2**30:.1f} GiB that are free ({where})",
            hint="data.cache=none, or fewer or smaller images: data.limit, data.image_size with crop=pad or resize",
        )
