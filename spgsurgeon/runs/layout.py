"""What the files and folders in a run's folder are called. What lies in a checkpoint is in `checkpoint.layout`."""

from __future__ import annotations

from typing import Final

from spgsurgeon.checkpoint import RUN_BEST, RUN_RECIPE

RECIPE: Final = RUN_RECIPE
"""The resolved recipe, which marks a run."""
METRICS: Final = "metrics.jsonl"
"""A line for each epoch."""
EPISODES: Final = "episodes.jsonl"
"""How long each sample's episode was: a line of what the samples are, then one for each epoch; only if asked for."""
EVENTS: Final = "tensorboard"
ENVIRONMENT: Final = "environment.json"
"""What each start stands on, for people."""
UNREADABLE: Final = "unreadable.json"
"""The images that could not be read, and why."""
DATA_FILES: Final = "data-files.json.gz"
"""The states of all files of the data, by split; in a comparison's folder too."""
CHECKPOINTS: Final = "checkpoints"
BEST: Final = RUN_BEST
"""A link to one of the checkpoints, as the next one."""
LAST: Final = "last"
