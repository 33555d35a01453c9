"""`spgsurgeon eval`: scores and throughput of a base on a split of a data set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from spgsurgeon.commands.evaluating.data import find_data, form_for, open_data, with_labels_of
from spgsurgeon.commands.evaluating.notes import said_of_choices, said_of_many_classes, said_of_unreadable
from spgsurgeon.commands.evaluating.request import EvaluationRequest
from spgsurgeon.commands.evaluating.scoring import score_model
from spgsurgeon.data import (
    Decoding,
    Source,
    check_classes,
    check_several_classes,
    classes_said_by,
    read_class_map,
)
from spgsurgeon.errors import UsageError
from spgsurgeon.loading import ModelRequest, OpenedModel, in_float32, open_model, refuse_unsound, state_of
from spgsurgeon.models import Preprocessing, SamplePreprocessing
from spgsurgeon.recipe import DataSection, read_recipe
from spgsurgeon.runs import RECIPE, run_of


def evaluate_model(
    asked: EvaluationRequest, *, told: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Return the document of `eval --json`: scores, loss, samples, images_per_second.

    The scores are the metrics of the model's task (see `tasks`), those of classes by name. If its units have classes,
    `classes` has the accuracy of each (percent of its units that are predicted as it; None if it has none),
    `confusions` the 20 most frequent mistakes, and `confusion_matrix` the units by true and by predicted class: None of
    more than 100 classes. Labels go by the names of the classes if the model has names, see `with_labels_of`. `told`
    hears after each batch how many samples of this process's share are scored, and how many there are.

    Raises UsageError if data and model have other classes, or the one has masks and the other has no use for them;
    DataError for masks of one class and 255, which nobody said to ignore.
    """
    opened, trained = _open(asked)
    task = opened.task.scored_by(asked.metric)
    source, matched = _open_data(opened, asked)
    preprocessing = _preprocessing(opened, asked).limited(
        trained.max_length if trained and asked.max_length is None else asked.max_length,
        trained.max_seconds if trained and asked.max_seconds is None else asked.max_seconds,
    )
    source = task.arranged(source, preprocessing)
    unreadable = asked.unreadable or (trained.unreadable if trained else "stop")
    found = score_model(opened, task, source, preprocessing, asked, unreadable=unreadable, told=told)
    return {
        **found.scores,
        **(found.confusions.document(source.classes, whole=asked.by_class) if found.confusions else {}),
        **task.size(preprocessing),
        "task": task.name,
        "model": asked.model,
        "data": source.name,
        **({"unreadable": dict(sorted(found.passed_over.items()))} if unreadable == "skip" else {}),
        "notes": [
            *opened.notes,
            *said_of_choices(opened, trained, asked),
            *source.notes,
            *matched,
            *found.remarks,
            *said_of_unreadable(found.passed_over, chosen_here=asked.unreadable is not None),
            *said_of_many_classes(found.confusions),
        ],
    }


def _open(asked: EvaluationRequest) -> tuple[OpenedModel, DataSection | None]:
    """Return the model, and the data section of the run that its weights come from, if there is one."""
    request = ModelRequest(
        asked.model,
        weights=asked.weights,
        arch=asked.arch,
        image_size=asked.built_for,
        map_keys=asked.map_keys,
        graphs=True,
    )
    opened = in_float32(open_model(request), "scored")
    refuse_unsound(state_of(opened.module))
    return opened, _data_of_training(opened)


def _open_data(opened: OpenedModel, asked: EvaluationRequest) -> tuple[Source[Any], list[str]]:
    """Return the data with the model's labels, and what is said of how they were matched."""
    form, root = find_data(asked.data, asked.path)
    form = form or form_for(root, asked.split, opened)
    decoding = Decoding(asked.value_range or opened.value_range, asked.max_pixels)
    source = open_data(form, root, asked.split, opened, asked.ignore, asked.mask_values, decoding, asked.columns)
    has_classes, classes = opened.task.has_classes, opened.identity.num_classes
    if classes == 1 and has_classes:
        check_several_classes(source)
    table = read_class_map(asked.class_map)
    source, matched = with_labels_of(opened, source, form, asked.model, asked.common_classes, asked.class_order, table)
    if has_classes:
        hint = "score it on data with the classes it was made for"
        check_classes(source, classes, asked.model, hint, said_by=classes_said_by(form, root))
    return source, matched


def _preprocessing(opened: OpenedModel, asked: EvaluationRequest) -> SamplePreprocessing:
    own = opened.preprocessing
    if not asked.test_size:
        return own.at(asked.shorter_edge)
    if asked.shorter_edge is not None:
        raise UsageError("--test-size and --image-size contradict each other", hint="give one of them")
    tested = own.at_test_size() if isinstance(own, Preprocessing) else None
    if tested is None:
        raise UsageError(
            f"{opened.source} has no other size for tests than its own",
            hint="leave --test-size out, or say a size with --image-size",
        )
    return tested


def _data_of_training(opened: OpenedModel) -> DataSection | None:
    """Return the data section of the run that the weights come from; None if there is none."""
    run = run_of(opened.folder) if opened.manifest is not None and opened.folder is not None else None
    if run is None:
        return None
    try:
        return read_recipe(run / RECIPE).data
    except UsageError:  # a recipe that somebody damaged is nothing to scoring
        return None
