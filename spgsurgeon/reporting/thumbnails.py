"""Small copies of the training images that a run recorded, where its data can still be opened."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

from spgsurgeon.data import LABELLED, Source, samples_of, with_labels_of
from spgsurgeon.errors import SurgeonError
from spgsurgeon.recipe import read_recipe
from spgsurgeon.runs import RECIPE, RunRecord, ShownPicture
from spgsurgeon.training import open_training

_EDGE = 208  # pixels: twice as many as are shown, for sharp screens
_ICON = 32


def with_pictures(record: RunRecord, run: Path) -> RunRecord:
    """Return the record with the images of its last epoch that has some, as plain retraining has not.

    Only these are read. Where the data can't be opened, or a sample is no longer the one that was recorded, there are
    names only, and a note why. Samples that are not images have names only.
    """
    recorded = next((e.pictures for e in reversed(record.epochs) if e.pictures.shortest), None)
    if recorded is None:
        return record
    shown = [ShownPicture(picture, shortest=True) for picture in recorded.shortest]
    shown += [ShownPicture(picture, shortest=False) for picture in recorded.longest]
    data = read_recipe(run / RECIPE).data
    if samples_of(data.source) != LABELLED:  # there is nothing to see of a text
        return replace(record, pictures=shown)
    try:
        # The labels of the records are the model's.
        source, _ = with_labels_of(open_training(data), record.class_names or None, record.name)
    except SurgeonError as error:
        note = f"The training data can't be opened, so its images are named, not shown: {error.message}."
        return replace(record, pictures=shown, notes=[*record.notes, note])
    mixed = data.augment.mixup > 0 or data.augment.cutmix > 0  # earlier versions recorded the label of the mixture
    shown = [_with_copy(picture, source, by_label=not mixed) for picture in shown]
    lost = sum(picture.jpeg is None for picture in shown)
    note = f"{lost} of {len(shown)} images are named, not shown: in {source.name} they can't be read or have changed."
    return replace(record, pictures=shown, notes=[*record.notes, note] if lost else record.notes)


def _with_copy(shown: ShownPicture, source: Source[Any], *, by_label: bool) -> ShownPicture:
    """Return the image with a small copy, unless it can't be read or is another one by its name (and label)."""
    sample, name = shown.picture.sample, shown.picture.name
    if sample >= len(source) or Path(source.describe(sample)).name != Path(name).name:
        return shown
    try:
        image, label = source.read(sample)
    except Exception:  # decoders raise much more than OSError on damaged files
        return shown
    if by_label and label != shown.picture.label:
        return shown
    few_pixels = max(image.size) <= _ICON
    image.thumbnail((_EDGE, _EDGE))
    file = io.BytesIO()
    image.save(file, format="jpeg", quality=85, subsampling=0 if few_pixels else -1)
    return replace(shown, jpeg=file.getvalue(), few_pixels=few_pixels)
