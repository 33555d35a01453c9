"""Replicas of depth: blocks that start as the identity, and what the paper's all-zero start does instead."""

from itertools import pairwise

import pytest
import timm
import torch
from timm.models.focalnet import FocalNet
from torch import nn

from spgsurgeon.commands.modules import graft
from spgsurgeon.errors import ArchitectureError, UsageError
from spgsurgeon.objective.loss import spg_loss
from spgsurgeon.replicas.kinds.depth.blocks import bottleneck, inverted_residual, like, zero_all, zero_last
from spgsurgeon.surgery.proof import fingerprint, prove_graft

HIDDEN = torch.randn(3, 16, 4, 4, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def template(activation, norm=nn.BatchNorm2d):
    return nn.Sequential(nn.Conv2d(16, 16, 1), norm(16), activation)


@pytest.mark.parametrize("make", [bottleneck, inverted_residual])
@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU(inplace=True), nn.SiLU(), nn.LeakyReLU(0.2), nn.GELU()])
def test_a_block_starts_as_the_identity_on_what_its_activation_gives(make, activation):
    hidden = activation(HIDDEN.clone())
    block = make(16, template(activation), activated=True)
    assert not torch.equal(block(hidden), hidden)
    assert torch.equal(zero_last(block, block.last)(hidden), hidden)


def test_a_block_ends_in_an_activation_only_where_the_hidden_state_came_out_of_one():
    relu = template(nn.ReLU())
    assert isinstance(bottleneck(16, relu, activated=True).activation, nn.ReLU)
    assert bottleneck(16, relu, activated=False).activation is None
    assert bottleneck(16, template(nn.SiLU()), activated=True).activation is None


def test_blocks_take_normalisation_and_activation_from_the_base():
    groups = template(nn.SiLU(), lambda width: nn.GroupNorm(4, width, eps=1e-3))
    branch = bottleneck(16, groups, activated=False).branch
    assert isinstance(branch[1], nn.GroupNorm)
    assert branch[1].eps == 1e-3
    assert isinstance(branch[2], nn.SiLU)
    with pytest.raises(ArchitectureError, match="need a batch or group norm"):
        bottleneck(16, nn.Sequential(nn.Conv2d(16, 16, 1)), activated=False)


def test_a_block_like_the_bases_own_is_new():
    torch.manual_seed(0)
    own = timm.create_model("test_vit", img_size=32, init_values=1e-5).blocks[-1]
    nn.init.constant_(own.mlp.fc1.weight, 3.0)
    new = like(own, scales=["ls1.gamma", "ls2.gamma"])
    assert not new.mlp.fc1.weight.eq(3.0).any()
    assert new.ls1.gamma.eq(1).all()
    assert own.ls1.gamma.eq(1e-5).all()


def resnet(init):
    torch.manual_seed(0)
    base = timm.create_model("resnet18", layers=[1, 1, 1, 1], num_classes=5)
    return graft(base, "depth", replicas=2, blocks=1, init=init, example=IMAGES).train()


def train(grafted, steps):
    """Train, with the labels that the base predicts, so that episodes run on; return who has had a gradient."""
    optimizer = torch.optim.SGD(grafted.parameters(), lr=1e-3)
    learnt = set()
    for _ in range(steps):
        labels = grafted(IMAGES)[:8].argmax(1)
        optimizer.zero_grad()
        spg_loss(grafted(IMAGES), labels, (0.4, 0.2)).loss.backward()
        optimizer.step()
        learnt |= {name for name, p in grafted.replicas.named_parameters() if p.grad is not None and p.grad.any()}
    return learnt


def test_a_block_with_batch_norms_like_the_bases_own_keeps_no_running_statistics():
    own = timm.create_model("efficientvit_b0").stages[-1].blocks[-1]
    new = like(own)
    assert dict(new.named_buffers()) == {}
    maps = torch.randn(2, 128, 2, 2)
    assert not torch.equal(new(maps), maps)
    assert dict(own.named_buffers())


def test_every_new_weight_has_a_gradient_within_two_steps():
    grafted = resnet("identity")
    assert train(grafted, 2) == dict(grafted.replicas.named_parameters()).keys()


def test_with_all_zero_convolutions_none_ever_moves():
    grafted = resnet("all-zero")
    convolutions = [part for part in grafted.replicas.modules() if isinstance(part, nn.Conv2d)]
    assert len(convolutions) == 6
    learnt = train(grafted, 5)
    assert learnt  # what follows the last convolution does
    assert not any(part.weight.any() for part in convolutions)


def test_all_zero_covers_every_projection_of_a_transformer_block():
    torch.manual_seed(0)
    block = zero_all(like(timm.create_model("test_vit", img_size=32).blocks[-1]))
    assert not any(part.weight.any() for part in block.modules() if isinstance(part, nn.Linear))
    tokens = torch.randn(2, 5, 64)
    assert torch.equal(block.eval()(tokens), tokens)


def test_each_replica_is_deeper_than_the_one_before():
    grafted = graft(timm.create_model("test_resnet"), "depth", replicas=3, blocks=2, example=IMAGES).train()
    assert [len(replica) for replica in grafted.replicas[0]] == [2, 2, 2]
    calls = []
    for replica in grafted.replicas[0]:
        replica.register_forward_hook(lambda replica, inputs, output: calls.append((inputs[0], output)))
    grafted(IMAGES)
    assert [later[0] is earlier[1] for earlier, later in pairwise(calls)] == [True, True]


def test_an_episode_costs_one_forward_pass_of_the_base():
    base, calls = timm.create_model("test_resnet"), []
    grafted = graft(base, "depth", replicas=3, example=IMAGES).train()
    base.layer4.register_forward_hook(lambda *_: calls.append(1))
    assert grafted(IMAGES).shape[0] == 4 * 8
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"blocks": 0}, UsageError, "blocks: 0 is refused"),
        ({"replicas": 0}, UsageError, "replicas: 0 is refused"),
        ({"block": "swin"}, UsageError, "does not fit a ResNet"),
        ({"init": "zero"}, UsageError, "'identity' or 'all-zero'"),
        ({"site": "layer3"}, UsageError, "after the last stage"),
        ({"head_batch": "sequential"}, UsageError, "heads that are entered"),
    ],
)
def test_what_can_not_be_is_refused(settings, error, message):
    with pytest.raises(error, match=message):
        graft(timm.create_model("test_resnet"), "depth", example=IMAGES, **settings)


def test_settings_of_another_kind_are_refused():
    base = timm.create_model("test_resnet")
    with pytest.raises(UsageError, match="rate is not a setting of depth replicas"):
        graft(base, "depth", rate=0.2, example=IMAGES)
    with pytest.raises(UsageError, match="blocks is not a setting of dropout replicas"):
        graft(base, blocks=2, example=IMAGES)


def test_replicas_stay_on_when_the_base_checkpoints_its_activations():
    torch.manual_seed(0)
    grafted = graft(timm.create_model("test_resnet", num_classes=5), "depth", replicas=2, example=IMAGES).train()
    expected = grafted(IMAGES)
    grafted.base.set_grad_checkpointing(True)
    logits = grafted(IMAGES)
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4)
    spg_loss(logits, torch.arange(8) % 5, (0.4, 0.2), label_smoothing=0.1).loss.backward()
    assert grafted.base.conv1[0].weight.grad.any()


def test_a_family_whose_blocks_are_of_another_kind_is_refused_too():
    with torch.device("meta"):
        model = timm.create_model("vit_base_patch16_xp_224")
    with pytest.raises(ArchitectureError, match="VisionTransformer with blocks of its kind"):
        graft(model, "depth")


def test_a_family_without_depth_is_refused_naming_those_that_have_it():
    with pytest.raises(ArchitectureError, match="not known for a VGG") as caught:
        graft(timm.create_model("vgg11", mlp_ratio=0.02), "depth", example=IMAGES)
    assert all(name in caught.value.hint for name in ("ResNet, RegNet", "ViT, ConvNeXt, Swin", "MaxViT", "Hiera"))
    assert caught.value.exit_code == 5


def test_blocks_of_the_large_focalnets_start_as_the_identity_too():
    """They have 240 M parameters at the least; here their post-norms and layer scales are in a narrow one."""
    design = {"use_post_norm": True, "use_overlap_down": True, "layerscale_value": 1e-4}
    base = FocalNet(num_classes=5, embed_dim=16, depths=(1, 1, 1, 2), focal_windows=(5, 5, 5, 5), **design)
    before = fingerprint(base, IMAGES)
    grafted = graft(base, "depth", replicas=2, example=IMAGES)
    assert all(prove_graft(grafted, before, IMAGES).values())
    ((name, states),) = grafted.train().hidden_states(IMAGES)[0].items()
    assert name == grafted.sites[0]
    assert torch.equal(states, states[:1].expand_as(states))
    assert len(train(grafted, 2)) == len([*grafted.replicas.parameters()])


@pytest.mark.slow
def test_it_compiles_to_one_graph():
    torch.manual_seed(0)
    grafted = graft(timm.create_model("test_efficientnet", num_classes=5), "depth", replicas=2, example=IMAGES).train()
    labels = torch.arange(8) % 5

    def step(images, labels):
        return spg_loss(grafted(images), labels, (0.4, 0.2)).loss

    torch.compile(step, backend="aot_eager", fullgraph=True)(IMAGES, labels).backward()
