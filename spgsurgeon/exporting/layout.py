"""What the files of a stripped model are called."""

from __future__ import annotations

from typing import Final

from spgsurgeon.checkpoint import WEIGHTS

ONNX: Final = "model.onnx"
PT: Final = "model.pt"
PROGRAM: Final = "model.pt2"
CARD: Final = "README.md"
FILES: Final = {"safetensors": WEIGHTS, "pt": PT, "onnx": ONNX, "pt2": PROGRAM}
"""The file with the weights, by format."""
SUFFIXES: Final = {".safetensors": "safetensors", ".pt": "pt", ".pth": "pt", ".onnx": "onnx", ".pt2": "pt2"}
"""The format of a single file."""
GRAPHS: Final = ("onnx", "pt2")
"""Formats that hold a graph, for images of one size, and are compared with the model instead of read back."""
OPSETS: Final = range(18, 24)
"""Below 18 the exporter leaves the graph at 18 without an error (torchlib is written for 18); 23 is torch's maximum."""
