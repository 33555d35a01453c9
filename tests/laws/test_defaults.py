"""A default is the same wherever it is said: in a Python call, in the recipe, on the command line, in its help."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest

import spgsurgeon as package
from spgsurgeon.commands.compare import compare
from spgsurgeon.commands.demo import demo
from spgsurgeon.commands.diff import diff
from spgsurgeon.commands.evaluating.request import EvaluationRequest
from spgsurgeon.commands.graft import graft_folder
from spgsurgeon.commands.report import report
from spgsurgeon.commands.strip import strip_folder
from spgsurgeon.comparing.arguments import Arguments
from spgsurgeon.recipe.schema import ObjectiveSection, Recipe
from spgsurgeon.replicas.kinds import kinds

CALLS: dict[str, Callable[..., Any]] = {
    "bench": package.bench,
    "compare": compare,
    "demo": demo,
    "diff": diff,
    "evaluate": EvaluationRequest,
    "graft": graft_folder,
    "inspect": package.inspect,
    "report": report,
    "strip": strip_folder,
    "train": package.train,
}
"""What the verbs call, by their module in `cli`."""


def command_of(verb: str) -> Callable[..., Any]:
    command: Callable[..., Any] = import_module(f"spgsurgeon.cli.{verb}").command
    return command


def defaults(call: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(call).parameters.values()
    return {each.name: each.default for each in parameters if each.default is not each.empty}


def said(value: Any) -> str:
    """Return a default as a help text spells it."""
    return (
        ",".join(f"{each:g}" if isinstance(each, float) else str(each) for each in value)
        if isinstance(value, tuple)
        else str(value)
    )


def helps(command: Callable[..., Any]) -> dict[str, str]:
    """Return the defaults that the help texts of a command speak of, by parameter."""
    found = {}
    for each in inspect.signature(command, eval_str=True).parameters.values():
        text = getattr(each.annotation, "__metadata__", [None])[0]
        if match := re.search(r"\[default: (.*)\]", getattr(text, "help", None) or ""):
            found[each.name] = match[1]
    return found


@pytest.mark.parametrize("verb", CALLS)
def test_a_verb_and_what_it_calls_have_the_same_defaults(verb: str) -> None:
    command, call = defaults(command_of(verb)), defaults(CALLS[verb])
    shared = command.keys() & call.keys()
    differing = {name: (command[name], call[name]) for name in shared if command[name] != call[name]}
    given = {name: pair for name, pair in differing.items() if pair[0] is not None and said(pair[1]) != pair[0]}
    left = {name: pair for name, pair in differing.items() if pair[0] is None and pair[1] not in (None, (), False)}
    assert (given, left) == ({}, {})
    assert shared


def test_the_loss_has_the_defaults_of_the_recipe() -> None:
    loss, section = defaults(package.spg_loss), ObjectiveSection()
    fields = section.model_dump()
    assert fields.pop("r_drop") == 0  # of a control, which the loss knows nothing of
    assert {key: loss[key] for key in fields} == fields


def test_graft_has_the_defaults_of_the_recipe() -> None:
    recipe, graft = Recipe.model_validate({"data": {"source": "digits"}}), defaults(package.graft)
    assert graft == {"trp": recipe.trp.kind, "head_batch": recipe.trp.head_mode, "site": None, "example": None}
    assert defaults(command_of("graft"))["trp"] == recipe.trp.kind


def test_the_help_of_graft_says_the_defaults_of_the_kinds() -> None:
    told = helps(command_of("graft"))
    assert told.keys() == {"replicas", "rate", "init"}
    for kind in kinds().values():
        own = {name: field.default for name, field in kind.model_fields.items() if name in told}
        assert {name: str(value) for name, value in own.items()} == {name: told[name] for name in own}


def test_the_help_of_compare_says_the_defaults_of_a_new_comparison() -> None:
    told = helps(command_of("compare"))
    assert told == {name: said(getattr(Arguments(), name)) for name in told}
    assert told.keys() == {"arms", "seeds", "learning_rates", "budget"}


def test_no_other_help_speaks_of_a_default_by_itself() -> None:
    others = [verb for verb in CALLS if verb not in ("graft", "compare") and helps(command_of(verb))]
    assert others == []
