"""Multiple choice: which of K choices is right. Shapes: N questions; logits float32 [N, K], labels int64 [N].

A model of transformers scores one choice at a time, and folds the scores of a question's choices itself.
"""

from __future__ import annotations

from spgsurgeon.data import CHOICES, ChoiceTransform, batches_padded, text_padding
from spgsurgeon.tasks.class_counts import ClassTally, accuracy, hits
from spgsurgeon.tasks.metrics import LOSS, Metric
from spgsurgeon.tasks.task import Task

CHOICE_ACCURACY = Metric("choice_accuracy", "accuracy", hub_name="accuracy")


MULTIPLE_CHOICE = Task(
    name="multiple-choice",
    unit="question",
    predicts="which choice is right",
    samples=CHOICES,
    source="choices",
    training_transform=lambda preprocessing, augmentation: ChoiceTransform(preprocessing),
    evaluation_transform=ChoiceTransform,
    size=lambda preprocessing: {"max_length": preprocessing.max_length},
    metrics=(CHOICE_ACCURACY, LOSS),
    tally=lambda processes: ClassTally(processes, {CHOICE_ACCURACY: accuracy}),
    counts=hits,
    collation=lambda preprocessing: batches_padded(text_padding(preprocessing)),
    pipeline_tag="multiple-choice",
)
