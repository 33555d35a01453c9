"""The JSON Schema of recipes, for editors: what they complete, explain and underline.

It accepts every recipe that is read, and refuses unknown keys, wrong types and values out of range. What several keys
must agree on, and which sources and devices there are, only `recipes check` knows.
"""

from __future__ import annotations

from typing import Any, cast

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from spgsurgeon.recipe.schema import Recipe, listed, recipe_keys
from spgsurgeon.replicas import ReplicaKind
from spgsurgeon.replicas.kinds import DEFAULT, settings_of_others
from spgsurgeon.sections import Section, meanings

SCHEMA_TITLE = "A recipe of spgsurgeon"


def recipe_json_schema() -> dict[str, Any]:
    """Return the schema as a JSON document of draft 2020-12."""
    schema = Recipe.model_json_schema(schema_generator=_WithMeanings)
    arm = schema["$defs"]["CompareSection"]["properties"]["arms"]["additionalProperties"]
    arm["propertyNames"] = {"enum": [key for key in recipe_keys() if key.partition(".")[0] != "compare"]}
    return {"$schema": GenerateJsonSchema.schema_dialect} | schema | {"title": SCHEMA_TITLE}


class _WithMeanings(GenerateJsonSchema):
    """Pydantic's schema, with what each key means and what else the reader lets pass."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        """Add the texts under the fields; see `GenerateJsonSchema`."""
        found = super().model_schema(schema)
        section = cast(type[Section], schema["cls"])
        properties = found["properties"]
        for name, meaning in (listed(section) | meanings(section)).items():
            properties[name]["description"] = " ".join(meaning.split())
        found["required"] = [name for name, field in section.model_fields.items() if field.is_required()]
        if issubclass(section, ReplicaKind):
            _tell_apart(section, found)
        return found

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Leave out titles that only repeat the key."""
        return False


def _tell_apart(kind: type[ReplicaKind], found: JsonSchemaValue) -> None:
    """Make each trp section match one kind alone, and let pass the idle keys of others, as the reader does."""
    if kind.model_fields["kind"].default != DEFAULT:
        found["required"] = ["kind"]
    for key, defaults in settings_of_others(kind).items():
        distinct = [default for number, default in enumerate(defaults) if default not in defaults[:number]]
        idle: dict[str, Any] = {} if kind.leaves_out(key) else {"enum": distinct}
        found["properties"][key] = idle | {"description": "Of another kind of replicas; it means nothing here."}
