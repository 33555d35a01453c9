"""Reading a recipe: file and overrides to a validated `Recipe`, or one error that lists every fault."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from spgsurgeon.errors import RecipeError, UsageError, closest
from spgsurgeon.recipe.document import Document, KeyPath, apply_override, dotted, parse_document
from spgsurgeon.recipe.schema import Recipe, accepts, fields_at, recipe_keys, sections_at, union_of
from spgsurgeon.recipe.shipped import find_recipe
from spgsurgeon.recipe.syntax import LONGEST
from spgsurgeon.replicas import ReplicaKind
from spgsurgeon.replicas.kinds import kind_named, settings_of_others
from spgsurgeon.sections import OneOf

# What a value has to be, by pydantic's type of error; the braces are filled from the error's own context.
_ALLOWED = {
    "int_type": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "literal_error": "{expected}",
    "greater_than": "greater than {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than": "less than {lt:g}",
    "less_than_equal": "{le:g} or less",
    "finite_number": "a finite number",
    "string_too_short": "not empty",
}


def read_recipe(source: str | Path | None, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe in a YAML file (or of a shipped name) with `section.key=value` overrides laid over it.

    Without a source the overrides are all it says.

    Refuses unknown and duplicate keys and values out of range: one `RecipeError` lists every fault with its line or
    override. A file that is not there is a `UsageError`.
    """
    document = Document("the recipe")
    if source is not None:
        path = find_recipe(source)
        document = parse_document(_text(path), str(path))
    for override in overrides:
        apply_override(document, override)
    # After a syntax error there are no values, and what is missing from them would be noise.
    if document.values or not document.faults:
        try:
            recipe = Recipe.model_validate(document.values)
        except ValidationError as error:
            for details in error.errors():
                document.add_fault(*_fault(details))
    if document.faults:
        raise _recipe_error(document)
    return recipe


def replicas_of(kind: str, settings: Mapping[str, Any]) -> ReplicaKind:
    """Return replicas of a kind with these settings (None: the default), as a call or a command gives them.

    Raises UsageError for what a recipe's trp section would refuse, and for a setting of another kind at its default.
    """
    asked = kind_named(kind)
    idle = [key for key in settings_of_others(asked) if asked.leaves_out(key)]
    given = {key: value for key, value in settings.items() if value is not None and key not in idle}
    if foreign := [key for key in given if key not in asked.model_fields]:
        hint = f"these are {', '.join(key for key in asked.model_fields if key != 'kind')}"
        raise UsageError(f"{foreign[0]} is not a setting of {kind} replicas", hint=hint)
    try:
        return asked(**given)
    except ValidationError as error:
        faults = [_fault(details | {"loc": ("trp", kind, *details["loc"])}) for details in error.errors()]
        raise UsageError("; ".join(f"{path[-1]}: {what}" for path, what in faults)) from error


def read_settings(section: str, written: Sequence[str]) -> dict[str, Any]:
    """Return the values of KEY=VALUE in a section, written as in an override. Raises UsageError for another form."""
    document = Document(section)
    for text in written:
        apply_override(document, f"{section}.{text}")
    if document.faults:
        raise UsageError("; ".join(f"{place.name}: {what}" for place, what in document.faults))
    return dict(document.values.get(section, {}))


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8-sig") as file:
            return file.read(LONGEST + 1)
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text, so not a recipe", hint="name a YAML file") from error
    except OSError as error:
        raise UsageError(
            f"{path} can't be read: {error.strerror}", hint="check the path and its permissions"
        ) from error


def _recipe_error(document: Document) -> RecipeError:
    in_order = sorted(document.faults, key=lambda fault: fault[0].order)
    lines = [f"{place.name}: {what}" for place, what in in_order]
    hint = "`spgsurgeon recipes show NAME` prints a shipped recipe with every key"
    return RecipeError("\n".join(lines), hint=hint, faults=lines)


def _fault(details: ErrorDetails) -> tuple[KeyPath, str]:
    """Return where one pydantic error belongs and what it says in a recipe's words."""
    kind, context, value = details["type"], details.get("ctx", {}), details["input"]
    path, option = _without_names(tuple(key for key in details["loc"] if key != "[key]"))  # the mark of a mapping's key
    if kind == "extra_forbidden":
        return path, _unknown_key(path, option)
    if kind == "missing":
        return path, f"missing; it says: {recipe_keys().get('.'.join(map(str, path)), 'what is needed')}"
    if kind == "union_tag_invalid" and (union := _union_at(path)):
        *names, last = map(repr, union.sections())
        given = _spelled(value[union.by])
        return (*path, union.by), f"{given} is refused, it must be {', '.join(names)} or {last}"
    if kind in ("model_type", "union_tag_not_found"):
        keys = dict.fromkeys(key for section in sections_at(path) for key in section.model_fields)
        return path, f"{_spelled(value)} is not a section with keys {', '.join(keys)}"
    if kind == "conflict":
        return (*path, context["key"]), context["reason"]
    if kind == "value_error":
        return path, str(context["error"])
    if kind in _ALLOWED:
        return path, f"{_spelled(value)} is refused, it must be {_ALLOWED[kind].format(**context)}{_or_null(path)}"
    return path, f"{_spelled(value)} is refused: {details['msg']}"


def _without_names(loc: KeyPath) -> tuple[KeyPath, str | None]:
    """Return a key path, and which section it is in where that is one of several: pydantic puts the name between."""
    path: KeyPath = ()
    option, named = None, False
    for key in loc:
        if not named and _union_at(path):
            option, named = str(key), True
        else:
            path, named = (*path, key), False
    return path, option


def _union_at(path: KeyPath) -> OneOf | None:
    return next((union for field in fields_at(path) if (union := union_of(field))), None) if path else None


_KNOWN_ELSEWHERE = {
    "learning_rate": "training.optimizer.lr",
    "lr_head": "training.optimizer.head_lr",
    "num_epochs": "training.epochs",
    "max_epochs": "training.epochs",
    "amp": "training.precision",
    "fp16": "training.precision",
    "bf16": "training.precision",
    "mixed_precision": "training.precision",
    "num_workers": "data.workers",
    "img_size": "data.image_size",
    "val_batch_size": "training.eval_batch_size",
    "grad_clip": "training.gradient_clip",
    "clip_grad": "training.gradient_clip",
    "gradient_accumulation_steps": "training.accumulate",
    "smoothing": "objective.label_smoothing",
    "weight_decay_rate": "training.optimizer.weight_decay",
    "patience": "training.early_stopping.patience",
    "data_dir": "data.path",
    "dataset": "data.source",
    "lr_scheduler": "training.schedule.name",
    "scheduler": "training.schedule.name",
}
"""What keys that others have are called here."""
_OF_THE_MODEL = ("num_classes", "classes", "num_labels", "pretrained")


def _unknown_key(path: KeyPath, option: str | None) -> str:
    """Name the sections that do have such a key, else the nearest key of the same section."""
    *parents, key = path
    if key in _KNOWN_ELSEWHERE and _KNOWN_ELSEWHERE[str(key)] != ".".join(map(str, path)):
        return f"unknown key; it is called {_KNOWN_ELSEWHERE[str(key)]} here"
    if key in _OF_THE_MODEL and parents != ["data"]:
        return (
            "unknown key; the model's classes go by its head: --num-classes N, or new_head: true for those of the data"
        )
    union, sections = _union_at(tuple(parents)), sections_at(tuple(parents))
    if union and option and (others := [n for n, s in union.sections().items() if key in s.model_fields]):
        foreign = f"{key} is not a setting of {option} replicas but of {', '.join(others)}"
        if any(isinstance(part, int) for part in parents):  # no override reaches an entry of a list
            return foreign
        whole = f"to change the {union.by}, replace the section: {dotted(tuple(parents))}={{{union.by}: {option}}}"
        return f"{foreign}; {whole}"
    own = [union.sections()[option]] if union and option else sections
    elsewhere = [known for known in recipe_keys() if known.rpartition(".")[2] == key]
    near = elsewhere or closest(str(key), [name for section in own for name in section.model_fields], count=1)
    return f"unknown key, did you mean {' or '.join(map(repr, near))}?" if near else "unknown key"


def _or_null(path: KeyPath) -> str:
    return " (or null)" if accepts(path, type(None)) else ""


def _spelled(value: Any) -> str:
    """Return a value as YAML would spell it, shortened."""
    text = repr(value) if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
