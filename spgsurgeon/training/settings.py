"""What a retraining is told: plain values, checked where they come from."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Objective:
    """See `objective.loss.spg_loss`. No weights: plain cross entropy."""

    form: str = "step"
    weights: tuple[float, ...] = ()
    label_smoothing: float = 0.0
    loss_normalization: bool = False


@dataclass(frozen=True)
class Optimizer:
    """`name` is `sgd` (classical or Nesterov momentum) or any of timm's names."""

    name: str = "sgd"
    lr: float = 4e-4
    momentum: float = 0.9
    weight_decay: float = 1e-4
    nesterov: bool = False
    decay_bias_and_norm: bool = True


@dataclass(frozen=True)
class Schedule:
    """`name` is constant, step, cosine, linear or poly; `every` and `warmup_epochs` count epochs."""

    name: str = "cosine"
    every: int = 10
    gamma: float = 0.5
    power: float = 0.9
    warmup_epochs: int = 0
    min_lr: float = 0.0


@dataclass(frozen=True)
class ColdStart:
    """Epochs at learning rate zero before the training ones; `until_converged` stops when the moments have settled."""

    epochs: int = 0
    until_converged: bool = False
    max_epochs: int = 5
    tolerance: float = 0.1
    freeze_batch_norm: bool = True

    @property
    def most_epochs(self) -> int:
        """How many epochs it can take."""
        return self.max_epochs if self.until_converged else self.epochs


@dataclass(frozen=True)
class Checkpoints:
    """When checkpoints are written besides each epoch's end: every so many steps, every so many minutes."""

    steps: int | None = None
    minutes: float | None = None


@dataclass(frozen=True)
class Settings:
    """One retraining by the loop. `batch` sizes are per process; `accumulate` batches make an optimizer step.

    `non_finite` and `max_skips` are the policy of `NumberGuard`.
    """

    epochs: int
    objective: Objective = field(default_factory=Objective)
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    cold_start: ColdStart = field(default_factory=ColdStart)
    gradient_clip: float | None = None
    accumulate: int = 1
    mixup: float = 0.0
    cutmix: float = 0.0
    ema: float | None = None
    precision: str = "auto"
    memory_format: str = "auto"
    compile: bool = False
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    non_finite: str = "stop"
    max_skips: int = 10
    seed: int = 0
