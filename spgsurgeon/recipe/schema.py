"""What a recipe may say: every section, key, default and range."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    Strict,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo

from spgsurgeon.errors import closest
from spgsurgeon.recipe.data_section import DataSection
from spgsurgeon.recipe.start_sections import ColdStartSection, HeadStartSection
from spgsurgeon.recipe.training_section import TrainingSection
from spgsurgeon.replicas import ReplicaKind
from spgsurgeon.replicas.kinds import DEFAULT, kinds, settings_of_others
from spgsurgeon.sections import (
    BelowOne,
    NonNegative,
    OneOf,
    Probability,
    Section,
    Share,
    fault_at,
    meanings,
)

SAME_IN_ALL_ARMS = (
    "model",
    "data",
    "training.epochs",
    "training.batch_size",
    "training.accumulate",
    "training.drop_last",
    "training.early_stopping",
    "training.optimizer.lr",
    "training.optimizer.head_lr",
    "training.device",
    "training.metric",
    "training.seed",
    "new_head",
    "head_start",
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


def _without_idle_keys(values: Any) -> Any:
    """Return a trp section without the keys of other kinds that are at their default, or mean nothing to a control.

    So trp.kind=none makes the control of any recipe, and recipes that list the defaults of all kinds, as they were
    once written out, are read.
    """
    kind = kinds().get(_KINDS.name_of(values) or "")
    if kind is None or not isinstance(values, dict):
        return values
    others = settings_of_others(kind)
    idle = {key for key in values if key in others and (kind.leaves_out(key) or values[key] in others[key])}
    return {key: value for key, value in values.items() if key not in idle}


_KINDS = OneOf(kinds, by="kind", default=DEFAULT)


class ObjectiveSection(Section):
    """The loss."""

    form: Literal["episode", "episode-mean", "step"] = "step"
    """How the loss is summed: over whole episodes (eq. 11), over episodes divided by their length, or step by step.

    Left out, it goes by the kind of replicas.
    """
    weights: Annotated[tuple[NonNegative, ...], Strict(False)] = (0.4, 0.2, 0.1)
    """Weight of each replica in the return (lambda 1 to T); the base itself has 1. Those of a mesh are of the steps
    of its axes, a shorter one taking the first, and a cell has the product."""
    loss_normalization: bool = False
    """Scale the loss by exp(base cross entropy - loss), a constant to the gradient."""
    label_smoothing: BelowOne = 0.0
    """Label smoothing inside the cross entropy."""
    gce: Probability = 0.0
    """The q of generalized cross entropy (arXiv 1805.07836), (1 - p^q) / q in the place of -log p, which bears wrong
    labels better; 0 is cross entropy."""
    small_loss: Share = 1.0
    """The share of the units of each batch that is learned from, those with the smallest losses, for a control without
    replicas; 1 is all."""
    r_drop: NonNegative = 0.0
    """R-Drop's alpha, for a control without replicas: each batch goes through the model twice, and the divergence of
    both predictions is added; 0 is off."""


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
    new_head: bool = False
    """Whether the model gets a new head if the data has another number of classes."""
    trp: Annotated[ReplicaKind, _KINDS, BeforeValidator(_without_idle_keys)] = Field(default_factory=kinds()[DEFAULT])
    """The temporary replicas, of one kind with its own settings."""
    objective: Annotated[ObjectiveSection, Field(validate_default=True)] = ObjectiveSection()
    """The loss."""
    head_start: HeadStartSection = HeadStartSection()
    """Plain epochs before the episodes begin, for a head that has learned nothing; not counted in training.epochs."""
    cold_start: ColdStartSection = ColdStartSection()
    """Filling the optimizer's moments at learning rate zero, before and not counted in training.epochs."""
    data: DataSection
    """The images."""
    training: TrainingSection = TrainingSection()
    """Optimisation and the run."""
    compare: CompareSection = CompareSection()
    """What `spgsurgeon compare` may compare besides its own arms."""

    # On the field, not the whole recipe: so it is reported together with the faults of other sections.
    @field_validator("objective")
    @classmethod
    def _fits_the_replicas(cls, objective: ObjectiveSection, info: ValidationInfo) -> ObjectiveSection:
        trp: ReplicaKind | None = info.data.get("trp")
        if trp is None:
            return objective
        if trp.default_form != objective.form and "form" not in objective.model_fields_set:
            objective = objective.model_copy(update={"form": trp.default_form})
        if objective.r_drop and not trp.control:
            raise fault_at("r_drop", f"r_drop is for a control without replicas; trp.kind is {trp.kind}")
        if objective.small_loss < 1 and not trp.control:
            raise fault_at("small_loss", f"small_loss is for a control without replicas; trp.kind is {trp.kind}")
        if objective.small_loss < 1 and objective.r_drop:
            raise fault_at("small_loss", "small_loss chooses by one prediction a unit, and r_drop makes two")
        if objective.gce and objective.label_smoothing:
            raise fault_at("gce", "gce is of the probability of one label, and label_smoothing takes part of all")
        if not trp.control and len(objective.weights) != trp.length:
            reason = f"{len(objective.weights)} weights for {trp.length} replicas ({trp.length_key}); each needs one"
            raise fault_at("weights", reason)
        return objective

    @field_validator("training")
    @classmethod
    def _leaves_batches_to_replicas(cls, training: TrainingSection, info: ValidationInfo) -> TrainingSection:
        trp: ReplicaKind | None = info.data.get("trp")
        if trp is not None and trp.reads_batches and training.batch_norm == "freeze":
            raise fault_at("batch_norm", f"the replicas of {trp.kind} do nothing where batch norms are in eval mode")
        return training


def sections_at(path: tuple[str | int, ...]) -> tuple[type[Section], ...]:
    """Return the section class at `path` (empty: the recipe itself): none, or several where it is one of them."""
    if not path:
        return (Recipe,)
    found: dict[type[Section], None] = {}
    for field in fields_at(path):
        union = union_of(field)
        options = union.sections().values() if union else (field.annotation,)
        found |= dict.fromkeys(s for s in options if isinstance(s, type) and issubclass(s, Section))
    return tuple(found)


def fields_at(path: tuple[str | int, ...]) -> list[FieldInfo]:
    """Return the field at `path` in each of the sections that have it.

    After a number it is an entry of a list, if that is one of several sections.
    """
    name = path[-1]
    if isinstance(name, int):
        lists = [get_args(field.annotation) for field in fields_at(path[:-1])]
        entries = (FieldInfo.from_annotation(entry) for entry, *_ in filter(None, lists))
        return [entry for entry in entries if union_of(entry)]
    return [section.model_fields[name] for section in sections_at(path[:-1]) if name in section.model_fields]


def union_of(field: FieldInfo) -> OneOf | None:
    """Return what tells the sections apart that `field` may be one of; None for any other field."""
    return next((mark for mark in field.metadata if isinstance(mark, OneOf)), None)


def accepts(path: tuple[str | int, ...], kind: type) -> bool:
    """Return whether the field at `path` is of this type, or may be."""
    return any(kind in (field.annotation, *get_args(field.annotation)) for field in fields_at(path))


def listed(section: type[Section]) -> dict[str, str]:
    """Return what those keys of a section mean that stand for an entry of a list, as of the sources."""
    return {name: field.description for name, field in section.model_fields.items() if field.description}


def recipe_keys(path: tuple[str, ...] = ()) -> dict[str, str]:
    """Return what each dotted key below `path` means, in schema order, sections before their keys."""
    keys: dict[str, str] = {}
    told = [listed(section) | meanings(section) for section in sections_at(path)]
    for name in dict.fromkeys(name for section in sections_at(path) for name in section.model_fields):
        keys[".".join((*path, name))] = " ".join(dict.fromkeys(each[name] for each in told if name in each))
        keys |= recipe_keys((*path, name))
    return keys
