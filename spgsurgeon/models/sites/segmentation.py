"""Where dropout replicas attach in a segmentation model of torchvision: before its heads, which are shared whole.

Shapes: D = width of a map [N, D, h, w] that the backbone gives; C = number of classes. `classifier` makes the output
`out`, `aux_classifier`, where there is one, the output `aux`; LR-ASPP's classifier reads two maps by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from spgsurgeon.errors import ArchitectureError
from spgsurgeon.models.sites.heads import Site
from spgsurgeon.models.sites.tracing import meta_twin, run_twin

_MODELS = (
    "torchvision.models.segmentation._utils._SimpleSegmentationModel",
    "torchvision.models.segmentation.lraspp.LRASPP",
)
_HEADS = ("classifier", "aux_classifier")


def is_segmentation_model(model: nn.Module) -> bool:
    """Return whether `model` is one of torchvision's segmentation models, or of a class made of them."""
    return any(f"{kind.__module__}.{kind.__qualname__}" in _MODELS for kind in type(model).__mro__)


def find_segmentation_sites(model: nn.Module, example: Tensor) -> tuple[Site, ...]:
    """Return the maps that enter the heads of `model`, that of inference first, by one pass on the meta device.

    Of `example` [N, channels, H, W] only the size and type matter. Raises ArchitectureError if the model can't take
    such images.
    """
    twin = meta_twin(model)
    entered: dict[str, Any] = {}

    def note(path: str) -> Callable[..., None]:
        return lambda head, inputs: entered.update({path: inputs[0]})

    heads = {path: part for path in _HEADS if (part := getattr(twin, path, None)) is not None}
    for path, head in heads.items():
        head.register_forward_pre_hook(note(path))
    output = run_twin(twin, example)
    if not isinstance(output, Mapping) or "out" not in output or entered.keys() != heads.keys():
        raise ArchitectureError(f"the {type(model).__name__} is not a segmentation model as torchvision's are")
    classes = int(output["out"].shape[1])
    sites = []
    for path, head in heads.items():
        hidden = entered[path]
        maps = hidden if isinstance(hidden, Mapping) else {None: hidden}
        sites += [Site(path, type(head).__name__, int(m.shape[1]), classes, key=key) for key, m in maps.items()]
    return tuple(sites)
