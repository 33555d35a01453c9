"""A made-up task, in one file: the sign of each number of a row. Rows are padded, classes come last, lower is better.

Shapes: N rows of up to L numbers, 2 classes (C), which L may be too; logits [N, L, C], signs [N, L].
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from spgsurgeon.data.loading.samples import Batch, Inputs, Loaded
from spgsurgeon.runtime.distributed import Processes
from spgsurgeon.tasks.metrics import LOSS, Metric
from spgsurgeon.tasks.task import Scores, Task

PADDING = -100


class Rows:
    """Rows of one to four numbers."""

    name, classes = "rows", ("minus", "plus")

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> tuple[Any, Tensor]:
        row = torch.randn(1 + index % 4, generator=torch.Generator().manual_seed(index))
        return row, (row > 0).long()

    def describe(self, index: int) -> str:
        return f"row {index}"


class SignModel(nn.Module):
    """Takes its inputs by name, and in no order."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(1, 8), nn.Tanh())
        self.head = nn.Linear(8, 2)

    def forward(self, *, present: Tensor, numbers: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(numbers[..., None]) * present[..., None])
        return logits


def inputs_of(row: Tensor, signs: Tensor) -> tuple[Inputs, Tensor]:
    return {"numbers": row, "present": torch.ones(len(row))}, signs


def padded(items: list[Loaded]) -> list[Batch]:
    """Return one batch, as long as its longest row."""
    inputs = {
        name: pad_sequence([item.inputs[name] for item in items], batch_first=True) for name in ("numbers", "present")
    }
    signs = pad_sequence([torch.as_tensor(item.target) for item in items], batch_first=True, padding_value=PADDING)
    return [Batch(inputs, signs, torch.tensor([item.index for item in items]))]


class SurpriseTally:
    def __init__(self, processes: Processes) -> None:
        self.sums = torch.zeros(3)

    def add(self, logits: Tensor, target: Tensor) -> None:
        self.sums += torch.cat([surprise(logits, target).sum(0), torch.tensor([len(target)])])

    def confusions(self) -> None:
        pass

    def drawn(self) -> None:
        pass

    def scores(self) -> Scores:
        loss = (self.sums[0] / self.sums[1]).item()
        return {"surprise": math.exp(loss), "loss": loss, "samples": int(self.sums[2])}


def surprise(logits: Tensor, target: Tensor) -> Tensor:
    """Return the cross entropy of each row's numbers and how many they are, [N, 2]."""
    entropy = cross_entropy(logits, target, reduction="none", ignore_index=PADDING)
    return torch.stack([entropy.sum(1), (target != PADDING).sum(1)], 1)


SIGNS = Task(
    name="signs",
    unit="number",
    predicts="a sign for each number",
    samples="rows of numbers",
    source="rows",
    metrics=(Metric("surprise", "surprise", higher_is_better=False, percent=False), LOSS),
    training_transform=lambda preprocessing, augmentation: inputs_of,
    evaluation_transform=lambda preprocessing: inputs_of,
    size=lambda preprocessing: {},
    tally=SurpriseTally,
    counts=surprise,
    from_counts=lambda sums: torch.as_tensor(sums[:, 0] / sums[:, 1]).exp().numpy(),
    collation=lambda preprocessing: padded,
    readout=lambda logits: logits.movedim(-1, 1),
)
