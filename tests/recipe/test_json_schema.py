"""The schema for editors accepts what the reader reads, and refuses what the reader calls an unknown key or value."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
import yaml

from spgsurgeon.errors import RecipeError
from spgsurgeon.recipe.json_schema import recipe_json_schema
from spgsurgeon.recipe.reading import read_recipe
from spgsurgeon.recipe.schema import recipe_keys
from spgsurgeon.recipe.shipped import shipped_recipes
from spgsurgeon.recipe.writing import dump_recipe
from spgsurgeon.replicas.kinds import kinds

SCHEMA = recipe_json_schema()


def faults(document: Any) -> list[str]:
    return [error.json_path for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(document)]


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", shipped_recipes())
def test_recipes_pass_as_they_are_written_and_with_all_their_defaults(name: str) -> None:
    assert faults(yaml.safe_load(shipped_recipes()[name].read_text())) == []
    for overrides in ([], ["trp={kind: none}"], ["trp={kind: depth}"]):
        assert faults(yaml.safe_load(dump_recipe(read_recipe(name, overrides)))) == []


# What both refuse and what both accept, beside the data that every recipe needs.
REFUSED = [
    "training: {epohcs: 3}",
    "training: {epochs: 0}",
    "training: {epochs: three}",
    "training: {optimizer: {lr: -1.0}}",
    "training: {schedule: {name: cosinus}}",
    "trp: {kind: dropuot}",
    "trp: {kind: dropout, rate: 1.5}",
    "trp: {kind: dropout, blocks: 2}",
    "trp: {blocks: 2}",
    "trp: {kind: depth, rate: 0.3}",
    "trp: {kind: fixed-dropout, blocks: 2}",
    "objective: {weights: [0.4, -0.2, 0.1]}",
    "compare: {arms: {long: {trp.replica: 5}}}",
    "nonsense: 1",
]
ACCEPTED = [
    "trp: {}",
    "trp: {rate: 0.3, blocks: null}",
    "trp: {kind: none, replicas: 3, rate: 0.3, blocks: 2}",
    "trp: {kind: fixed-dropout, replicas: 5, rate: 0.3}",
    "training: {ema: null, checkpoints: {minutes: null}}",
    "compare: {arms: {long: {trp.rate: 0.5}}}",
]


@pytest.mark.parametrize("text", REFUSED)
def test_what_the_reader_refuses_is_underlined(text: str, tmp_path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"data: {{source: digits}}\n{text}\n")
    with pytest.raises(RecipeError):
        read_recipe(path)
    assert len(faults(yaml.safe_load(path.read_text()))) == 1


@pytest.mark.parametrize("text", ACCEPTED)
def test_what_the_reader_accepts_is_not(text: str, tmp_path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"data: {{source: digits}}\n{text}\n")
    read_recipe(path)
    assert faults(yaml.safe_load(path.read_text())) == []


def test_data_is_required() -> None:
    assert faults({}) == ["$"]


def test_every_key_has_its_meaning() -> None:
    explained = {
        key
        for part in (SCHEMA, *SCHEMA["$defs"].values())
        for key, found in part["properties"].items()
        if found.get("description")
    }
    assert {key.rpartition(".")[2] for key in recipe_keys()} <= explained
    rates = {name: SCHEMA["$defs"][kind.__name__]["properties"].get("rate", {}) for name, kind in kinds().items()}
    assert rates["dropout"]["description"] != rates["fixed-dropout"]["description"]
