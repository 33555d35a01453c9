"""Trackio, into its own folder on this machine (TRACKIO_DIR); `trackio show` draws what was written."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import AbstractContextManager, redirect_stdout
from pathlib import Path
from typing import Any


def _quietly() -> AbstractContextManager[Any]:
    """Keep from people's terminals how it may be looked at, which the guide says."""
    return redirect_stdout(io.StringIO())


class TrackioRun:
    """See `Tracker`. A resumed run goes by its folder's name."""

    def __init__(self, folder: Path, recipe: Mapping[str, Any]) -> None:
        self._folder, self._recipe = folder, recipe
        self._run: Any = None

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """See `Tracker`."""
        if self._run is None:
            self._run = self._open()
        self._run.log(dict(numbers), step=step)

    def drop(self) -> None:
        """See `Tracker`."""

    def close(self) -> None:
        """See `Tracker`."""
        if self._run is not None:
            import trackio

            with _quietly():
                try:
                    trackio.finish()  # of the thread that opened it; or it would be finished, aloud, at the exit too
                except RuntimeError:
                    self._run.finish()
            self._run = None

    def _open(self) -> Any:
        import trackio

        with _quietly():
            return trackio.init(
                project="spgsurgeon",
                name=self._folder.name,
                config=dict(self._recipe),
                resume="allow",
                embed=False,
            )
