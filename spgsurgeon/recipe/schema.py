"""What a recipe may say: every section, key, default and range."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    Field,
    Strict,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from spgsurgeon.errors import closest
from spgsurgeon.recipe.data_section import DataSection
from spgsurgeon.recipe.sections import BelowOne, Count, NonNegative, NonNegativeInt, Positive, Section, fault_at
from spgsurgeon.recipe.training_section import TrainingSection

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
                raise fault_at(key, f"{key} is not a setting of {self.kind} replicas{whole}")
        if self.rollouts and self.head_batch != "stacked":
            raise fault_at("rollouts", "rollouts take each step through the heads by itself; leave head_batch out")
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

    @property
    def most_epochs(self) -> int:
        """How many epochs it can take."""
        return self.epochs if self.until is None else self.max_epochs

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if self.until is not None and self.epochs > 0:
            raise fault_at("until", f"until: {self.until} and epochs: {self.epochs} exclude each other; drop one")
        return self


class CompareSection(Section):
    """What `spgsurgeon compare` may compare besides its own arms."""

    arms: dict[Annotated[str, AfterValidator(_arm_name)], dict[Annotated[str, AfterValidator(_arm_key)], Any]] = Field(
        default_factory=dict
    )
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
            raise fault_at("weights", reason)
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
