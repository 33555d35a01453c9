"""Every model family that the laws are checked on, each at its smallest, and what is refused, with the reason.

A case is cheap: random weights, small images, and where the library's factory lets us a narrow and shallow network.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import timm

CLASSES = 7


@dataclass(frozen=True)
class Family:
    """The smallest member of a family; `size` is the height and width of an image in pixels."""

    library: str
    architecture: str
    size: int = 32
    args: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.library}/{self.architecture}"

    @property
    def slow(self) -> bool:
        """Whether it is left to the run of all tests."""
        return self.name not in QUICK

    @property
    def segments(self) -> bool:
        """Whether it predicts a class for each pixel."""
        return self in SEGMENTATION


QUICK = {
    "timm/beit_base_patch16_224",
    "timm/cait_xxs24_224",
    "timm/coat_lite_tiny",
    "timm/crossvit_9_240",
    "timm/deit3_small_patch16_224",
    "timm/deit_tiny_distilled_patch16_224",
    "timm/deit_tiny_patch16_224",
    "timm/dpn48b",
    "timm/hiera_tiny_224",
    "timm/legacy_seresnet18",
    "timm/mobilenetv3_small_050",
    "timm/naflexvit_base_patch16_gap",
    "timm/pit_ti_distilled_224",
    "timm/resnet18",
    "timm/resnetv2_18d",
    "timm/samvit_base_patch16_224",
    "timm/swin_tiny_patch4_window7_224",
    "timm/swinv2_tiny_window8_256",
    "timm/test_byobnet",
    "timm/test_convnext",
    "timm/test_efficientnet",
    "timm/test_mambaout",
    "timm/test_maxvit",
    "timm/test_nfnet",
    "timm/test_resnet",
    "timm/test_vit",
    "timm/test_vit3",
    "timm/tresnet_m",
    "timm/twins_svt_small",
    "timm/visformer_tiny",
    "timm/volo_d1_224",
    "timm/xcit_nano_12_p8_224",
    "torchvision/googlenet",
    "torchvision/lraspp_mobilenet_v3_large",
    "torchvision/mobilenet_v3_small",
    "torchvision/squeezenet1_1",
}
"""Of each kind of head, site and output some that take little."""


def _timm(architecture: str, size: int = 32, **args: Any) -> Family:
    return Family("timm", architecture, size, args)


def _torchvision(architecture: str, size: int = 32, **args: Any) -> Family:
    return Family("torchvision", architecture, size, args)


NARROW = {"embed_dim": 32, "depth": 2, "num_heads": 2}

TIMM = [
    _timm("beit_base_patch16_224", img_size=32, **NARROW),
    _timm("caformer_s18"),
    _timm("cait_xxs24_224", img_size=32, **NARROW),
    _timm("coat_lite_tiny", img_size=32, embed_dims=[16, 32, 32, 64], serial_depths=[1, 1, 1, 1]),
    _timm("convit_tiny", img_size=32, local_up_to_layer=1, **NARROW),
    _timm("convmixer_768_32"),
    _timm("convnextv2_atto"),
    _timm("cpubone_nano"),
    _timm("crossvit_9_240", 240, depth=[[1, 1, 0]], embed_dim=[16, 32], num_heads=[2, 2]),
    _timm("cs3darknet_focus_s"),
    _timm("csatv2", 64),
    _timm("cspnext_tiny"),
    _timm("davit_tiny", depths=[1, 1, 1, 1], embed_dims=[16, 32, 64, 128], num_heads=[1, 2, 4, 8]),
    _timm("deepseek_vit_412m", 28, img_size=28, **NARROW),
    _timm("deit_tiny_patch16_224", img_size=32, **NARROW),
    _timm("deit_tiny_distilled_patch16_224", img_size=32, **NARROW),
    _timm("densenet121"),
    _timm("dla46x_c"),
    _timm("dpn48b", k_sec=[1, 1, 1, 1]),
    _timm("eca_botnext26ts_256", img_size=32),
    _timm("edgenext_xx_small"),
    _timm("efficientformer_l1", 224),
    _timm("efficientformerv2_s0", img_size=32),
    _timm("efficientvim_m1", 64),
    _timm("efficientvim_m1_dist", 64),
    _timm("efficientvit_b0"),
    _timm("efficientvit_l1", widths=[8, 16, 16, 32, 32], head_widths=[64, 64]),
    _timm("efficientvit_m1", img_size=32),
    _timm("ese_vovnet19b_slim_dw"),
    _timm("eva02_tiny_patch14_224", 28, img_size=28, **NARROW),
    _timm("fasternet_t0"),
    _timm("fastvit_t8", layers=[1, 1, 1, 1], embed_dims=[16, 32, 32, 64]),
    _timm("focalnet_tiny_srf"),
    _timm("gcvit_xxtiny", img_size=32),
    _timm("gemma4_vit_167m", 48, img_size=48, head_dim=16, intermediate_size=64, position_embedding_size=64, **NARROW),
    _timm("ghostnet_050"),
    _timm("gmlp_ti16_224", img_size=32),
    _timm("hardcorenas_b"),
    _timm("hgnetv2_b0"),
    _timm("hiera_tiny_224", img_size=32, embed_dim=16, num_heads=1, stages=[1, 1, 1, 1]),
    _timm("hrnet_w18_small"),
    _timm("iformer_t"),
    _timm("iformer_m_distilled"),
    _timm("inception_next_atto"),
    _timm("inception_resnet_v2", 96),
    _timm("inception_v3", 96),
    _timm("inception_v4", 96),
    _timm("lcnetv2_small"),
    _timm("legacy_seresnet18", layers=[1, 1, 1, 1]),
    _timm("legacy_xception"),
    _timm("levit_128s", img_size=32),
    _timm("levit_256d", img_size=32),
    _timm("lowformer_b0"),
    _timm("mobilenetv3_small_050"),
    _timm("mobilenetv4_conv_small_035"),
    _timm("mobilenetv5_base", channel_multiplier=0.1),
    _timm("mobilevit_xxs"),
    _timm("mvitv2_tiny", img_size=32),
    _timm("naflexvit_base_patch16_gap", **NARROW),
    _timm("nasnetalarge", num_features=192),
    _timm("nest_tiny_jx", img_size=32),
    _timm("nextvit_small", depths=[1, 1, 5, 1]),
    _timm("pit_ti_224", img_size=32, base_dims=[8, 8, 8], depth=[1, 1, 1]),
    _timm("pit_ti_distilled_224", img_size=32, base_dims=[8, 8, 8], depth=[1, 1, 1]),
    _timm("pnasnet5large"),
    _timm("poolformerv2_s12"),
    _timm("pvt_v2_b0"),
    _timm("qwen3_vit_88m", **NARROW),
    _timm("rdnet_tiny", num_init_features=16, growth_rates=[8] * 7),
    _timm("regnety_002"),
    _timm("repghostnet_050"),
    _timm("repvgg_a0"),
    _timm("repvit_m1"),
    _timm("repvit_m1", distillation=False),
    _timm("res2net50_48w_2s", layers=[1, 1, 1, 1], base_width=8),
    _timm("resnest14d", base_width=8),
    _timm("resnetv2_18d", layers=[1, 1, 1, 1], channels=[16, 32, 64, 128], stem_chs=16),
    _timm("rexnet_100", width_mult=0.3),
    _timm("sam2_hiera_tiny", stages=[1, 1, 2, 1], embed_dim=32),
    _timm("samvit_base_patch16_224", img_size=32, **NARROW),
    _timm("selecsls42"),
    _timm("sequencer2d_s", img_size=32, layers=[1] * 4, embed_dims=[16, 32, 32, 32], hidden_sizes=[8] * 4),
    _timm("shvit_s1"),
    _timm("skresnet18", layers=[1, 1, 1, 1]),
    _timm("starnet_s050"),
    _timm("swiftformer_xs"),
    _timm("swin_tiny_patch4_window7_224", img_size=32, embed_dim=24, depths=[2, 2], num_heads=[2, 4]),
    _timm("swinv2_cr_tiny_ns_224", img_size=32, embed_dim=24, depths=[1] * 4, num_heads=[1, 2, 4, 8]),
    _timm("swinv2_tiny_window8_256", img_size=32, embed_dim=24, depths=[2, 2], num_heads=[2, 4]),
    _timm("test_byobnet"),
    _timm("test_convnext"),
    _timm("test_efficientnet"),
    _timm("test_mambaout"),
    _timm("test_maxvit", img_size=32),
    _timm("test_nfnet"),
    _timm("test_resnet"),
    _timm("test_vit", img_size=32),
    _timm("test_vit3", img_size=32),
    _timm("test_vit_relpos", img_size=32),
    _timm("tiny_vit_5m_224", embed_dims=[16, 32, 32, 64], depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 4]),
    _timm("tnt_s_patch16_224", img_size=32, embed_dim=32, inner_dim=8, depth=2, num_heads_outer=2),
    _timm("tresnet_m", layers=[1, 1, 1, 1], width_factor=0.25),
    _timm(
        "twins_svt_small",
        img_size=32,
        embed_dims=[16, 32, 32, 64],
        num_heads=[1, 2, 2, 4],
        depths=[1, 1, 1, 1],
        mlp_ratios=[2, 2, 2, 2],
    ),
    _timm("vgg11", mlp_ratio=0.02),
    _timm("visformer_tiny", img_size=32, init_channels=8, embed_dim=64, depth=[1, 1, 1], num_heads=2),
    _timm("vit_tiny_r_s16_p8_224", img_size=32, **NARROW),
    _timm("vitamin_small_224", img_size=32, depth=2),
    _timm("volo_d1_224", img_size=32),
    _timm("xception41"),
    _timm("xcit_nano_12_p8_224", img_size=32, **NARROW),
]

TORCHVISION = [
    _torchvision("alexnet", 64),
    _torchvision("convnext_tiny"),
    _torchvision("densenet121"),
    _torchvision("efficientnet_b0"),
    _torchvision("efficientnet_v2_s"),
    _torchvision("googlenet", 64),
    # 299: of less, its auxiliary head is left with less than its kernel; torchvision's own initialisation overflows
    _torchvision("inception_v3", 299, init_weights=False),
    _torchvision("maxvit_t", 224),
    _torchvision("mnasnet0_5"),
    _torchvision("mobilenet_v2"),
    _torchvision("mobilenet_v3_small"),
    _torchvision("regnet_x_400mf"),
    _torchvision("regnet_y_400mf"),
    _torchvision("resnet18"),
    _torchvision("shufflenet_v2_x0_5"),
    _torchvision("squeezenet1_1"),
    _torchvision("swin_t"),
    _torchvision("swin_v2_t"),
    _torchvision("vgg11"),
    _torchvision("vit_b_32", image_size=32),
]

SEGMENTATION = [
    _torchvision("deeplabv3_mobilenet_v3_large", 64),
    _torchvision("deeplabv3_resnet50", 64),
    _torchvision("fcn_resnet50", 64),
    _torchvision("fcn_resnet50", 64, aux_loss=False),
    _torchvision("lraspp_mobilenet_v3_large", 64),
]

SUPPORTED = TIMM + TORCHVISION + SEGMENTATION

SHALLOW = {"layers": [1, 1, 1, 1]}
SMALL_MAXVIT = {"img_size": 64, "depths": [1, 1, 1, 2], "embed_dim": [64, 64, 64, 64]}

# 64 pixels where there are batch norms: of two numbers a channel, a 1x1 map of two images, no gradient comes back.
DEPTH = [
    _timm("coatnet_rmlp_nano_rw_224", 64, **SMALL_MAXVIT),
    _timm("convnextv2_atto"),
    _timm("deit3_small_patch16_224", img_size=32, **NARROW),
    _timm("deit_tiny_distilled_patch16_224", img_size=32, **NARROW),
    _timm("eca_botnext26ts_256", 64, img_size=64),
    _timm("efficientnet_b0", 64),
    _timm("efficientvit_b0", 64),
    _timm("efficientvit_l1", 64, widths=[8, 16, 16, 32, 32], head_widths=[64, 64]),
    _timm("efficientvit_m1", 128, img_size=128),
    _timm("focalnet_tiny_srf"),
    _timm("focalnet_tiny_srf", use_post_norm=True),  # as the large ones, see test_replicas_depth.py
    _timm("hiera_tiny_224", img_size=32, embed_dim=16, num_heads=1, stages=[1, 1, 1, 2]),
    _timm("lcnet_035", 64),
    _timm("legacy_seresnet18", 64, drop_rate=0.0, **SHALLOW),
    _timm("legacy_seresnext26_32x4d", 64, drop_rate=0.0, **SHALLOW),
    _timm("maxxvit_rmlp_nano_rw_256", 64, **SMALL_MAXVIT),
    _timm("mobilenetv2_035", 64),
    _timm("mobilenetv3_small_050", 64),
    _timm("mobilenetv4_conv_small_035", 64),
    _timm("mobilevit_xxs", 64),
    _timm("mobilevitv2_050", 64),
    _timm("regnetv_040", 64),
    _timm("regnety_002", 64),
    _timm("res2net50_48w_2s", 64, base_width=8, **SHALLOW),
    _timm("resnest14d", 64, base_width=8),
    _timm("resnet18", 64, **SHALLOW),
    _timm("resnet18", 64, act_layer="silu", **SHALLOW),  # silu(silu(x)) is not silu(x)
    _timm("resnet26", 64, **SHALLOW),
    _timm("resnet26d", 64, act_layer="leaky_relu", **SHALLOW),
    _timm("resnet50_gn", **SHALLOW),
    _timm("resnext50_32x4d", 64, **SHALLOW),
    _timm("sam2_hiera_tiny", stages=[1, 1, 2, 2], embed_dim=32),
    _timm("seresnet50", 64, **SHALLOW),
    _timm("skresnet18", 64, **SHALLOW),
    _timm("swin_tiny_patch4_window7_224", img_size=32, embed_dim=24, depths=[2, 2], num_heads=[2, 4]),
    _timm("swinv2_tiny_window8_256", img_size=32, embed_dim=24, depths=[2, 2], num_heads=[2, 4]),
    _timm("test_byobnet", 64),
    _timm("test_convnext"),
    _timm("test_efficientnet", 64),
    _timm("test_maxvit", 64, img_size=64, depths=[1, 1, 1, 2]),
    _timm("test_resnet", 64),
    _timm("test_vit", img_size=32),
    _timm("tf_efficientnetv2_b0", 64),
    _timm("wide_resnet50_2", 64, **SHALLOW),
    _torchvision("convnext_tiny"),
    _torchvision("efficientnet_b0", 64),
    _torchvision("efficientnet_v2_s", 64),
    _torchvision("maxvit_t", 224),
    _torchvision("mobilenet_v2", 64),
    _torchvision("mobilenet_v3_small", 64),
    _torchvision("regnet_x_400mf", 64),
    _torchvision("regnet_y_400mf", 64),
    _torchvision("resnet18", 64),
    _torchvision("swin_t"),
    _torchvision("swin_v2_t"),
    _torchvision("vit_b_32", image_size=32),
]

# What enters a head: of each kind of place one.
HEADS = [
    _timm("deit_tiny_distilled_patch16_224", img_size=32, **NARROW),  # two heads
    _timm("test_resnet"),
    _torchvision("lraspp_mobilenet_v3_large", 64),  # maps by name
    _torchvision("squeezenet1_1"),  # a map
]

OTHERS: dict[str, list[Family]] = {
    "fixed-dropout": HEADS,
    "feature-noise": HEADS,
    "channel-dropout": [
        _torchvision("fcn_resnet50", 64, aux_loss=False),
        _torchvision("lraspp_mobilenet_v3_large", 64),
        _torchvision("squeezenet1_1"),
    ],
    "drop-path": [
        _timm("hiera_tiny_224", img_size=32, embed_dim=16, num_heads=1, stages=[1, 1, 1, 2]),
        _timm("swin_tiny_patch4_window7_224", img_size=32, embed_dim=24, depths=[2, 2], num_heads=[2, 4]),
        _timm("test_vit", img_size=32),
        _timm("resnet26", 64, layers=[1, 1, 1, 2]),
        _timm("mobilenetv3_small_050", 64),  # a batch norm follows
        _torchvision("convnext_tiny"),
        _torchvision("resnet18", 64),
    ],
    "token-drop": [
        _timm("deit_tiny_distilled_patch16_224", img_size=32, **NARROW),
        _timm("test_vit", img_size=32),
        _timm("vit_base_patch16_reg4_gap_256", img_size=32, **NARROW),  # averages, and has registers
        _torchvision("vit_b_32", 64, image_size=64),
    ],
    "leaky-slope": [
        _timm("test_resnet", 64),
        _timm("resnet26d", 64, act_layer="leaky_relu", **SHALLOW),
        _timm("regnety_002", 64),
        _torchvision("mobilenet_v2", 64),
        _torchvision("resnet18", 64),  # a module that is called twice
        _torchvision("vgg11"),
    ],
    "norm-momentum": [
        _timm("test_efficientnet", 64),  # holds an activation
        _timm("mobilenetv3_small_050", 64),
        _torchvision("densenet121", 64),
        _torchvision("mobilenet_v2", 64),
    ],
    "norm-noise": [
        _timm("test_efficientnet", 64),  # holds an activation
        _torchvision("densenet121", 64),
        _torchvision("mobilenet_v2", 64),
    ],
}
"""For each further kind, and the control with dropout before the head, the families that it is tried on."""

# What is refused, by the reason that the message gives: encoders, in which nothing makes logits.
_NO_CLASSIFIER = "the model has no classifier"
UNSUPPORTED: list[tuple[Family, str]] = [
    (_timm("deepseek_vit_412m_enc", 42, img_size=42, out_features=16, **NARROW), _NO_CLASSIFIER),
    (
        _timm("gemma4_vit_167m_enc", 48, img_size=48, head_dim=16, intermediate_size=64, **NARROW),
        _NO_CLASSIFIER,
    ),
    (_timm("mobilenetv5_300m_enc", channel_multiplier=0.1), _NO_CLASSIFIER),
    (_timm("qwen3_vit_88m_enc", **NARROW), _NO_CLASSIFIER),
]


def require(family: Family) -> None:
    """Skip the test where the installed timm is too old to have the architecture."""
    if family.library == "timm" and not timm.is_model(family.architecture):
        pytest.skip(f"timm {timm.__version__} has no {family.architecture}")
