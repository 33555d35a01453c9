"""The training section of a recipe: optimisation, and what the run does besides."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, Strict, model_validator

from spgsurgeon.runtime import known_device
from spgsurgeon.sections import BelowOne, Count, Decay, NonNegative, Positive, Section, fault_at


class OptimizerSection(Section):
    """The optimizer."""

    name: Annotated[str, Field(min_length=1)] = "sgd"
    """`sgd`, or any name that timm.optim.list_optimizers() gives."""
    lr: Positive = 4e-4
    """Peak learning rate."""
    momentum: BelowOne = 0.9
    """Momentum, where the optimizer has one."""
    weight_decay: NonNegative = 1e-4
    """Weight decay."""
    nesterov: bool = False
    """Nesterov's momentum (sgd only)."""
    decay_bias_and_norm: bool = True
    """Whether weight decay also falls on biases and normalisation layers."""
    head_lr: Positive | None = None
    """Peak learning rate of the head, the layers that make the logits; null is `lr`."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    """Factor by which each layer of the base learns more slowly than the one after it, as timm has it; null is none.
    timm's models only."""

    @model_validator(mode="after")
    def _nesterov_has_a_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise fault_at("nesterov", "Nesterov's momentum needs a momentum greater than 0")
        return self


class ScheduleSection(Section):
    """The learning rate over time."""

    name: Literal["constant", "step", "cosine", "linear", "poly"] = "cosine"
    """The curve after the warm-up."""
    every: Count = 10
    """Epochs between two steps (step only)."""
    gamma: Positive = 0.5
    """Factor at each step (step only)."""
    power: Positive = 0.9
    """Exponent (poly only)."""
    warmup_epochs: NonNegative = 0.0
    """Epochs of linear warm-up, counted in training.epochs; may be a part of one."""
    min_lr: NonNegative = 0.0
    """Where the curve ends."""


class CheckpointSection(Section):
    """Checkpoints to resume from, besides the one at each epoch's end."""

    steps: Count | None = None
    """Optimizer steps between two; null does not count them."""
    minutes: Positive | None = 10.0
    """Minutes between two; null does not look at the clock."""
    keep: Count = 2
    """How many of the newest are kept, besides the best; from 2 on, a damaged one has another behind it."""


class EarlyStoppingSection(Section):
    """Ending a run whose score does not get better any more; the best checkpoint is kept in any case."""

    patience: Count | None = None
    """How many epochs in a row may pass without a better score before the run ends; null never ends it early."""
    min_delta: NonNegative = 0.0
    """By more than how much, in the score's own units, one must be better than the best so far to count."""


def _by_name(weights: Any) -> Any:
    """Return weights by the names of classes, of which some may be numbers."""
    return {str(name): weight for name, weight in weights.items()} if isinstance(weights, dict) else weights


class TrainingSection(Section):
    """Optimisation and the run."""

    epochs: Count = 10
    """Passes over the training data, after the cold start."""
    batch_size: Count = 64
    """Images a process takes at once."""
    eval_batch_size: Count | None = None
    """The same in evaluation; null is `batch_size`."""
    optimizer: OptimizerSection = OptimizerSection()
    """The optimizer."""
    schedule: ScheduleSection = ScheduleSection()
    """The learning rate over time."""
    freeze: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Strict(False)] = ()
    """Parts of the base that do not learn, by name, such as [stem, 'blocks.[0-2]']; wildcards do not reach over a dot.
    Their batch norms stay in eval mode."""
    batch_norm: Literal["track", "freeze"] = "track"
    """Whether the base's batch norms normalise by each batch and their running statistics follow it, or stay in eval
    mode: `freeze` is for batches too small, or too unlike what the model was trained on. Their weights learn."""
    class_weights: Annotated[
        Literal["balanced"] | dict[str, Positive] | Annotated[tuple[Positive, ...], Strict(False)] | None,
        BeforeValidator(_by_name),
    ] = None
    """How much a unit counts in the loss by its class: `balanced`, each class as much as any other, a list with one for
    each class in their order, or by name, such as {cat: 2}, where the others have 1. Episodes and scores do not go by
    it."""
    early_stopping: EarlyStoppingSection = EarlyStoppingSection()
    """Ending the run before its last epoch, by the score that the best checkpoint is chosen by."""
    gradient_clip: Positive | None = None
    """Largest norm of the gradient; null does not clip."""
    accumulate: Count = 1
    """Batches summed into one optimizer step."""
    drop_last: bool = True
    """Whether an epoch leaves out the samples that do not fill its last batch, and the batches that do not fill its
    last step; false keeps them, as a smaller batch and a smaller step."""
    ema: Decay | None = None
    """Decay of the exponential moving average of the weights, for one optimizer step; null keeps none."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Arithmetic of the forward pass; auto goes by the device. The loss is always float32."""
    tf32: bool = False
    """Whether matrix products in float32 may use TF32 on CUDA devices: faster, of 10 bits. Convolutions do anyway."""
    cudnn_benchmark: bool = False
    """Whether cuDNN tries its convolutions and takes the fastest, on CUDA devices; a repeated run may take another."""
    memory_format: Literal["auto", "contiguous", "channels-last"] = "auto"
    """How images and the weights of convolutions lie in memory; auto is channels-last where that is safe and fast."""
    device: Annotated[str, AfterValidator(known_device)] = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    compile: bool = False
    """Whether the model goes through torch.compile."""
    checkpoints: CheckpointSection = CheckpointSection()
    """When checkpoints are written besides each epoch's end, and how many are kept."""
    non_finite: Literal["stop", "skip"] = "stop"
    """What NaN or infinity in the loss, a gradient or a weight does: it ends the run, or its step is left out."""
    max_skips: Count = 10
    """The most steps that `skip` may leave out in a run."""
    deterministic: bool = False
    """Whether torch is held to its deterministic algorithms; slower, and an error where there is none."""
    metric: str | None = None
    """The score that the best checkpoint is chosen by and runs are compared by, of tasks that have several, such as
    `matthews` or `f1` for texts; null is the task's first."""
    record_episodes: bool = False
    """Whether the run records how long each training sample's episode is in each epoch, for `spgsurgeon episodes`."""
    loggers: Annotated[tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...], Strict(False)] | None = None
    """Who else is told the numbers of metrics.jsonl, each an extra to install; null is TensorBoard, if it is installed.
    Nothing is sent anywhere unless the tracker's own environment variables say so."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of everything random."""

    @model_validator(mode="after")
    def _repeatable_or_fastest(self) -> Self:
        if self.deterministic and self.cudnn_benchmark:
            raise fault_at("cudnn_benchmark", "what cudnn_benchmark takes is left to chance; deterministic excludes it")
        return self
