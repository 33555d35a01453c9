"""`spgsurgeon eval`: scores and throughput of a base on a split of a data set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from spgsurgeon.commands.evaluated_data import find_data, form_for, open_data, with_labels_of
from spgsurgeon.data import (
    Batch,
    Decoding,
    EvaluationBatches,
    Source,
    check_classes,
    check_drawn,
    check_several_classes,
    classes_said_by,
    over_processes,
    read_class_map,
    said_of_masks,
    said_of_traits,
)
from spgsurgeon.errors import SurgeonError, UsageError
from spgsurgeon.loading import ModelRequest, OpenedModel, in_float32, open_model, refuse_unsound, state_of
from spgsurgeon.models import Preprocessing, SamplePreprocessing
from spgsurgeon.recipe import DataSection, known_range, read_recipe
from spgsurgeon.runs import RECIPE, run_of
from spgsurgeon.runtime import Processes, choose_precision, join_processes, known_device
from spgsurgeon.tasks import MOST_CLASSES, Confusions, Tally, Task
from spgsurgeon.training import evaluate, evaluation_batches

PRECISIONS = ("auto", "float32", "bfloat16", "float16")


def evaluate_model(
    model: str,
    data: str,
    *,
    path: Path | None = None,
    split: str = "val",
    weights: str | None = None,
    arch: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    map_keys: str | None = None,
    test_size: bool = False,
    ignore: Sequence[int] | None = None,
    mask_values: Mapping[int, int] | None = None,
    value_range: tuple[float, float] | None = None,
    max_pixels: int | None = None,
    unreadable: str | None = None,
    common_classes: bool = False,
    class_order: str = "auto",
    columns: Mapping[str, str] | None = None,
    max_length: int | None = None,
    max_seconds: float | None = None,
    metric: str | None = None,
    class_map: Mapping[str, str] | str | None = None,
    by_class: bool = False,
    batch_size: int = 64,
    workers: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    told: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Return the document of `eval --json`: scores, loss, samples, images_per_second.

    The scores are the metrics of the model's task (see `tasks`), those of classes by name. If its units have classes,
    `classes` has the accuracy of each (percent of its units that are predicted as it; None if it has none),
    `confusions` the 20 most frequent mistakes, and `confusion_matrix` the units by true and by predicted class: None of
    more than 100 classes. `by_class` asks for all confusions, and for the matrix of up to 2,000 classes.

    `data` is an image-folder tree, `digits`, `wds` or a data-set name that timm reads (then `path` is where it
    lies); of images with masks a folder of both, `voc` or `coco`. `image_size` in pixels (None: the model's own) is
    what the shorter edge is resized to there; two numbers are the height and width that the model of a bare file
    was built for. `map_keys` is for weights with others' keys, see `ModelRequest`. `test_size` takes the size and
    the crop that timm tests the weights with, if they are not those of training. Mask values in `ignore` are not
    scored, `mask_values` says which class others stand for, and `value_range` which values are black and white in
    grey of more than 8 bits (None: as in the model's training, which the notes then say). `max_pixels` is the most
    pixels of an image. `unreadable` is "stop" at images that can't be used, or "skip", which leaves them out and
    lists them under `unreadable` (None: what the run of the model did, else stop).

    `columns` names those of a table by what they hold, `max_length` is the most tokens of a text (None: as many as the
    model takes), `max_seconds` the most of a sound, and `metric` the score that comes first.

    Labels go by the names of the classes if the model has names, see `with_labels_of`; `common_classes` leaves out
    images of classes that the model lacks, and `class_map`, a table or a file of one, says what the model calls classes
    that have other names in the data (None: as in the model's training). Without names the data's order counts: of
    class folders "natural" (timm's) or "code-point" (torchvision's) by `class_order`, which goes before names; "auto"
    is timm's for weights of its training script.

    `told` hears after each batch how many samples of this process's share are scored, and how many there are.

    Raises UsageError if data and model have other classes, or the one has masks and the other has no use for them;
    DataError for masks of one class and 255, which nobody said to ignore.
    """
    _check_computation(device, precision)
    _check_reading(value_range, unreadable)
    form, root = find_data(data, path)
    shorter, built_for = (image_size, None) if isinstance(image_size, int) else (None, image_size)
    request = ModelRequest(model, weights=weights, arch=arch, image_size=built_for, map_keys=map_keys, graphs=True)
    opened = in_float32(open_model(request), "scored")
    refuse_unsound(state_of(opened.module))
    form = form or form_for(root, split, opened)
    decoding = Decoding(value_range or opened.value_range, max_pixels)
    source = open_data(form, root, split, opened, ignore, mask_values, decoding, columns)
    task = opened.task.scored_by(metric)
    if opened.identity.num_classes == 1 and task.has_classes:
        check_several_classes(source)
    trained = _data_of_training(opened)
    left_out = unreadable or (trained.unreadable if trained else "stop")
    table = read_class_map(class_map)
    source, matched = with_labels_of(opened, source, form, model, common_classes, class_order, table)
    hint = "score it on data with the classes it was made for"
    if task.has_classes:
        check_classes(source, opened.identity.num_classes, model, hint, said_by=classes_said_by(form, root))
    preprocessing = _preprocessing(opened, shorter, test_size).limited(
        trained.max_length if trained and max_length is None else max_length,
        trained.max_seconds if trained and max_seconds is None else max_seconds,
    )
    source = task.arranged(source, preprocessing)
    computation = _Computation(batch_size, workers, device, precision, left_out)
    scores, seen, passed_over, found = _score(opened, task, source, preprocessing, computation, told)
    classed = found if task.has_classes else None
    return {
        **scores,
        **(classed.document(source.classes, whole=by_class) if classed else {}),
        **task.size(preprocessing),
        "task": task.name,
        "model": model,
        "data": source.name,
        **({"unreadable": dict(sorted(passed_over.items()))} if left_out == "skip" else {}),
        "notes": [
            *opened.notes,
            *_other_test_size(opened, shorter, test_size),
            *_ignored_as_trained(opened, ignore),
            *_read_as_trained(opened, mask_values, value_range),
            *_cut_as_trained(trained, max_length, max_seconds),
            *source.notes,
            *matched,
            *seen,
            *_said_of_unreadable(passed_over, chosen_here=unreadable is not None),
            *_said_of_many_classes(classed),
        ],
    }


@dataclass(frozen=True)
class _Computation:
    """How it is computed, and what is done about samples that can't be used."""

    batch_size: int
    workers: int | None
    device: str
    precision: str
    unreadable: str


def _score(
    opened: OpenedModel,
    task: Task,
    source: Source[Any],
    preprocessing: SamplePreprocessing,
    by: _Computation,
    told: Callable[[int, int], None],
) -> tuple[dict[str, Any], list[str], dict[str, str], Confusions | None]:
    """Return the scores, those of classes by name, what the samples gave reason to say, those left out, and confusions.

    Confusions are None if units have no classes.
    """
    with join_processes(by.device) as processes:
        batches = evaluation_batches(
            source, preprocessing, by.batch_size, by.workers, processes, task=task, unreadable=by.unreadable
        )
        tally = task.tally(processes)
        try:
            module = opened.module.to(processes.device)
            chosen = choose_precision(by.precision, processes.device)
            scored = _counted(batches, told)
            scores = evaluate(module, scored, processes, chosen, task, tally=tally, source=source)
            _check_scores(scores, chosen)
            seen = _said_of_seen(batches, tally, processes)
            passed_over, found = processes.joined(batches.unusable), tally.confusions()
        finally:
            batches.close()
    for score in task.by_class:
        scores[score.name] = dict(zip(source.classes, scores[score.name], strict=True))
    return scores, seen, passed_over, found


def _said_of_many_classes(found: Confusions | None) -> list[str]:
    if found is None or found.matrix is not None:
        return []
    return [f"{found.sums.shape[1]:,} classes are too many for a confusion matrix ({MOST_CLASSES:,} at most)"]


def _counted(batches: EvaluationBatches, told: Callable[[int, int], None]) -> Iterator[Batch]:
    done = 0
    for batch in batches:
        told(done, batches.samples)
        yield batch
        done += len(batch.samples)
    told(done, batches.samples)


def _check_scores(scores: Mapping[str, Any], precision: torch.dtype) -> None:
    """Raise SurgeonError for a loss that is not a number: sound weights whose activations overflow."""
    if math.isfinite(scores["loss"]):
        return
    name = str(precision).removeprefix("torch.")
    raise SurgeonError(
        f"the model's outputs hold NaN or infinity in {name}, so they can't be scored (loss {scores['loss']})",
        hint="--precision float32" if name != "float32" else "are the images as the model wants them?",
        code="unsound-outputs",
    )


def _preprocessing(opened: OpenedModel, image_size: int | None, test_size: bool) -> SamplePreprocessing:
    own = opened.preprocessing
    if not test_size:
        return own.at(image_size)
    if image_size is not None:
        raise UsageError("--test-size and --image-size contradict each other", hint="give one of them")
    tested = own.at_test_size() if isinstance(own, Preprocessing) else None
    if tested is None:
        raise UsageError(
            f"{opened.source} has no other size for tests than its own",
            hint="leave --test-size out, or say a size with --image-size",
        )
    return tested


def _other_test_size(opened: OpenedModel, image_size: int | None, test_size: bool) -> list[str]:
    """Return the note on weights that their authors test at another size, where nobody chose one here."""
    own = opened.preprocessing
    if not isinstance(own, Preprocessing) or test_size or image_size is not None:
        return []
    tested = own.at_test_size()
    if tested is None:
        return []
    return [f"scored at {_size_of(own)}, as in training; timm tests these weights at {_size_of(tested)} (--test-size)"]


def _size_of(preprocessing: Preprocessing) -> str:
    _, height, width = preprocessing.input_size
    return f"{height} x {width} pixels (crop_pct {preprocessing.crop_pct:g})"


def _said_of_seen(batches: EvaluationBatches, tally: Tally, processes: Processes) -> list[str]:
    """Return what the images and masks that were scored give reason to say."""
    said = said_of_traits(over_processes(batches.traits, processes), batches.source)
    if (drawn := tally.drawn()) is not None:
        check_drawn(drawn, batches.source)
        said += said_of_masks(drawn, batches.source)
    return said


def _data_of_training(opened: OpenedModel) -> DataSection | None:
    """Return the data section of the run that the weights come from; None if there is none."""
    run = run_of(opened.folder) if opened.manifest is not None and opened.folder is not None else None
    if run is None:
        return None
    try:
        return read_recipe(run / RECIPE).data
    except UsageError:  # a recipe that somebody damaged is nothing to scoring
        return None


def _cut_as_trained(trained: DataSection | None, max_length: int | None, max_seconds: float | None) -> list[str]:
    """Return the note on how much of a long sample is read, if nobody said it here."""
    said = []
    if trained is not None and trained.max_length is not None and max_length is None:
        said.append(f"{trained.max_length} tokens are read at most, as in training (--max-length says others)")
    if trained is not None and trained.max_seconds is not None and max_seconds is None:
        said.append(f"{trained.max_seconds:g} seconds are read at most, as in training (--max-seconds says others)")
    return said


def _said_of_unreadable(passed_over: Mapping[str, str], *, chosen_here: bool) -> list[str]:
    if not passed_over:
        return []
    first = min(passed_over)
    why = "" if chosen_here else " as in training (--unreadable stop ends at them)"
    return [f"{len(passed_over)} samples can't be used and were left out{why}; {first}: {passed_over[first]}"]


def _read_as_trained(
    opened: OpenedModel, mask_values: Mapping[int, int] | None, value_range: tuple[float, float] | None
) -> list[str]:
    """Return the notes on how masks and images are read where nobody said it here."""
    said = []
    if mask_values is None and opened.mask_values:
        stand = ", ".join(f"{value} for class {label}" for value, label in opened.mask_values.items())
        said.append(f"mask values stand for classes as in training: {stand} (--mask-value says others)")
    if value_range is None and opened.value_range:
        low, high = opened.value_range
        said.append(f"images of more than 8 bits are scaled from {low:g} to {high:g}, as in training (--value-range)")
    return said


def _ignored_as_trained(opened: OpenedModel, ignore: Sequence[int] | None) -> list[str]:
    """Return the note on mask values that nobody asked to leave out here."""
    if ignore is not None or not opened.ignored:
        return []
    values = ", ".join(map(str, opened.ignored))
    what = f"the mask value {values} is" if len(opened.ignored) == 1 else f"the mask values {values} are"
    return [f"{what} not scored, as in training (--ignore says others, --ignore 255 none)"]


def _check_reading(value_range: tuple[float, float] | None, unreadable: str | None) -> None:
    if value_range is not None:
        try:
            known_range(value_range)
        except ValueError as error:
            raise UsageError(f"--value-range: {error}", hint="such as --value-range 0 4095") from error
    if unreadable not in (None, "stop", "skip"):
        raise UsageError(
            f"--unreadable is stop or skip (got {unreadable!r})", hint="skip leaves images out, and lists them"
        )


def _check_computation(device: str, precision: str) -> None:
    try:
        known_device(device)
    except ValueError as error:
        raise UsageError(f"--device: {error}") from error
    if precision not in PRECISIONS:
        raise UsageError(f"{precision!r} is not a precision", hint=f"there are {', '.join(PRECISIONS)}")
