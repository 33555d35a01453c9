"""Text classification: one class for each text, or pair of texts.

Shapes: N texts of L tokens, C classes; logits float32 [N, C], labels int64 [N].
"""

from __future__ import annotations

from spgsurgeon.data import TEXTS, LabelledTextTransform, batches_padded, text_padding
from spgsurgeon.tasks.class_counts import ALTERNATIVES, METRICS, ClassTally, hits
from spgsurgeon.tasks.task import Task

TEXT_CLASSIFICATION = Task(
    name="text-classification",
    unit="text",
    predicts="a class for each text",
    samples=TEXTS,
    source="texts",
    training_transform=lambda preprocessing, augmentation: LabelledTextTransform(preprocessing),
    evaluation_transform=LabelledTextTransform,
    size=lambda preprocessing: {"max_length": preprocessing.max_length},
    metrics=METRICS,
    tally=ClassTally,
    counts=hits,
    collation=lambda preprocessing: batches_padded(text_padding(preprocessing)),
    alternatives=ALTERNATIVES,
    pipeline_tag="text-classification",
)
