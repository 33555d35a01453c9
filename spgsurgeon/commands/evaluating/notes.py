"""What `eval` says beside the scores: what was chosen for the user, and what was left out."""

from __future__ import annotations

from collections.abc import Mapping

from spgsurgeon.commands.evaluating.request import EvaluationRequest
from spgsurgeon.loading import OpenedModel
from spgsurgeon.models import Preprocessing
from spgsurgeon.recipe import DataSection
from spgsurgeon.tasks import MOST_CLASSES, Confusions


def said_of_choices(opened: OpenedModel, trained: DataSection | None, asked: EvaluationRequest) -> list[str]:
    """Return the notes on what nobody asked for, and how it was chosen."""
    return [
        *_other_test_size(opened, asked),
        *_ignored_as_trained(opened, asked),
        *_read_as_trained(opened, asked),
        *_cut_as_trained(trained, asked),
    ]


def said_of_unreadable(passed_over: Mapping[str, str], *, chosen_here: bool) -> list[str]:
    """Return the note on samples that were left out."""
    if not passed_over:
        return []
    first = min(passed_over)
    why = "" if chosen_here else " as in training (--unreadable stop ends at them)"
    return [f"{len(passed_over)} samples can't be used and were left out{why}; {first}: {passed_over[first]}"]


def said_of_many_classes(found: Confusions | None) -> list[str]:
    """Return the note that there is no confusion matrix, where there are too many classes for one."""
    if found is None or found.matrix is not None:
        return []
    return [f"{found.sums.shape[1]:,} classes are too many for a confusion matrix ({MOST_CLASSES:,} at most)"]


def _other_test_size(opened: OpenedModel, asked: EvaluationRequest) -> list[str]:
    """Return the note on weights that their authors test at another size, where nobody chose one here."""
    own = opened.preprocessing
    if not isinstance(own, Preprocessing) or asked.test_size or asked.shorter_edge is not None:
        return []
    tested = own.at_test_size()
    if tested is None:
        return []
    return [f"scored at {_size_of(own)}, as in training; timm tests these weights at {_size_of(tested)} (--test-size)"]


def _size_of(preprocessing: Preprocessing) -> str:
    _, height, width = preprocessing.input_size
    return f"{height} x {width} pixels (crop_pct {preprocessing.crop_pct:g})"


def _ignored_as_trained(opened: OpenedModel, asked: EvaluationRequest) -> list[str]:
    """Return the note on mask values that nobody asked to leave out here."""
    if asked.ignore is not None or not opened.ignored:
        return []
    values = ", ".join(map(str, opened.ignored))
    what = f"the mask value {values} is" if len(opened.ignored) == 1 else f"the mask values {values} are"
    return [f"{what} not scored, as in training (--ignore says others, --ignore 255 none)"]


def _read_as_trained(opened: OpenedModel, asked: EvaluationRequest) -> list[str]:
    """Return the notes on how masks and images are read where nobody said it here."""
    said = []
    if asked.mask_values is None and opened.mask_values:
        stand = ", ".join(f"{value} for class {label}" for value, label in opened.mask_values.items())
        said.append(f"mask values stand for classes as in training: {stand} (--mask-value says others)")
    if asked.value_range is None and opened.value_range:
        low, high = opened.value_range
        said.append(f"images of more than 8 bits are scaled from {low:g} to {high:g}, as in training (--value-range)")
    return said


def _cut_as_trained(trained: DataSection | None, asked: EvaluationRequest) -> list[str]:
    """Return the note on how much of a long sample is read, if nobody said it here."""
    said = []
    if trained is not None and trained.max_length is not None and asked.max_length is None:
        said.append(f"{trained.max_length} tokens are read at most, as in training (--max-length says others)")
    if trained is not None and trained.max_seconds is not None and asked.max_seconds is None:
        said.append(f"{trained.max_seconds:g} seconds are read at most, as in training (--max-seconds says others)")
    return said
