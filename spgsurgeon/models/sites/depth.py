"""Where replicas of depth attach, and of what blocks they are made: one entry a family, in `FAMILIES`.

Shapes: D = width of the hidden state that leaves the last stage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spgsurgeon.errors import ArchitectureError
from spgsurgeon.models.sites.heads import DepthSite
from spgsurgeon.models.sites.segmentation import is_segmentation_model
from spgsurgeon.models.sites.tracing import meta_twin, run_twin

_LAYERS_OUTSIDE_BLOCKS = 2  # the first convolution and the classifier, as the names of ResNets count
_BOTTLENECK_LAYERS = 3


@dataclass(frozen=True)
class Family:
    """What is to be known of a family of architectures to make it deeper.

    `models` are its classes, `residual_blocks` those of its blocks, of which the last is where depth is added. `block`
    is what replicas append; where that is a new block of the base's own kind, `last` are the paths in it of what ends
    its residual branches, and `scales` of what scales them. `channels_last`: D is the last dimension.
    """

    name: str
    models: tuple[str, ...]
    residual_blocks: tuple[str, ...]
    block: str
    last: tuple[str, ...] = ()
    scales: tuple[str, ...] = ()
    channels_last: bool = False


def find_depth_site(model: nn.Module, example: Tensor) -> DepthSite:
    """Return where replicas of depth attach to `model`, an image classifier: at the output of its last stage.

    That is the output of the last residual block: what holds the block may be passed over, as by timm's checkpointing.
    Its width, and what follows it, are seen in one pass on the meta device on images of the size and type of
    `example` [N, channels, H, W]. Raises ArchitectureError, naming the families that work, for others.
    """
    if is_segmentation_model(model):
        raise ArchitectureError(f"replicas of depth are for classifiers, not for a {type(model).__name__}")
    family, blocks = residual_blocks(model)
    template, block = list(blocks.items())[-1]
    if missing := [name for name in family.last if name not in dict(block.named_modules())]:
        raise ArchitectureError(
            f"replicas of depth can't be made of the block at {template!r}, a {type(block).__name__} without "
            + " and ".join(missing)
        )
    calls = _calls(model, example)
    place = next(index for index, (path, _) in enumerate(calls) if path == template)
    hidden = calls[place][1]
    width = int(hidden.shape[-1 if family.channels_last else 1])
    in_layers = family.block == "bottleneck"
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
        last=family.last,
        scales=family.scales,
        activated=in_layers,
        normalisations=tuple(p for p, _ in calls[place + 1 :] if isinstance(model.get_submodule(p), _BatchNorm)),
    )


def residual_blocks(model: nn.Module) -> tuple[Family, dict[str, nn.Module]]:
    """Return the family, and the residual blocks by their paths. Raises ArchitectureError for other models."""
    for family in FAMILIES:
        if _is_one_of(model, family.models):
            blocks = {path: part for path, part in model.named_modules() if _is_one_of(part, family.residual_blocks)}
            if blocks:
                return family, blocks
    raise _unsupported(model)


def _unsupported(model: nn.Module) -> ArchitectureError:
    names = ", ".join(dict.fromkeys(family.name for family in FAMILIES))
    blocks = " with blocks of its kind" if any(_is_one_of(model, family.models) for family in FAMILIES) else ""
    return ArchitectureError(
        f"replicas of residual blocks are not known for a {type(model).__name__}{blocks}",
        hint=f"they are for {names}",
    )


def _is_one_of(module: nn.Module, classes: tuple[str, ...]) -> bool:
    """Return whether `module` is an instance of one of the dotted names, which are not imported for that."""
    return any(f"{kind.__module__}.{kind.__qualname__}" in classes for kind in type(module).__mro__)


def _calls(model: nn.Module, example: Tensor) -> list[tuple[str, Any]]:
    """Return each call of a submodule in one pass, by path, with its output, in the order in which they ended."""
    twin = meta_twin(model)
    calls: list[tuple[str, Any]] = []

    def note(path: str) -> Callable[..., None]:
        return lambda module, inputs, output: calls.append((path, output))

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

FAMILIES = (
    Family(
        "ResNet",
        ("timm.models.resnet.ResNet", "torchvision.models.resnet.ResNet"),
        (
            "timm.models.resnet.BasicBlock",
            "timm.models.resnet.Bottleneck",
            "timm.models.res2net.Bottle2neck",
            "timm.models.resnest.ResNestBottleneck",
            "timm.models.sknet.SelectiveKernelBasic",
            "timm.models.sknet.SelectiveKernelBottleneck",
            "torchvision.models.resnet.BasicBlock",
            "torchvision.models.resnet.Bottleneck",
        ),
        "bottleneck",
    ),
    Family(
        "MobileNet",
        (
            "timm.models.mobilenetv3.MobileNetV3",
            "torchvision.models.mobilenetv2.MobileNetV2",
            "torchvision.models.mobilenetv3.MobileNetV3",
        ),
        (
            "timm.models._efficientnet_blocks.DepthwiseSeparableConv",
            "timm.models._efficientnet_blocks.InvertedResidual",
            "timm.models._efficientnet_blocks.UniversalInvertedResidual",
            "torchvision.models.mobilenetv2.InvertedResidual",
            "torchvision.models.mobilenetv3.InvertedResidual",
        ),
        "inverted-residual",
    ),
    Family(
        "EfficientNet",  # timm's MobileNetV2 is one too
        ("timm.models.efficientnet.EfficientNet", "torchvision.models.efficientnet.EfficientNet"),
        (
            "timm.models._efficientnet_blocks.EdgeResidual",
            "timm.models._efficientnet_blocks.DepthwiseSeparableConv",
            "timm.models._efficientnet_blocks.InvertedResidual",
            "torchvision.models.efficientnet.FusedMBConv",
            "torchvision.models.efficientnet.MBConv",
        ),
        "inverted-residual",
    ),
    Family(
        "ViT",
        ("timm.models.vision_transformer.VisionTransformer",),
        ("timm.models.vision_transformer.Block",),
        "transformer",
        last=("attn.proj", "mlp.fc2"),
        scales=("ls1.gamma", "ls2.gamma"),
        channels_last=True,
    ),
    Family(
        "ViT",
        ("torchvision.models.vision_transformer.VisionTransformer",),
        ("torchvision.models.vision_transformer.EncoderBlock",),
        "transformer",
        last=("self_attention.out_proj", "mlp.3"),
        channels_last=True,
    ),
    Family(
        "ConvNeXt",
        ("timm.models.convnext.ConvNeXt",),
        ("timm.models.convnext.ConvNeXtBlock",),
        "convnext",
        last=("mlp.fc2",),
        scales=("gamma", "ls.gamma"),
    ),
    Family(
        "ConvNeXt",
        ("torchvision.models.convnext.ConvNeXt",),
        ("torchvision.models.convnext.CNBlock",),
        "convnext",
        last=("block.5",),
        scales=("layer_scale",),
    ),
    Family(
        "Swin",
        ("timm.models.swin_transformer.SwinTransformer",),
        ("timm.models.swin_transformer.SwinTransformerBlock",),
        "swin",
        last=("attn.proj", "mlp.fc2"),
        channels_last=True,
    ),
    Family(
        "Swin V2",
        ("timm.models.swin_transformer_v2.SwinTransformerV2",),
        ("timm.models.swin_transformer_v2.SwinTransformerV2Block",),
        "swin",
        last=("norm1", "norm2"),
        channels_last=True,
    ),
    Family(
        "Swin V2",
        ("torchvision.models.swin_transformer.SwinTransformer",),
        ("torchvision.models.swin_transformer.SwinTransformerBlockV2",),
        "swin",
        last=("norm1", "norm2"),
        channels_last=True,
    ),
    Family(
        "Swin",
        ("torchvision.models.swin_transformer.SwinTransformer",),
        ("torchvision.models.swin_transformer.SwinTransformerBlock",),
        "swin",
        last=("attn.proj", "mlp.3"),
        channels_last=True,
    ),
)
