"""Where replicas of depth attach: stage, width, depths and what follows, family by family."""

import pytest
import torch
from families import DEPTH, Family, require

from spgsurgeon.commands.modules import graft
from spgsurgeon.errors import ArchitectureError
from spgsurgeon.models.libraries.building import build, depth_site_of
from spgsurgeon.models.libraries.identity import Identity


def site_of(library, architecture, **args):
    require(Family(library, architecture))
    identity = Identity(library, architecture, 7, args)
    with torch.device("meta"):
        module = build(identity)
    return depth_site_of(identity, module)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
@pytest.mark.parametrize(
    ("architecture", "width", "blocks", "depths"),
    [
        ("resnet18", 512, 3, [27, 36, 45]),
        ("resnet34", 512, 2, [40, 46, 52]),
        ("resnet50", 2048, 1, [53, 56, 59]),
        ("resnext50_32x4d", 2048, 1, [53, 56, 59]),
    ],
)
def test_resnets_reach_the_depths_of_table_4(library, architecture, width, blocks, depths):
    site = site_of(library, architecture)
    assert (site.module.rpartition(".")[0], site.width, site.blocks, site.unit) == ("layer4", width, blocks, "layers")
    assert site.depths(3) == depths
    assert site.normalisations == ()


@pytest.mark.parametrize(
    ("library", "architecture", "module", "width", "normalisations", "depth"),
    [
        ("timm", "mobilenetv2_100", "blocks.6.0", 320, ("bn2",), 17),
        ("timm", "mobilenetv3_small_050", "blocks.4.2", 48, ("blocks.5.0.bn1",), 11),
        ("timm", "vit_tiny_patch16_224", "blocks.11", 192, (), 12),
        ("timm", "convnext_atto", "stages.3.blocks.1", 320, (), 12),
        ("timm", "swin_tiny_patch4_window7_224", "layers.3.blocks.1", 768, (), 12),
        ("timm", "regnety_002", "s4.b7", 368, (), 13),
        ("timm", "eca_resnext26ts", "stages.3.1", 2048, (), 8),
        ("timm", "mobilevit_xxs", "stages.4.1", 80, ("final_conv.bn",), 10),
        ("timm", "efficientvit_b0", "stages.3.blocks.2", 128, ("head.in_conv.norm",), 4),
        ("timm", "focalnet_tiny_srf", "layers.3.blocks.1", 768, (), 12),
        ("timm", "hiera_tiny_224", "blocks.11", 768, (), 12),
        ("timm", "maxvit_tiny_tf_224", "stages.3.blocks.1", 512, (), 11),
        ("torchvision", "maxvit_t", "blocks.3.layers.1", 512, (), 11),
        ("torchvision", "mobilenet_v2", "features.17", 320, ("features.18.1",), 17),
        ("torchvision", "efficientnet_b0", "features.7.0", 320, ("features.8.1",), 16),
        ("torchvision", "vit_b_16", "encoder.layers.encoder_layer_11", 768, (), 12),
        ("torchvision", "convnext_tiny", "features.7.2", 768, (), 18),
        ("torchvision", "swin_v2_t", "features.7.1", 768, (), 12),
    ],
)
def test_the_last_stage_and_what_follows_it_are_found(library, architecture, module, width, normalisations, depth):
    site = site_of(library, architecture)
    assert (site.module, site.width, site.normalisations) == (module, width, normalisations)
    assert (site.depths(2), site.unit) == ([depth + 1, depth + 2], "blocks")


@pytest.mark.slow
@pytest.mark.parametrize("family", [pytest.param(f, id=f"{f.name}-{i}") for i, f in enumerate(DEPTH)])
def test_the_temporary_parameters_are_those_that_are_grafted(family):
    require(family)
    identity = Identity(family.library, family.architecture, 7, family.args)
    module = build(identity)
    site = depth_site_of(identity, module)
    grafted = graft(module, "depth", replicas=2, example=torch.empty(1, 3, family.size, family.size))
    assert sum(p.numel() for p in grafted.replicas.parameters()) == site.temporary_parameters(2)


def test_a_block_that_lacks_what_the_family_ends_in_is_refused():
    with torch.device("meta"):
        module = build(Identity("timm", "test_vit", 7, {"img_size": 32}))
    del module.blocks[-1].mlp.fc2
    with pytest.raises(ArchitectureError, match=r"blocks\.5.* without mlp\.fc2"):
        depth_site_of(Identity("timm", "test_vit", 7, {"img_size": 32}), module)


@pytest.mark.parametrize(
    ("library", "architecture", "args", "reason"),
    [
        ("timm", "densenet121", {}, "would change the width"),
        ("torchvision", "densenet121", {}, "would change the width"),
        ("timm", "test_maxvit", {"img_size": 64}, "can't follow itself"),
        ("timm", "repvgg_a0", {}, "ByobNet with blocks of its kind"),
    ],
)
def test_a_network_whose_last_block_can_not_follow_itself_is_refused_with_the_reason(
    library, architecture, args, reason
):
    with pytest.raises(ArchitectureError, match=reason):
        site_of(library, architecture, **args)


def test_of_two_possible_ends_of_a_branch_the_one_with_weights_is_taken():
    assert site_of("timm", "focalnet_tiny_srf").last == ("modulation.proj", "mlp.fc2")
    assert site_of("timm", "focalnet_large_fl3").last == ("norm1_post", "norm2_post")
