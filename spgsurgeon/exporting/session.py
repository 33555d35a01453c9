"""ONNX Runtime on the CPU, silent: what is wrong arrives as exceptions."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def onnx_session(path: Path) -> Any:
    """Return what runs the ONNX file. Raises what ONNX Runtime does if it can't."""
    import onnxruntime  # here: its import already writes warnings to stderr on some machines

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal only
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
