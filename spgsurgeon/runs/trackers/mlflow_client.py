"""MLflow, into the folder ./mlruns unless MLFLOW_TRACKING_URI names another place."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_FOLDER, _TAG = "mlruns", "spgsurgeon.run"


class MlflowClientTracker:
    """See `Tracker`. A resumed run is found by a tag that holds its folder."""

    def __init__(self, folder: Path, recipe: Mapping[str, Any]) -> None:
        self._folder, self._recipe = folder, recipe
        self._client: Any = None
        self._run_id = ""

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """See `Tracker`."""
        from mlflow.entities import Metric

        if self._client is None:
            self._open()
        now = int(time.time() * 1000)
        self._client.log_batch(self._run_id, [Metric(tag, value, now, step) for tag, value in numbers.items()])

    def drop(self) -> None:
        """See `Tracker`."""

    def close(self) -> None:
        """See `Tracker`."""
        if self._client is not None:
            self._client.set_terminated(self._run_id)
            self._client = None

    def _open(self) -> None:
        from mlflow import MlflowClient

        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if uri is None:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # files need no database
            uri = Path(_FOLDER).absolute().as_uri()
        client = MlflowClient(tracking_uri=uri)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "spgsurgeon")
        experiment = client.get_experiment_by_name(name)
        identity = experiment.experiment_id if experiment else client.create_experiment(name)
        place = str(self._folder.absolute())
        earlier = [run for run in client.search_runs([identity]) if run.data.tags.get(_TAG) == place]
        run = earlier[0] if earlier else client.create_run(identity, run_name=self._folder.name, tags={_TAG: place})
        self._client, self._run_id = client, run.info.run_id
        if not earlier:
            for key, value in _flat(self._recipe).items():
                client.log_param(self._run_id, key, str(value)[:500])


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found
