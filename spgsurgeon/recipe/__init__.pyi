from .data_section import (
    HOLDOUT,
    AugmentSection,
    DataSection,
    LabelNoiseSection,
    known_class_map,
    known_mask_values,
    known_range,
)
from .differences import differing
from .explaining import explain_recipe
from .json_schema import SCHEMA_TITLE, recipe_json_schema
from .reading import read_recipe, read_settings, replicas_of
from .schema import ObjectiveSection, Recipe
from .shipped import find_recipe, find_shipped, shipped_recipes
from .start_sections import HeadStartSection
from .training_section import (
    CheckpointSection,
    EarlyStoppingSection,
    OptimizerSection,
    ScheduleSection,
    TrainingSection,
)
from .writing import dump_recipe

__all__ = [
    "HOLDOUT",
    "SCHEMA_TITLE",
    "AugmentSection",
    "CheckpointSection",
    "DataSection",
    "EarlyStoppingSection",
    "HeadStartSection",
    "LabelNoiseSection",
    "ObjectiveSection",
    "OptimizerSection",
    "Recipe",
    "ScheduleSection",
    "TrainingSection",
    "differing",
    "dump_recipe",
    "explain_recipe",
    "find_recipe",
    "find_shipped",
    "known_class_map",
    "known_mask_values",
    "known_range",
    "read_recipe",
    "read_settings",
    "recipe_json_schema",
    "replicas_of",
    "shipped_recipes",
]
