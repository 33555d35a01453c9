"""Weights & Biases, offline unless WANDB_MODE says otherwise: `wandb sync` sends what was written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_STEP = "optimizer_step"


class WeightsAndBiases:
    """See `Tracker`. A resumed run keeps its id, which goes by the folder of the run."""

    def __init__(self, folder: Path, recipe: Mapping[str, Any]) -> None:
        self._folder, self._recipe = folder, recipe
        self._run: Any = None

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """See `Tracker`."""
        if self._run is None:
            self._run = self._open()
        self._run.log({**numbers, _STEP: step})

    def drop(self) -> None:
        """See `Tracker`."""

    def close(self) -> None:
        """See `Tracker`."""
        if self._run is not None:
            self._run.finish()
            self._run = None

    def _open(self) -> Any:
        import wandb

        identity = hashlib.sha256(str(self._folder.absolute()).encode()).hexdigest()[:16]
        mode: Any = os.environ.get("WANDB_MODE", "offline")
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "spgsurgeon"),
            name=self._folder.name,
            id=identity,
            config=dict(self._recipe),
            mode=mode,
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )
        run.define_metric("*", step_metric=_STEP)
        return run
