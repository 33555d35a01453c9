"""Classification: one class for each image.

Shapes: N images, C classes; logits float32 [N, C], labels int64 [N].
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from spgsurgeon.data import LABELLED, evaluation_transform, training_transform
from spgsurgeon.errors import UsageError
from spgsurgeon.runtime import Processes, sum_dtype
from spgsurgeon.tasks.confusion import Confusion, Confusions
from spgsurgeon.tasks.metrics import LOSS, Metric
from spgsurgeon.tasks.task import Scores, Task


class ClassificationTally:
    """Counts top1 and top5 (percent), loss (mean cross entropy) and samples."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._counts = torch.zeros(3, dtype=torch.int64, device=processes.device)  # top-1 hits, top-5 hits, samples
        self._loss = torch.zeros((), dtype=sum_dtype(processes.device), device=processes.device)
        self._confusion = Confusion(processes)

    def add(self, logits: Tensor, target: Tensor) -> None:
        """Count a batch of images."""
        guesses = _best_guesses(logits)
        best = guesses == target[:, None]
        images = best.new_full((), len(target), dtype=torch.int64)  # a `new_tensor` would be copied, and waited for
        self._counts += torch.stack([best[:, 0].sum(), best.sum(), images])
        self._loss += cross_entropy(logits, target, reduction="sum")
        self._confusion.add(guesses[:, 0], target, logits.shape[1])

    def scores(self) -> Scores:
        """Return the scores over all processes."""
        top1, top5, samples = self._processes.sum(self._counts).tolist()
        loss = self._processes.sum(self._loss).item()
        if not samples:
            raise UsageError("there is not one image to evaluate on")
        return {"top1": 100 * top1 / samples, "top5": 100 * top5 / samples, "loss": loss / samples, "samples": samples}

    def confusions(self) -> Confusions | None:
        """See `Tally`."""
        return self._confusion.over_processes()

    def drawn(self) -> None:
        """See `Tally`: a label can't be ignored."""


def _best_guesses(logits: Tensor) -> Tensor:
    """Return the likeliest classes of each image, the best guess first, int64 [N, 5] (C if there are fewer)."""
    return logits.topk(min(5, logits.shape[1]), dim=1).indices


CLASSIFICATION = Task(
    name="classification",
    unit="image",
    predicts="a class for each image",
    samples=LABELLED,
    source="folder",
    training_transform=training_transform,
    evaluation_transform=evaluation_transform,
    size=lambda preprocessing: {
        "image_size": list(preprocessing.input_size[1:]),
        "resized_to": list(preprocessing.resized_to),
        "crop_pct": preprocessing.crop_pct,
    },
    metrics=(Metric("top1", "top-1", hub_name="accuracy"), Metric("top5", "top-5"), LOSS),
    tally=ClassificationTally,
    counts=lambda logits, target: _best_guesses(logits)[:, 0] == target,
    mixes=True,
    pipeline_tag="image-classification",
)
