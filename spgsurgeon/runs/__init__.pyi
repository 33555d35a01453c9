from .basis import NO_ORIGINAL, Basis, basis_of, basis_of_counters
from .checkpoints import last_of, newest_intact, recipe_of, run_of
from .data_records import write_files
from .episode_log import EPISODE_LENGTHS, Episodes, SampleRecord, least_accepted, read_episodes
from .folder import Checkpoint, RunFolder, own_run
from .layout import DATA_FILES, METRICS, RECIPE
from .raising import EPOCHS, check_epochs
from .reading import check_is_run, read_run
from .records import (
    Count,
    EpochRecord,
    RunRecord,
    ShownPicture,
    epoch_name,
    in_words,
    length_labels,
    read_epochs,
    step_labels,
)
from .resuming import FREE_KEYS, check_data, check_run, differences, records_of, stands_on, summaries
from .saving import CheckpointSaver
from .state_document import Scored, check_run_state, read_run_state
from .trackers import trackers_of
from .trackers.event_files import add_hyperparameters

__all__ = [
    "DATA_FILES",
    "EPISODE_LENGTHS",
    "EPOCHS",
    "FREE_KEYS",
    "METRICS",
    "NO_ORIGINAL",
    "RECIPE",
    "Basis",
    "Checkpoint",
    "CheckpointSaver",
    "Count",
    "Episodes",
    "EpochRecord",
    "RunFolder",
    "RunRecord",
    "SampleRecord",
    "Scored",
    "ShownPicture",
    "add_hyperparameters",
    "basis_of",
    "basis_of_counters",
    "check_data",
    "check_epochs",
    "check_is_run",
    "check_run",
    "check_run_state",
    "differences",
    "epoch_name",
    "in_words",
    "last_of",
    "least_accepted",
    "length_labels",
    "newest_intact",
    "own_run",
    "read_episodes",
    "read_epochs",
    "read_run",
    "read_run_state",
    "recipe_of",
    "records_of",
    "run_of",
    "stands_on",
    "step_labels",
    "summaries",
    "trackers_of",
    "write_files",
]
