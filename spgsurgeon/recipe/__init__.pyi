from .data_section import HOLDOUT, AugmentSection, DataSection, known_mask_values, known_range
from .differences import differing
from .reading import read_recipe, read_settings, replicas_of
from .schema import Recipe
from .shipped import find_recipe, find_shipped, shipped_recipes
from .training_section import CheckpointSection, OptimizerSection, ScheduleSection, TrainingSection
from .writing import dump_recipe

__all__ = [
    "HOLDOUT",
    "AugmentSection",
    "CheckpointSection",
    "DataSection",
    "OptimizerSection",
    "Recipe",
    "ScheduleSection",
    "TrainingSection",
    "differing",
    "dump_recipe",
    "find_recipe",
    "find_shipped",
    "known_mask_values",
    "known_range",
    "read_recipe",
    "read_settings",
    "replicas_of",
    "shipped_recipes",
]
