"""The families that replicas of depth are known for, one entry each, and those that are refused with a reason."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from spgsurgeon.errors import ArchitectureError


@dataclass(frozen=True)
class Family:
    """What is to be known of a family of architectures to make it deeper.

    `models` are its classes, `residual_blocks` those of its blocks, of which the last is where depth is added; if
    `ending` is given, that one is of these. `skippable`: what leaves the last one is what entered it, with something
    added. `block` is what replicas append; if that is a new block of the base's own kind, `last` are the paths in it
    of what ends its residual branches (of several the first that has weights), and `scales` of what scales them.
    `in_layers`: depth counts layers with weights, not blocks. `activated`: blocks end in an activation.
    `channels_last`: D is the last dimension.
    """

    name: str
    models: tuple[str, ...]
    residual_blocks: tuple[str, ...]
    block: str
    last: tuple[str | tuple[str, ...], ...] = ()
    scales: tuple[str, ...] = ()
    ending: tuple[str, ...] = ()
    in_layers: bool = False
    activated: bool = False
    channels_last: bool = False
    skippable: bool = True


def residual_blocks(model: nn.Module) -> tuple[Family, dict[str, nn.Module]]:
    """Return the family, and the residual blocks by their paths. Raises ArchitectureError for other models."""
    for family in FAMILIES:
        if _is_one_of(model, family.models):
            blocks = {path: part for path, part in model.named_modules() if _is_one_of(part, family.residual_blocks)}
            if blocks and (not family.ending or _is_one_of(list(blocks.values())[-1], family.ending)):
                return family, blocks
    raise _unsupported(model)


def _unsupported(model: nn.Module) -> ArchitectureError:
    reason = next((reason for kinds, reason in REFUSED.items() if _is_one_of(model, kinds)), "")
    names = ", ".join(dict.fromkeys(family.name for family in FAMILIES))
    blocks = " with blocks of its kind" if any(_is_one_of(model, family.models) for family in FAMILIES) else ""
    return ArchitectureError(
        f"replicas of residual blocks are not known for a {type(model).__name__}{blocks}{reason and ': ' + reason}",
        hint=f"they are for {names}",
    )


def _is_one_of(module: nn.Module, classes: tuple[str, ...]) -> bool:
    """Return whether `module` is an instance of one of the dotted names, which are not imported for that."""
    return any(f"{kind.__module__}.{kind.__qualname__}" in classes for kind in type(module).__mro__)


REFUSED = {
    ("timm.models.densenet.DenseNet", "torchvision.models.densenet.DenseNet"): (
        "its layers add no residual to what they read, they put further channels beside it, so one more would change "
        "the width that the classifier reads"
    ),
}
"""Why there can't be such replicas, by the classes of models that might be thought to have them."""

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
        in_layers=True,
        activated=True,
    ),
    Family(
        "ResNet",
        ("timm.models.senet.SENet",),
        (
            "timm.models.senet.SEBottleneck",
            "timm.models.senet.SEResNetBlock",
            "timm.models.senet.SEResNetBottleneck",
            "timm.models.senet.SEResNeXtBottleneck",
        ),
        "bottleneck",
        in_layers=True,
        activated=True,
    ),
    Family(
        "RegNet",
        ("timm.models.regnet.RegNet", "torchvision.models.regnet.RegNet"),
        (
            "timm.models.regnet.Bottleneck",
            "timm.models.regnet.PreBottleneck",
            "torchvision.models.regnet.ResBottleneckBlock",
        ),
        "bottleneck",
    ),
    Family(
        "MobileViT",
        ("timm.models.byobnet.ByobNet",),
        (
            "timm.models.byobnet.BottleneckBlock",
            "timm.models.mobilevit.MobileVitBlock",
            "timm.models.mobilevit.MobileVitV2Block",
        ),
        "inverted-residual",
        ending=("timm.models.mobilevit.MobileVitBlock", "timm.models.mobilevit.MobileVitV2Block"),
        skippable=False,  # the first version joins what entered to what it made, the second drops it
    ),
    Family(
        "ResNeXt of timm's ByobNet",
        ("timm.models.byobnet.ByobNet",),
        (
            "timm.models.byobnet.BasicBlock",
            "timm.models.byobnet.BottleneckBlock",
            "timm.models.byobnet.DarkBlock",
            "timm.models.byobnet.EdgeBlock",
            "timm.models.byobnet.SelfAttnBlock",
        ),
        "bottleneck",
        skippable=False,  # some have no shortcut
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
    Family(
        "FocalNet",
        ("timm.models.focalnet.FocalNet",),
        ("timm.models.focalnet.FocalNetBlock",),
        "focalnet",
        last=(("norm1_post", "modulation.proj"), ("norm2_post", "mlp.fc2")),
        scales=("ls1.gamma", "ls2.gamma"),
    ),
    Family(
        "MaxViT",
        ("timm.models.maxxvit.MaxxVit",),
        ("timm.models.maxxvit.MaxxVitBlock",),
        "maxvit",
        last=(
            ("conv.conv3_1x1", "conv.mlp.fc2"),
            "attn_block.attn.proj",
            "attn_block.mlp.fc2",
            "attn_grid.attn.proj",
            "attn_grid.mlp.fc2",
        ),
        scales=("conv.ls.gamma", *(f"attn_{part}.ls{n}.gamma" for part in ("block", "grid") for n in (1, 2))),
    ),
    Family(
        "CoAtNet",
        ("timm.models.maxxvit.MaxxVit",),
        (
            "timm.models.maxxvit.ConvNeXtBlock",
            "timm.models.maxxvit.MbConvBlock",
            "timm.models.maxxvit.TransformerBlock2d",
        ),
        "maxvit",
        last=("attn.proj", "mlp.fc2"),
        scales=("ls1.gamma", "ls2.gamma"),
        ending=("timm.models.maxxvit.TransformerBlock2d",),
    ),
    Family(
        "MaxViT",
        ("torchvision.models.maxvit.MaxVit",),
        ("torchvision.models.maxvit.MaxVitLayer",),
        "maxvit",
        last=(
            "layers.MBconv.layers.conv_c",
            "layers.window_attention.attn_layer.1.merge",
            "layers.window_attention.mlp_layer.3",
            "layers.grid_attention.attn_layer.1.merge",
            "layers.grid_attention.mlp_layer.3",
        ),
    ),
    Family(
        "EfficientViT",  # of MIT
        ("timm.models.efficientvit_mit.EfficientVit", "timm.models.efficientvit_mit.EfficientVitLarge"),
        ("timm.models.efficientvit_mit.EfficientVitBlock",),
        "efficientvit",
        last=("context_module.main.proj.norm", "local_module.main.point_conv.norm"),
    ),
    Family(
        "EfficientViT",  # of Microsoft
        ("timm.models.efficientvit_msra.EfficientVitMsra",),
        ("timm.models.efficientvit_msra.EfficientVitBlock",),
        "efficientvit",
        last=("dw0.m.bn", "ffn0.m.pw2.bn", "mixer.m.attn.proj.1.bn", "dw1.m.bn", "ffn1.m.pw2.bn"),
    ),
    Family(
        "Hiera",
        ("timm.models.hiera.Hiera",),
        ("timm.models.hiera.HieraBlock",),
        "hiera",
        last=("attn.proj", "mlp.fc2"),
        scales=("ls1.gamma", "ls2.gamma"),
        channels_last=True,
    ),
    Family(
        "Hiera",  # of SAM 2
        ("timm.models.hieradet_sam2.HieraDet",),
        ("timm.models.hieradet_sam2.MultiScaleBlock",),
        "hiera",
        last=("attn.proj", ("mlp.layers.1", "mlp.fc2")),
        scales=("ls1.gamma", "ls2.gamma"),
        channels_last=True,
    ),
)
