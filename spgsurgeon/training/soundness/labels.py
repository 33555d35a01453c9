"""The labels of data in the model's own order of classes, so that a head that is kept keeps what it knows."""

from __future__ import annotations

from typing import Any

from spgsurgeon.data import (
    Data,
    Source,
    are_numbers,
    form_of,
    in_order_of,
    in_timms_order,
    listing,
    read_class_map,
    renamed,
    with_labels_of,
    with_names,
)
from spgsurgeon.errors import UsageError
from spgsurgeon.loading import OpenedModel
from spgsurgeon.recipe import DataSection

CLASS_ORDERS = ("auto", "natural", "code-point")
TRAINING_HINT = (
    "data.class_map says which class of the model each of the data's is, data.class_order=code-point keeps the head by "
    "number; or give data with the model's classes"
)


def with_models_labels(
    source: Source[Any],
    opened: OpenedModel,
    form: str,
    *,
    model: str,
    order: str = "auto",
    hint: str = TRAINING_HINT,
    common: bool = False,
) -> tuple[Source[Any], list[str]]:
    """Return data of a form with the labels that the model's head has for its classes, and what is to be said of it.

    `order` is "auto": by name if both have names (see `with_labels_of`), else as the data has them, but in timm's order
    for class folders and weights of timm's own script. "natural" (timm's) and "code-point" say the order of class
    folders, and classes go by number then. A new head has any order, the data's. Data without classes stays as it is.
    """
    if not opened.task.has_classes:
        return source, []
    source = with_names(source, opened.label_names or ())
    folders = "class_order" in form_of(form).takes
    if order == "code-point" or (opened.head_is_new and order == "auto"):
        return source, []
    by_timm = folders and opened.located is not None and opened.located.producer == "timm"
    if order == "natural" or (opened.label_names is None and by_timm and not common):
        ordered = in_order_of(source, in_timms_order(source.classes))
        if ordered is not source:
            return ordered, ["class folders go in timm's order, natural and without case, and not as they are sorted"]
        return with_labels_of(source, None, model, hint=hint)
    return with_labels_of(source, opened.label_names, model, hint=hint, common=common)


def with_models_order(data: Data, opened: OpenedModel, section: DataSection, model: str) -> tuple[Data, list[str]]:
    """Return what a recipe's data section describes with the labels of a model, and what is to be said of it.

    Raises UsageError if some of its classes are the model's and others not.
    """
    if section.class_map is None:
        _check_class_map(data.train, opened, model)
    how: dict[str, Any] = {"model": model, "order": section.class_order}
    train, said = with_models_labels(data.train, opened, section.source, **how)
    return Data(train, with_models_labels(data.evaluation, opened, section.source, **how)[0], data.said), said


def _check_class_map(source: Source[Any], opened: OpenedModel, model: str) -> None:
    """Raise UsageError if a model was trained with a table of the data's classes that nobody gives here."""
    own = source.classes
    said = [name for name in own if name in opened.class_map]
    if said and set(own) != set(opened.label_names or ()):
        raise UsageError(
            f"{model} was trained with data.class_map, which says what it calls {listing(said, 3)}, and this recipe "
            "does not say it",
            hint="give the same data.class_map",
            code="class-map-missing",
        )


def table_of(source: Source[Any], opened: OpenedModel, section: DataSection) -> dict[str, str]:
    """Return what a trained model calls the classes of data that have other names there, for its config.json."""
    if not opened.task.has_classes:
        return {}
    table, names = opened.class_map | (read_class_map(section.class_map) or {}), names_of(source, opened) or ()
    return {name: called for name, called in table.items() if called in names}


def with_trained_map(source: Source[Any], opened: OpenedModel) -> tuple[Source[Any], list[str]]:
    """Return the data with its classes called as they were in the model's training, where a table said it."""
    if not any(name in opened.class_map for name in source.classes):
        return source, []
    table = {name: called for name, called in opened.class_map.items() if name in source.classes}
    return renamed(source, table, "the class map of training"), [
        "classes of the data are called as in training (--class-map says others)"
    ]


def names_of(source: Source[Any], opened: OpenedModel) -> list[str] | None:
    """Return what the classes are called in a model that is trained on data with its labels.

    They are the data's; the model's own, if it has any, when the data has numbers only.
    """
    if not opened.task.has_classes:
        return opened.label_names
    if not are_numbers(source.classes):
        return list(source.classes)
    has_own = opened.label_names is not None or opened.config_document is not None
    return opened.label_names if has_own else list(source.classes)
