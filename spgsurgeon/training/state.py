"""What a step changes: where a run is, and everything that it goes on from, as a checkpoint and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from timm.utils import ModelEmaV3

from spgsurgeon.checkpoint import MalformedError
from spgsurgeon.models import load_saved_state, saved_state
from spgsurgeon.replicas import GraftedModel
from spgsurgeon.runs import Checkpoint
from spgsurgeon.tasks import Scores
from spgsurgeon.training.cold_start import Moments
from spgsurgeon.training.optimization import optimizer_state, restore_optimizer
from spgsurgeon.training.statistics import Totals, check_totals

_COLD = "cold::"


@dataclass
class Counters:
    """Where a run is. `epoch` counts all passes over the data, those before the training proper too.

    `batch` lies within one.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    update: int = 0
    head_epochs: int = 0
    head_finished: bool = True
    head_loss: float | None = None
    """That of the head start's last epoch."""
    cold_epochs: int = 0
    cold_finished: bool = False
    cold_hash: str | None = None
    untrained: str | None = None
    """What of the model had learned nothing before: "head" or "all"."""
    original: Scores | None = None
    started: Scores | None = None
    """Those at the end of the head start."""
    best: Scores | None = None
    last: Scores | None = None
    to_beat: float | None = None
    """The score that the next must be better than, for early stopping."""
    waited: int = 0
    """How many epochs in a row were not."""
    skipped: int = 0
    """Steps that were not applied, since their numbers were not finite."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Why images were passed over, by name, over all processes."""
    statistics: Totals | None = None
    """The epoch's episodes so far, over all processes."""

    @property
    def epochs_before(self) -> int:
        """How many epochs of a head start and a cold start are done."""
        return self.head_epochs + self.cold_epochs

    @property
    def done(self) -> dict[str, int]:
        """How many epochs are done, by phase."""
        return {"head": self.head_epochs, "cold": self.cold_epochs, "train": self.epoch - self.epochs_before}

    def check(self, sizes: Sizes) -> None:
        """Raise MalformedError naming what can't be so in a run of these sizes."""
        limits = {
            "epoch": self.epochs_before + sizes.epochs,
            "batch": sizes.batches,
            "head_epochs": sizes.head_epochs,
            "cold_epochs": sizes.cold_epochs,
        }
        for name, most in limits.items():
            if getattr(self, name) > most:
                raise MalformedError(f"counters.{name} is {getattr(self, name)}, of {most} at most")
        if self.batch % sizes.accumulate and self.batch < sizes.batches:
            raise MalformedError(f"counters.batch is {self.batch}, with {sizes.accumulate} of them a step")
        if self.statistics is not None:
            steps = sizes.steps if self.head_finished else 1  # a head start has no episodes
            check_totals(self.statistics, steps, sizes.classes, sizes.samples)


@dataclass(frozen=True)
class Sizes:
    """What counters may count up to: epochs, batches an epoch, batches a step, steps T+1, classes, samples."""

    epochs: int
    head_epochs: int
    cold_epochs: int
    batches: int
    accumulate: int
    steps: int
    classes: int
    samples: int


@dataclass
class TrainingState:
    """The model and all that changes with it. `moments` are those at the end of the last cold epoch."""

    grafted: GraftedModel
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: ModelEmaV3 | None
    counters: Counters
    moments: Moments | None = None
    stands_on: Mapping[str, Any] = field(default_factory=dict)
    """What must be the same when it resumes, as plain data: recipe and data."""

    def checkpoint(self) -> Checkpoint:
        """Return what a run goes on from. The tensors are the live ones, not copies."""
        tensors, numbers = optimizer_state(self.optimizer, self.grafted)
        if self.moments is not None:
            tensors |= {f"{_COLD}{k}": v for k, v in vars(self.moments).items() if v is not None}
        state: dict[str, Any] = {"counters": asdict(self.counters), "optimizer": numbers}
        state |= {"stands_on": dict(self.stands_on)} if self.stands_on else {}
        return Checkpoint(
            base=saved_state(self.grafted.base),
            temporary=self.grafted.replicas.state_dict(),
            optimizer=tensors,
            # The replicas' average is read by nobody, so only the base's is kept.
            ema=saved_state(self.ema.module.base) if self.ema else {},
            state=state | {"scaler": self.scaler.state_dict()},
            unreadable=dict(self.counters.unreadable),
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to a checkpoint. Raises MalformedError if the optimizer's state is of another one."""
        device = next(self.grafted.parameters()).device
        load_saved_state(self.grafted.base, checkpoint.base)
        self.grafted.replicas.load_state_dict(checkpoint.temporary)
        tensors = {key: value for key, value in checkpoint.optimizer.items() if not key.startswith(_COLD)}
        restore_optimizer(self.optimizer, self.grafted, tensors, checkpoint.state["optimizer"])
        self._restore_scaler(checkpoint.state["scaler"])
        if self.ema:
            if not checkpoint.ema:
                raise MalformedError("hashes.ema is missing, and the recipe has a moving average")
            load_saved_state(self.ema.module.base, checkpoint.ema)
        self.counters = Counters(**checkpoint.state["counters"])
        cold = {k.removeprefix(_COLD): v.to(device) for k, v in checkpoint.optimizer.items() if k.startswith(_COLD)}
        self.moments = Moments(cold.get("first"), cold.get("second")) if cold else None

    def _restore_scaler(self, numbers: Mapping[str, float]) -> None:
        """Put back the scale of half-precision gradients; a run that had none, as on a CPU, starts with its own."""
        if not self.scaler.is_enabled() or not numbers:
            return
        if numbers.keys() != self.scaler.state_dict().keys():
            raise MalformedError(f"scaler has {', '.join(sorted(numbers))}, which is not what a gradient scaler has")
        self.scaler.load_state_dict(dict(numbers))
