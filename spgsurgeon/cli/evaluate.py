"""`spgsurgeon eval`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from spgsurgeon.cli.terminal.classes import class_tables, matrix_as_csv
from spgsurgeon.cli.terminal.completion import data_sources, model_names
from spgsurgeon.cli.terminal.console import emit
from spgsurgeon.cli.terminal.options import MapKeys, Model, Weights, check_weights, height_and_width
from spgsurgeon.cli.terminal.text import columns, image_size, pairs
from spgsurgeon.data import SOURCES, described
from spgsurgeon.runtime import DEVICES

Data = Annotated[
    str,
    typer.Option(
        "--data",
        help=f"A folder, or the form of the data by name: {described(SOURCES.values())}.",
        autocompletion=data_sources,
    ),
]
DataPath = Annotated[Path | None, typer.Option("--data-path", help="Where data given by name lies.")]
Split = Annotated[str, typer.Option("--split", help="Split or sub-folder.")]
ImageSize = Annotated[
    str | None,
    typer.Option(
        "--image-size",
        metavar="N|HxW",
        help="Pixels of the shorter edge, or (HxW) what the model of a bare file was built for.",
        show_default="the model's own",
    ),
]
TestSize = Annotated[
    bool,
    typer.Option("--test-size", help="The size and crop that timm tests the weights with."),
]
Ignore = Annotated[
    list[int] | None,
    typer.Option(
        "--ignore",
        min=0,
        help="A mask value that is not scored, besides 255.",
        show_default="those that the model was trained without",
    ),
]
MaskValue = Annotated[
    list[str] | None,
    typer.Option(
        "--mask-value",
        metavar="VALUE=CLASS",
        help="The class number that a mask value stands for, such as 255=1.",
        show_default="as in training",
    ),
]
ValueRange = Annotated[
    tuple[float, float] | None,
    typer.Option(
        "--value-range",
        metavar="BLACK WHITE",
        help="Values that are black and white in images with more than 8 bits of grey.",
        show_default="as in training",
    ),
]
MaxPixels = Annotated[
    int | None, typer.Option("--max-pixels", min=1, help="The most pixels of an image; what Pillow allows.")
]
Unreadable = Annotated[
    str | None,
    typer.Option(
        "--unreadable",
        metavar="stop|skip",
        help="At an image that can't be used: stop, or leave it out and list it.",
        show_default="as in training",
    ),
]
CommonClasses = Annotated[
    bool, typer.Option("--common-classes", help="Score the classes that the model has, and leave out the others.")
]
ClassOrder = Annotated[
    str,
    typer.Option(
        "--class-order",
        metavar="auto|natural|code-point",
        help="How class folders are numbered, whatever the names of the model's classes.",
    ),
]
Column = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="ROLE=NAME",
        help="A column of a table, such as text=sentence or label=label.",
        show_default="those that data sets usually have",
    ),
]
MaxLength = Annotated[
    int | None,
    typer.Option("--max-length", min=1, help="The most tokens of a text.", show_default="what the model takes"),
]
MaxSeconds = Annotated[
    float | None,
    typer.Option("--max-seconds", help="The most of a sound that is read.", show_default="all of it"),
]
Metric = Annotated[
    str | None,
    typer.Option("--metric", help="The score that comes first.", show_default="the task's first"),
]
ClassMap = Annotated[
    Path | None,
    typer.Option(
        "--class-map",
        metavar="FILE",
        help="What the model calls the data's classes: a line for each, the data's name, a tab, the model's.",
        show_default="as in training",
    ),
]
ByClass = Annotated[
    bool,
    typer.Option("--by-class", help="Show every class and every confusion, not only the worst and most frequent."),
]
AsCsv = Annotated[
    bool,
    typer.Option(
        "--csv", help="The confusion matrix as comma-separated values: a row for each true class, a column predicted."
    ),
]
Archs = Annotated[
    list[str] | None,
    typer.Option(
        "--arch",
        metavar="LIB/NAME",
        help="Architecture of a file that does not say it: timm/resnet50. Several are scored one after the other.",
        autocompletion=model_names,
    ),
]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1)]
Workers = Annotated[int | None, typer.Option("--workers", min=0, help="Loader processes; by the machine.")]
Device = Annotated[str, typer.Option("--device", help=f"{DEVICES}.")]
Precision = Annotated[str, typer.Option("--precision", help="auto, float32, bfloat16, float16.")]


def command(
    model: Model,
    data: Data,
    data_path: DataPath = None,
    split: Split = "val",
    image_size: ImageSize = None,
    test_size: TestSize = False,
    ignore: Ignore = None,
    mask_value: MaskValue = None,
    value_range: ValueRange = None,
    max_pixels: MaxPixels = None,
    unreadable: Unreadable = None,
    common_classes: CommonClasses = False,
    class_order: ClassOrder = "auto",
    column: Column = None,
    max_length: MaxLength = None,
    max_seconds: MaxSeconds = None,
    metric: Metric = None,
    class_map: ClassMap = None,
    by_class: ByClass = False,
    as_csv: AsCsv = False,
    batch_size: BatchSize = 64,
    workers: Workers = None,
    device: Device = "auto",
    precision: Precision = "auto",
    arch: Archs = None,
    map_keys: MapKeys = None,
    weights: Weights = None,
) -> None:
    """Score a model on a data set.

    Top-1, top-5, loss and throughput, loading included; mean IoU and pixel accuracy of a segmentation model; of models
    that read texts what the guide on language lists. Then which classes score worst, and what is taken for what.

    Example: `spgsurgeon eval better/ --data /data/imagenet --split val`
    """
    from spgsurgeon.cli.terminal.progress import Bar

    check_weights(weights)
    with Bar("opening model and data", "scored") as bar:
        from spgsurgeon.commands.evaluating.request import EvaluationRequest

        asked = EvaluationRequest(
            model,
            data,
            path=data_path,
            split=split,
            weights=weights,
            arch=arch[0] if arch else None,
            image_size=_image_size(image_size),
            map_keys=map_keys,
            test_size=test_size,
            ignore=ignore or None,
            mask_values=mask_values_of(mask_value),
            value_range=value_range,
            max_pixels=max_pixels,
            unreadable=unreadable,
            common_classes=common_classes,
            class_order=class_order,
            columns=pairs_of_columns(column),
            max_length=max_length,
            max_seconds=max_seconds,
            metric=metric,
            class_map=None if class_map is None else str(class_map),
            by_class=by_class or as_csv,
            batch_size=batch_size,
            workers=workers,
            device=device,
            precision=precision,
        )
        document = _scorer(arch)(asked, told=lambda done, total: bar.told(done, total, "scoring"))
    emit(document, matrix_as_csv if as_csv else partial(_render, whole=by_class))


def _scorer(archs: list[str] | None) -> Callable[..., dict[str, Any]]:
    """Return what scores a model, as each of several architectures if these are given."""
    from spgsurgeon.commands.evaluate import evaluate_model
    from spgsurgeon.commands.evaluating.candidates import evaluate_candidates

    return partial(evaluate_candidates, archs=archs) if archs and len(archs) > 1 else evaluate_model


def _image_size(text: str | None) -> int | tuple[int, int] | None:
    size = height_and_width(text)
    return size[0] if size is not None and text is not None and "x" not in text else size


def mask_values_of(given: list[str] | None) -> dict[int, int] | None:
    """Return what `--mask-value` says."""
    pairs = [text.partition("=")[::2] for text in given or []]
    if any(not (value.isdecimal() and label.isdecimal()) for value, label in pairs):
        raise typer.BadParameter("it says VALUE=CLASS, two whole numbers, as 255=1", param_hint="'--mask-value'")
    values = {int(value): int(label) for value, label in pairs}
    if len(values) < len(pairs):
        raise typer.BadParameter("a mask value is given twice", param_hint="'--mask-value'")
    return values or None


def pairs_of_columns(given: list[str] | None) -> dict[str, str] | None:
    """Return what `--column` says."""
    pairs = dict(text.partition("=")[::2] for text in given or [])
    if any(not role or not name for role, name in pairs.items()):
        raise typer.BadParameter("it says ROLE=NAME, as text=sentence", param_hint="'--column'")
    return pairs or None


def _render(document: dict[str, Any], *, whole: bool = False) -> Any:
    from rich.console import Group

    from spgsurgeon.tasks import METRIC, task_named

    if "candidates" in document:
        return _candidates(document)
    task = task_named(document["task"]).scored_by(document.get(METRIC))
    parts: list[Any] = [
        pairs(
            [
                ("data", f"{document['data']}, {document['samples']} {task.trained_on}{image_size(document)}"),
                *((metric.label, metric.written(document[metric.name])) for metric in task.metrics),
                ("speed", f"{document['images_per_second']:.0f} samples/s, loading included"),
            ]
        )
    ]
    if "classes" in document:
        for table in class_tables(document, task, whole=whole):
            parts += ["", table]
    return Group(*parts)


def _candidates(document: dict[str, Any]) -> Any:
    """Return a table of the scores of each architecture."""
    from spgsurgeon.tasks import METRIC, task_named

    task = task_named(document["task"]).scored_by(document["candidates"][0].get(METRIC))
    rows = [
        (one["arch"], *(metric.written(one[metric.name]) for metric in task.metrics)) for one in document["candidates"]
    ]
    return columns(("architecture", *(metric.label for metric in task.metrics)), rows)
