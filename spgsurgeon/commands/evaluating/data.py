"""The data that `eval` scores a model on: its form, its samples, and the labels that the model has for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spgsurgeon.data import (
    CLASS_NAMES,
    MASKED,
    Decoding,
    Source,
    form_of,
    holds_masks,
    open_source,
    renamed,
    samples_of,
    with_classes,
)
from spgsurgeon.errors import UsageError
from spgsurgeon.loading import OpenedModel
from spgsurgeon.training import CLASS_ORDERS, with_models_labels, with_trained_map


def with_labels_of(
    opened: OpenedModel,
    source: Source[Any],
    form: str,
    model: str,
    common: bool,
    order: str,
    table: Mapping[str, str] | None,
) -> tuple[Source[Any], list[str]]:
    """Return the data with the model's labels, and what is to be said of it."""
    if order not in CLASS_ORDERS:
        raise UsageError(
            f"--class-order is one of {', '.join(CLASS_ORDERS)} (got {order!r})", hint="auto is the default"
        )
    if order != "auto" and "class_order" not in form_of(form).takes:
        raise UsageError(f"--class-order is for class folders, and the data is {form}", hint="leave it out")
    if common and form_of(form).classed != "sample":
        raise UsageError("--common-classes is for samples that have one class each", hint="leave it out")
    source, said = (
        with_trained_map(source, opened) if table is None else (renamed(source, table, "--class-map"), list[str]())
    )
    found, matched = with_models_labels(
        source, opened, form, model=model, order=order, common=common, hint=_hint_on_classes(form)
    )
    return found, [*said, *matched]


def _hint_on_classes(form: str) -> str:
    table = "--class-map FILE says what the model calls the data's classes"
    return table if form_of(form).classed != "sample" else f"--common-classes scores those in common; {table}"


def find_data(data: str, path: Path | None) -> tuple[str | None, Path | None]:
    """Return the form of the data that `--data` names, None for a folder's path, and the folder that it lies in."""
    if path is None and Path(data).expanduser().is_dir():
        return None, Path(data)
    try:
        form = form_of(data)
    except UsageError as error:
        if path is None:
            missing = f"there is no folder {data}" if "/" in data else f"{data!r} is neither a folder nor a data source"
            raise UsageError(missing, hint=error.hint) from error
        raise
    if path is None and form.needs_path:
        raise UsageError(f"--data {data} needs the folder it lies in", hint="--data-path FOLDER")
    return data, path


def form_for(root: Path | None, split: str, opened: OpenedModel) -> str:
    """Return the form of the data in a folder: what the model's task calls for."""
    assert root is not None
    opened.task.check_samples(MASKED if holds_masks(root, split) else opened.task.samples, opened.source)
    return opened.task.source


def open_data(
    form: str,
    root: Path | None,
    split: str,
    opened: OpenedModel,
    ignore: Sequence[int] | None,
    mask_values: Mapping[int, int] | None,
    decoding: Decoding,
    columns: Mapping[str, str] | None,
) -> Source[Any]:
    """Open the data where it fits the model's task."""
    opened.task.check_samples(samples_of(form), opened.source)
    takes = form_of(form).takes
    if samples_of(form) != MASKED:
        if ignore:
            raise UsageError(f"--ignore is for masks, and the data has {samples_of(form)}", hint="leave --ignore out")
        if mask_values:
            raise UsageError(f"--mask-value is for masks, and the data has {samples_of(form)}", hint="leave it out")
        found = open_source(form, root, split, decoding=decoding, columns=columns or {})
        return with_classes(found, opened.identity.num_classes)
    classes = None
    if "classes" in takes and root is not None and not (root.expanduser() / CLASS_NAMES).is_file():
        classes = opened.label_names or opened.config().get("label_names") or opened.identity.num_classes
    values = opened.mask_values if mask_values is None and "mask_values" in takes else mask_values or {}
    unscored = [value for value in opened.ignored if value not in values] if ignore is None else ignore
    return open_source(form, root, split, classes=classes, ignore=unscored, values=values, decoding=decoding)
