"""What the files in a model's folder are called. Those of a run are in `runs.layout`, but for what marks one."""

from __future__ import annotations

from typing import Final

MANIFEST: Final = "graft.json"
CONFIG: Final = "config.json"
"""What the model is, as on the Hub; also beside stripped weights."""
WEIGHTS: Final = "model.safetensors"
"""The base's own state dict."""
TEMPORARY: Final = "temporary.safetensors"
"""The state dict of the replicas."""

# In a run's checkpoint, which is a grafted folder, there are besides:
STATE: Final = "state.json"
AVERAGE: Final = "ema.safetensors"
OPTIMIZER: Final = "optimizer.safetensors"

# What a run is recognised by, and where its model is:
RUN_RECIPE: Final = "recipe.yaml"
RUN_BEST: Final = "best"
