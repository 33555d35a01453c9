from .checkpoints import last_of, newest_intact, recipe_of, run_of
from .data_records import write_files
from .folder import Checkpoint, RunFolder, own_run
from .layout import DATA_FILES, METRICS, RECIPE
from .reading import check_is_run, read_run
from .records import Count, EpochRecord, RunRecord, ShownPicture, in_words, read_epochs, step_labels
from .resuming import FREE_KEYS, check_data, check_run, differences, records_of, stands_on, summaries
from .saving import CheckpointSaver
from .state_document import Scored, check_run_state, read_run_state

__all__ = [
    "DATA_FILES",
    "FREE_KEYS",
    "METRICS",
    "RECIPE",
    "Checkpoint",
    "CheckpointSaver",
    "Count",
    "EpochRecord",
    "RunFolder",
    "RunRecord",
    "Scored",
    "ShownPicture",
    "check_data",
    "check_is_run",
    "check_run",
    "check_run_state",
    "differences",
    "in_words",
    "last_of",
    "newest_intact",
    "own_run",
    "read_epochs",
    "read_run",
    "read_run_state",
    "recipe_of",
    "records_of",
    "run_of",
    "stands_on",
    "step_labels",
    "summaries",
    "write_files",
]
