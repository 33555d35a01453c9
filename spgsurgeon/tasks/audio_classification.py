"""Audio classification: one class for each sound.

Shapes: N sounds, C classes; logits float32 [N, C], labels int64 [N].
"""

from __future__ import annotations

from spgsurgeon.data import SOUNDS, LabelledSoundTransform, batches_padded, sound_padding
from spgsurgeon.tasks.class_counts import ALTERNATIVES, METRICS, ClassTally, hits
from spgsurgeon.tasks.task import Task

AUDIO_CLASSIFICATION = Task(
    name="audio-classification",
    unit="sound",
    predicts="a class for each sound",
    samples=SOUNDS,
    source="sounds",
    training_transform=lambda preprocessing, augmentation: LabelledSoundTransform(preprocessing, trains=True),
    evaluation_transform=LabelledSoundTransform,
    size=lambda preprocessing: {"sampling_rate": preprocessing.rate, "max_seconds": preprocessing.max_seconds},
    metrics=METRICS,
    tally=ClassTally,
    counts=hits,
    collation=lambda preprocessing: batches_padded(sound_padding(preprocessing)),
    alternatives=ALTERNATIVES,
    pipeline_tag="audio-classification",
)
