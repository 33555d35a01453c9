"""What a recipe may say: every section, key, default and range.

Sections are frozen and refuse unknown keys and implicit conversions (no `true` for 1, no 3.0 for 3). Which keys were
set rather than left at their default is in pydantic's `model_fields_set`, section by section. The text under a field
is its description, for people and for `recipe_keys`.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from spgsurgeon.errors import closest

Count = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Decay = Annotated[float, Field(gt=0, lt=1)]

READABLE = ("torch/", "hfds/")
MASKS = ("masks", "voc", "coco")
STREAMS = ("tfds/", "hfids/")
HOLDOUT = "holdout"
CONTROLS = ("none", "fixed-dropout")  # kinds without replicas
SAME_IN_ALL_ARMS = (
    "model",
    "data",
    "training.epochs",
    "training.batch_size",
    "training.accumulate",
    "training.optimizer.lr",
    "training.device",
    "training.seed",
)
"""What the arms of a comparison share, so that data, steps and choice of learning rates are the same."""


def _known_source(source: str) -> str:
    if source.startswith("wds/"):
        raise ValueError(f"{source!r} names a data set; write source: wds, and the folder of the tar files as the path")
    if source.startswith(STREAMS):
        raise ValueError(
            f"{source!r} is a stream, which could not be resumed exactly; use a folder, wds, torch/NAME or hfds/NAME"
        )
    if source in ("folder", "wds", "digits", *MASKS) or any(source.startswith(p) and source != p for p in READABLE):
        return source
    raise ValueError(
        f"{source!r} is not a data source; it must be folder, wds, digits, torch/NAME or hfds/NAME, "
        f"or, with a mask for each picture, {', '.join(MASKS)}"
    )


def _known_classes(classes: Any) -> tuple[str, ...] | int | None:
    if classes is None or (isinstance(classes, int) and not isinstance(classes, bool) and classes > 0):
        return classes
    if isinstance(classes, list | tuple) and classes and all(isinstance(name, str) and name for name in classes):
        if len(set(classes)) < len(classes):
            raise ValueError("a class is named twice")
        return tuple(classes)
    raise ValueError(
        f"{json.dumps(classes)} is refused, it must be a list of names (quoted, where needed) or their number"
    )


def _known_device(device: str) -> str:
    if re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device):
        return device
    raise ValueError(f"{device!r} is not a device; it must be auto, cpu, cuda, cuda:N or mps")


def _arm_name(name: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        return name
    raise ValueError(f"{name!r} can't name an arm, as its folder has that name; use letters, digits, '.', '_' and '-'")


def _arm_key(key: str) -> str:
    known = [name for name in recipe_keys() if name.partition(".")[0] != "compare"]
    if key not in known:
        elsewhere = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]
        near = elsewhere or closest(key, known, count=1)
        raise ValueError(f"unknown key, did you mean {' or '.join(map(repr, near))}?" if near else "unknown key")
    for shared in SAME_IN_ALL_ARMS:
        if f"{key}.".startswith(f"{shared}.") or f"{shared}.".startswith(f"{key}."):
            raise ValueError(f"arms that differ in {shared} can't be compared: it is the same for all of them")
    return key


def _fault_at(key: str, message: str) -> PydanticCustomError:
    """A fault of a whole section that shows best at one of its keys."""
    return PydanticCustomError("conflict", "{reason}", {"reason": message, "key": key})


class Section(BaseModel):
    """What all sections share."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class TrpSection(Section):
    """The temporary replicas."""

    kind: Literal["dropout", "depth", "fixed-dropout", "none"] = "dropout"
    """Which replicas are grafted. Two controls, by the same loop, graft none: `none` is plain retraining,
    `fixed-dropout` the same with dropout of `rate` on what the head reads."""
    replicas: Count = 3
    """How many replicas, T; an episode has T + 1 steps."""
    rate: BelowOne = 0.2
    """Dropout rate of each step; after t steps it has added up to 1 - (1 - rate)^t (eq. 4). Dropout kinds only."""
    blocks: Count | None = None
    """How many blocks each replica is deeper than the one before; null goes by the architecture. Depth only."""
    block: Literal["bottleneck", "inverted-residual", "transformer", "convnext", "swin"] | None = None
    """What these blocks are; null goes by the architecture. Depth only."""
    init: Literal["identity", "all-zero"] = "identity"
    """How blocks start; `all-zero` also zeroes all of their convolutions, which then never learn. Depth only."""
    head_batch: Literal["stacked", "sequential"] = "stacked"
    """Whether all steps go through a segmentation model's heads at once, or one by one, in less memory."""
    rollouts: bool = False
    """Whether each step has a forward pass of the whole model of its own: the naive way, T + 1 times the cost, for
    comparison. Dropout only."""

    @model_validator(mode="after")
    def _settings_of_the_kind(self) -> Self:
        others = {
            "dropout": ("blocks", "block", "init"),
            "depth": ("rate", "head_batch", "rollouts"),
            "fixed-dropout": ("blocks", "block", "init", "rollouts"),
        }
        for key in others.get(self.kind, ()):
            if key in self.model_fields_set and getattr(self, key) != type(self).model_fields[key].default:
                whole = f"; to change the kind, replace the section: trp={{kind: {self.kind}}}"
                raise _fault_at(key, f"{key} is not a setting of {self.kind} replicas{whole}")
        if self.rollouts and self.head_batch != "stacked":
            raise _fault_at("rollouts", "rollouts take each step through the heads by itself; leave head_batch out")
        return self


class ObjectiveSection(Section):
    """The loss."""

    form: Literal["episode", "episode-mean", "step"] = "step"
    """How the loss is summed: over whole episodes (eq. 11), over episodes divided by their length, or step by step.

    Left out, it is `episode` for depth replicas.
    """
    weights: Annotated[tuple[NonNegative, ...], Strict(False)] = (0.4, 0.2, 0.1)
    """Weight of each replica in the return (lambda 1 to T); the base itself has 1."""
    loss_normalization: bool = False
    """Scale the loss by exp(base cross entropy - loss), a constant to the gradient."""
    label_smoothing: BelowOne = 0.0
    """Label smoothing inside the cross entropy."""


class ColdStartSection(Section):
    """Filling the optimizer's moments at learning rate zero, before and not counted in training.epochs."""

    epochs: NonNegativeInt = 0
    """How many epochs; 0 is no cold start unless `until` says otherwise."""
    until: Literal["converged"] | None = None
    """`converged` stops once the moments have settled, instead of after a fixed number of epochs."""
    max_epochs: Count = 5
    """The most epochs that `until` may take."""
    tolerance: Positive = 0.1
    """How much the moments may still change from one epoch to the next and count as settled."""
    batch_norm: Literal["freeze", "track"] = "freeze"
    """Whether running statistics stay or follow the data meanwhile."""

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if self.until is not None and self.epochs > 0:
            raise _fault_at("until", f"until: {self.until} and epochs: {self.epochs} exclude each other; drop one")
        return self


class AugmentSection(Section):
    """What happens to training pictures."""

    crop: Literal["random-resized", "random-scale", "pad", "resize"] = "random-resized"
    """A random resized crop, a random crop after padding, or only a resize. For pictures with masks: `random-scale`,
    half to twice the size, then a random crop (their default), or `resize`."""
    flip: Probability = 0.5
    """Probability of a horizontal flip."""
    policy: Literal["autoaugment", "randaugment", "trivialaugment-wide", "augmix"] | None = None
    """An automatic augmentation policy."""
    mixup: NonNegative = 0.0
    """Mixup's alpha; 0 is off."""
    cutmix: NonNegative = 0.0
    """CutMix's alpha; 0 is off. With mixup on too, each batch draws one of them."""
    erase: Probability = 0.0
    """Probability of erasing a random rectangle."""


class DataSection(Section):
    """The pictures."""

    source: Annotated[str, AfterValidator(_known_source)] = "folder"
    """`folder` (a tree with one folder a class), `wds` (WebDataset's shards, tar files), `digits` (built in), or a name
    timm reads: torch/NAME, hfds/NAME. For segmentation `masks` (SPLIT/images and SPLIT/masks), `voc` or `coco`."""
    path: str | None = None
    """The folder that holds the data; `folder` and `wds` need it."""
    train: str = "train"
    """Split or sub-folder to train on; for `wds` a pattern too, such as 'train-{0000..0123}.tar'."""
    eval: str = "val"
    """Split or sub-folder to evaluate on, for `wds` a pattern too; `holdout`: what `holdout` leaves out of training."""
    holdout: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the training split that is left out of training, each class in proportion; the same for every seed."""
    limit: Count | None = None
    """The most pictures of each class to train on, of those that `holdout` leaves; the same for every seed."""
    classes: Annotated[tuple[str, ...] | int | None, BeforeValidator(_known_classes)] = None
    """Names of the classes by mask value or label, or their number; null reads classes.txt in the data's folder, and
    for `wds` without one counts the labels. `masks` and `wds` only."""
    ignore: Annotated[tuple[NonNegativeInt, ...], Strict(False)] = ()
    """Mask values that are not scored and teach nothing, besides 255."""
    image_size: Count | None = None
    """Height and width of training pictures, in pixels; null is the model's own."""
    eval_image_size: Count | None = None
    """Height and width for evaluation, in pixels, where `image_size` is given; null is `image_size`."""
    augment: AugmentSection = AugmentSection()
    """What happens to training pictures."""
    unreadable: Literal["stop", "skip"] = "stop"
    """What a picture that can't be used does: it ends the run, or is passed over, counted and listed."""
    workers: NonNegativeInt | None = None
    """Loader processes for each training process; null goes by the machine. The weights don't depend on it."""

    @model_validator(mode="after")
    def _folder_has_a_path(self) -> Self:
        if self.source in ("folder", "wds", *MASKS) and not self.path:
            raise _fault_at("path", f"source: {self.source} needs the path of the folder that holds the data")
        return self

    @model_validator(mode="after")
    def _parts_of_the_training_split(self) -> Self:
        for key in ("limit", "holdout"):
            if self.source in MASKS and getattr(self, key) is not None:
                raise _fault_at(key, f"{key} goes by a picture's class; source: {self.source} has masks")
        if self.eval == HOLDOUT and self.holdout is None:
            raise _fault_at("eval", "eval: holdout needs data.holdout, the share that is left out of training")
        return self

    @model_validator(mode="after")
    def _both_sizes(self) -> Self:
        if self.eval_image_size is not None and self.image_size is None:
            # A run's checkpoints say the size that they were scored at, and a resumed run would train at that.
            raise _fault_at("eval_image_size", "where eval_image_size is given, image_size must be too")
        return self

    @model_validator(mode="after")
    def _fits_the_source(self) -> Self:
        if self.source not in ("masks", "wds") and self.classes is not None:
            raise _fault_at("classes", f"classes is for source: masks and wds; {self.source} has its own")
        if self.source not in MASKS and self.ignore:
            raise _fault_at("ignore", f"ignore is for pictures with masks; source: {self.source} has none")
        if self.source in MASKS:
            for key in ("policy", "mixup", "cutmix", "erase"):
                if getattr(self.augment, key):
                    raise _fault_at("augment", f"{key} is for whole images; pictures with masks have crop and flip")
            if "crop" not in self.augment.model_fields_set:
                object.__setattr__(self, "augment", self.augment.model_copy(update={"crop": "random-scale"}))
        crops = ("random-scale", "resize") if self.source in MASKS else ("random-resized", "pad", "resize")
        if self.augment.crop not in crops:
            raise _fault_at("augment", f"crop {self.augment.crop!r} does not go with source: {self.source}")
        return self


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
    warmup_epochs: NonNegativeInt = 0
    """Epochs of linear warm-up, counted in training.epochs."""
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


class TrainingSection(Section):
    """Optimisation and the run."""

    epochs: Count = 10
    """Passes over the training data, after the cold start."""
    batch_size: Count = 64
    """Pictures a process takes at once."""
    eval_batch_size: Count | None = None
    """The same in evaluation; null is `batch_size`."""
    optimizer: OptimizerSection = OptimizerSection()
    """The optimizer."""
    schedule: ScheduleSection = ScheduleSection()
    """The learning rate over time."""
    gradient_clip: Positive | None = None
    """Largest norm of the gradient; null does not clip."""
    accumulate: Count = 1
    """Batches summed into one optimizer step."""
    ema: Decay | None = None
    """Decay of the exponential moving average of the weights, for one optimizer step; null keeps none."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Arithmetic of the forward pass; auto goes by the device. The loss is always float32."""
    device: Annotated[str, AfterValidator(_known_device)] = "auto"
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
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of everything random."""


class CompareSection(Section):
    """What `spgsurgeon compare` may compare besides its own arms."""

    arms: dict[Annotated[str, AfterValidator(_arm_name)], dict[Annotated[str, AfterValidator(_arm_key)], Any]] = {}
    """Arms by name, each with what it changes: dotted keys and values, as 'long-episodes: {trp.replicas: 5}'."""


class Recipe(Section):
    """One retraining, completely described; `data` is the only section without a default."""

    model: str | None = None
    """What is retrained: LIBRARY/NAME.WEIGHTS, a file or a folder; null leaves it to the command."""
    trp: TrpSection = TrpSection()
    """The temporary replicas."""
    objective: Annotated[ObjectiveSection, Field(validate_default=True)] = ObjectiveSection()
    """The loss."""
    cold_start: ColdStartSection = ColdStartSection()
    """Filling the optimizer's moments at learning rate zero, before and not counted in training.epochs."""
    data: DataSection
    """The pictures."""
    training: TrainingSection = TrainingSection()
    """Optimisation and the run."""
    compare: CompareSection = CompareSection()
    """What `spgsurgeon compare` may compare besides its own arms."""

    # On the field, not the whole recipe: so it is reported together with the faults of other sections.
    @field_validator("objective")
    @classmethod
    def _fits_the_replicas(cls, objective: ObjectiveSection, info: ValidationInfo) -> ObjectiveSection:
        trp = info.data.get("trp")
        if trp is not None and trp.kind == "depth" and "form" not in objective.model_fields_set:
            objective = objective.model_copy(update={"form": "episode"})
        if trp is not None and trp.kind not in CONTROLS and len(objective.weights) != trp.replicas:
            reason = f"{len(objective.weights)} weights for {trp.replicas} replicas (trp.replicas); each needs one"
            raise _fault_at("weights", reason)
        return objective


def section_at(path: tuple[str | int, ...]) -> type[Section] | None:
    """Return the section class at `path` (empty: the recipe itself), or None where there is none."""
    section: type[Section] = Recipe
    for key in path:
        field = section.model_fields.get(str(key))
        if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, Section):
            return None
        section = field.annotation
    return section


def field_at(path: tuple[str | int, ...]) -> FieldInfo | None:
    """Return the field at `path`, or None where there is none."""
    section = section_at(path[:-1])
    return section.model_fields.get(str(path[-1])) if section else None


def accepts(path: tuple[str | int, ...], kind: type) -> bool:
    """Return whether the field at `path` is of this type, or may be."""
    field = field_at(path)
    return field is not None and kind in (field.annotation, *get_args(field.annotation))


def recipe_keys(path: tuple[str, ...] = ()) -> dict[str, str]:
    """Return what each dotted key below `path` means, in schema order, sections before their keys."""
    keys: dict[str, str] = {}
    section = section_at(path)
    for name, field in section.model_fields.items() if section else ():
        keys[".".join((*path, name))] = field.description or ""
        keys |= recipe_keys((*path, name))
    return keys
