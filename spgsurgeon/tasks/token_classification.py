"""Token classification: one class for each word, at its first token.

Shapes: N sentences of L tokens, C classes; logits float32 [N, L, C], labels int64 [N, L], -100 for what has none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spgsurgeon.data import WORDS, WordTransform, batches_padded, text_padding
from spgsurgeon.tasks.class_counts import ClassTally, accuracy, class_counts, f1_of_each
from spgsurgeon.tasks.metrics import LOSS, Metric
from spgsurgeon.tasks.task import Measure, Task

TOKEN_ACCURACY = Metric("token_accuracy", "token accuracy", hub_name="accuracy")
MACRO_F1 = Metric("macro_f1", "macro F1", hub_name="f1")


def macro_f1(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mean of the F1 of classes in percent, over those that are there or predicted."""
    of_each, there = f1_of_each(counts)
    found: NDArray[np.float64] = 100 * of_each.sum(-1) / there.sum(-1)
    return found


TOKEN_CLASSIFICATION = Task(
    name="token-classification",
    unit="word",
    predicts="a class for each word",
    samples=WORDS,
    source="words",
    training_transform=lambda preprocessing, augmentation: WordTransform(preprocessing),
    evaluation_transform=WordTransform,
    size=lambda preprocessing: {"max_length": preprocessing.max_length},
    metrics=(TOKEN_ACCURACY, MACRO_F1, LOSS),
    tally=lambda processes: ClassTally(processes, {TOKEN_ACCURACY: accuracy, MACRO_F1: macro_f1}),
    counts=class_counts,
    from_counts=accuracy,
    collation=lambda preprocessing: batches_padded(text_padding(preprocessing)),
    readout=lambda logits: logits.movedim(-1, 1),
    alternatives={MACRO_F1.name: Measure(class_counts, macro_f1)},
    pipeline_tag="token-classification",
)
