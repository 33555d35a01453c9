"""Who else is told the numbers of a run: each tracker a file, and its package an extra.

Numbers go by their tags, each with the optimizer step that it is of. Trackers that could send anything are offline
unless their own environment variables say otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from spgsurgeon.runtime import missing, require

TRACKERS = {
    "tensorboard": "event_files:EventFiles",
    "wandb": "weights_and_biases:WeightsAndBiases",
    "mlflow": "mlflow_client:MlflowClientTracker",
    "trackio": "trackio_run:TrackioRun",
}


class Tracker(Protocol):
    """Who is told numbers. May be called from one thread after another."""

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Take the numbers of this step; raises OSError if they can't be written."""

    def drop(self) -> None:
        """Forget what is open, after a failure; the next numbers open it anew."""

    def close(self) -> None:
        """Write what is left."""


def trackers_of(loggers: Sequence[str] | None, folder: Path, recipe: Mapping[str, Any]) -> list[Tracker]:
    """Return the trackers of a run in `folder`; None means TensorBoard's, if that is installed.

    Raises UsageError for one whose package is not installed.
    """
    if loggers is None:
        loggers = [] if missing("tensorboard") else ["tensorboard"]
    for name in loggers:
        require(name, f"training.loggers: {name}")
    return [_class(name)(folder, recipe) for name in dict.fromkeys(loggers)]


def _class(name: str) -> Any:
    module, _, tracker = TRACKERS[name].partition(":")
    return getattr(import_module(f"{__name__}.{module}"), tracker)
