"""Where replicas of depth attach, and of what blocks they are made; what they are known for is in `families.py`.

Shapes: D = width of the hidden state that leaves the last stage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spgsurgeon.errors import ArchitectureError
from spgsurgeon.models.sites.families import Family, residual_blocks
from spgsurgeon.models.sites.heads import DepthSite
from spgsurgeon.models.sites.segmentation import is_segmentation_model
from spgsurgeon.models.sites.tracing import meta_twin, run_twin, shape_of
from spgsurgeon.models.sites.transformers_depth import find_transformers_depth_site
from spgsurgeon.models.sites.transformers_sites import is_of_transformers

_LAYERS_OUTSIDE_BLOCKS = 2  # the first convolution and the classifier, as the names of ResNets count
_BOTTLENECK_LAYERS = 3


def find_depth_site(model: nn.Module, example: Tensor) -> DepthSite:
    """Return where replicas of depth attach to `model`: at the output of the last stage of an image classifier.

    Of a model of transformers it is that of the last layer: see `find_transformers_depth_site`. Else it is that of the
    last residual block: what holds the block may be passed over, as by timm's checkpointing. Its width, and what
    follows it, are seen in one pass on the meta device on images of the size and type of `example` [N, channels, H, W].
    Raises ArchitectureError, naming the families that work, for others.
    """
    if is_of_transformers(model):
        return find_transformers_depth_site(model)
    if is_segmentation_model(model):
        raise ArchitectureError(f"replicas of depth are for classifiers, not for a {type(model).__name__}")
    family, blocks = residual_blocks(model)
    template, block = list(blocks.items())[-1]
    last = _ends(family, template, block)
    calls = _calls(model, example)
    place = next(index for index, call in enumerate(calls) if call.path == template)
    call = calls[place]
    if family.block not in CONVOLUTIONAL_PARAMETERS and call.entered != call.left:
        raise ArchitectureError(
            f"replicas of depth can't be made of the block at {template!r}: {list(call.entered[1:])} enters it and "
            f"{list(call.left[1:])} leaves it, so it can't follow itself"
        )
    width = call.left[-1 if family.channels_last else 1]
    in_layers = family.in_layers
    return DepthSite(
        module=template,
        width=width,
        family=family.name,
        block=family.block,
        blocks=_default_blocks(list(blocks.values())) if in_layers else 1,
        block_parameters=_block_parameters(family.block, width, block),
        depth=_layers(list(blocks.values())) if in_layers else len(blocks),
        block_depth=_BOTTLENECK_LAYERS if in_layers else 1,
        unit="layers" if in_layers else "blocks",
        last=last,
        scales=family.scales,
        activated=family.activated,
        normalisations=tuple(c.path for c in calls[place + 1 :] if isinstance(model.get_submodule(c.path), _BatchNorm)),
    )


def _ends(family: Family, path: str, block: nn.Module) -> tuple[str, ...]:
    """Return the paths in `block`, which is at `path`, of what ends its residual branches, one of each of `last`."""
    parts = {name for name, part in block.named_modules() if any(True for _ in part.parameters())}
    choices = [(one,) if isinstance(one, str) else one for one in family.last]
    found = [next((name for name in some if name in parts), None) for some in choices]
    missing = [" or ".join(some) for some, name in zip(choices, found, strict=True) if name is None]
    if missing:
        raise ArchitectureError(
            f"replicas of depth can't be made of the block at {path!r}, a {type(block).__name__} without "
            + " and ".join(missing)
        )
    return tuple(name for name in found if name is not None)


@dataclass(frozen=True)
class _Call:
    """A call of the submodule at `path`, with the shapes of what entered it and of what left it."""

    path: str
    entered: tuple[int, ...]
    left: tuple[int, ...]


def _calls(model: nn.Module, example: Tensor) -> list[_Call]:
    """Return each call of a submodule in one pass, in the order in which they ended."""
    twin = meta_twin(model)
    calls: list[_Call] = []

    def note(path: str) -> Callable[..., None]:
        return lambda module, inputs, output: calls.append(_Call(path, shape_of(*inputs[:1]), shape_of(output)))

    for path, part in twin.named_modules():
        part.register_forward_hook(note(path))
    run_twin(twin, example)
    return calls


def _default_blocks(blocks: list[nn.Module]) -> int:
    """Return how many bottlenecks a replica of a ResNet has, as table 4 of arXiv 2506.15051: 3, 2, 1 for 18, 34, 50."""
    if _layers_of(blocks[-1]) == _BOTTLENECK_LAYERS:
        return 1
    return 3 if len(blocks) <= 8 else 2


def _layers(blocks: list[nn.Module]) -> int:
    return _LAYERS_OUTSIDE_BLOCKS + sum(_layers_of(block) for block in blocks)


def _layers_of(block: nn.Module) -> int:
    return 2 if getattr(block, "expansion", 1) == 1 else _BOTTLENECK_LAYERS


def _block_parameters(kind: str, width: int, template: nn.Module) -> int:
    """Return how many parameters one new block has."""
    if kind in CONVOLUTIONAL_PARAMETERS:
        return CONVOLUTIONAL_PARAMETERS[kind](width)
    return sum(parameter.numel() for parameter in template.parameters())


def _bottleneck_parameters(width: int) -> int:
    inner = max(width // 4, 1)
    return 2 * width * inner + 9 * inner**2 + 2 * (2 * inner + width)


def _inverted_residual_parameters(width: int) -> int:
    inner = 6 * width
    return 2 * width * inner + 9 * inner + 2 * (2 * inner + width)


CONVOLUTIONAL_PARAMETERS: dict[str, Callable[[int], int]] = {
    "bottleneck": _bottleneck_parameters,
    "inverted-residual": _inverted_residual_parameters,
}
"""Number of parameters of a block of convolutions by its width, normalisations included."""
