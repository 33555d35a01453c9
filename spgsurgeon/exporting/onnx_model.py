"""An ONNX file as a module: ONNX Runtime computes it on the CPU. It has no parameters, so it can only be scored.

Shapes: N samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spgsurgeon.errors import DamagedFileError, SurgeonError, UsageError
from spgsurgeon.exporting.agreement import reason
from spgsurgeon.exporting.session import onnx_session
from spgsurgeon.models import IMAGES
from spgsurgeon.runtime import require

_DTYPES = {
    "tensor(float)": torch.float32,
    "tensor(float16)": torch.float16,
    "tensor(double)": torch.float64,
    "tensor(int64)": torch.int64,
    "tensor(int32)": torch.int32,
}


class OnnxModel(nn.Module):
    """The graph in a file. `metadata` is what the file says of itself, text by key."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._session = _session_of(path)
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        self._inputs = {value.name: value for value in self._session.get_inputs()}
        self._outputs = {value.name: list(value.shape) for value in self._session.get_outputs()}

    @property
    def classes(self) -> int:
        """How many classes the first output has: the size that is fixed, in second place or else the last; else 1."""
        sizes = next(iter(self._outputs.values()))[1:]
        return next((size for size in (*sizes[:1], *sizes[-1:]) if isinstance(size, int)), 1)

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width of the images that it takes, if these are fixed; None for others, and other inputs."""
        shape = next(iter(self._inputs.values())).shape
        sides = shape[2:] if len(shape) == 4 else []
        return (sides[0], sides[1]) if sides and all(isinstance(side, int) for side in sides) else None

    def forward(self, *images: Tensor, **inputs: Tensor) -> dict[str, Tensor]:
        """Return the outputs by their names, float32 [N, ...], where the inputs are.

        Images go to the graph's only input, whatever its name; others to those of their names.
        """
        given = {self._image_input(): images[0]} if images else inputs
        if given.keys() != self._inputs.keys():
            raise UsageError(
                f"{self.path} takes {', '.join(self._inputs)}, and gets {', '.join(given)}",
                hint="its inputs must be those of the model's tokenizer",
            )
        device = next(iter(given.values())).device
        parts = [self._run(part) for part in self._parts(given)]
        return {name: torch.cat([part[name] for part in parts]).float().to(device) for name in self._outputs}

    def _image_input(self) -> str:
        return IMAGES if IMAGES in self._inputs else next(iter(self._inputs))

    def _parts(self, given: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """Return the batch in parts of the size that the graph fixes it to, if it does."""
        size, count = next(iter(self._inputs.values())).shape[0], len(next(iter(given.values())))
        most = size if isinstance(size, int) else count
        cut = {name: value.split(most) for name, value in given.items()}
        return [{name: cut[name][part] for name in given} for part in range(math.ceil(count / most))]

    def _run(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the outputs for one part, which is filled up to a size that the graph fixes."""
        feeds = {name: self._filled(name, value).numpy() for name, value in given.items()}
        count = len(next(iter(given.values())))
        try:
            found = self._session.run(list(self._outputs), feeds)
        except Exception as error:
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in given.items())
            raise SurgeonError(
                f"ONNX Runtime can't compute {self.path} on {shapes}: {reason(error)}", hint="is this what it takes?"
            ) from error
        return {name: torch.from_numpy(value)[:count] for name, value in zip(self._outputs, found, strict=True)}

    def _filled(self, name: str, value: Tensor) -> Tensor:
        size, dtype = self._inputs[name].shape[0], _DTYPES.get(self._inputs[name].type)
        value = value.detach().cpu().to(dtype or value.dtype)
        missing = size - len(value) if isinstance(size, int) else 0
        return torch.cat([value, value.new_zeros(missing, *value.shape[1:])]) if missing else value


def _session_of(path: Path) -> Any:
    require("onnx", "an ONNX file")
    try:
        return onnx_session(path)
    except Exception as error:
        raise DamagedFileError(f"ONNX Runtime can't read {path}: {reason(error)}", hint="export it again") from error
