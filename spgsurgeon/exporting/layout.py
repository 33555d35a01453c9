"""What the files of a stripped model are called."""

from __future__ import annotations

from typing import Final

from spgsurgeon.checkpoint import WEIGHTS

ONNX: Final = "model.onnx"
PT: Final = "model.pt"
CARD: Final = "README.md"
FILES: Final = {"safetensors": WEIGHTS, "pt": PT, "onnx": ONNX}
"""The file with the weights, by format."""
