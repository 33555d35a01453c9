"""Where replicas attach, found on models of known shape."""

from types import SimpleNamespace

import pytest
import timm
import torch
from families import Family, require
from torch import Tensor, nn

from spgsurgeon.errors import ArchitectureError
from spgsurgeon.models.libraries.building import build, sites_of
from spgsurgeon.models.libraries.identity import Identity
from spgsurgeon.models.sites.heads import Site, sites_document
from spgsurgeon.models.sites.search import find_sites
from spgsurgeon.replicas.kinds.dropout import Dropout

IMAGES = torch.zeros(1, 3, 32, 32)


def linear(path: str, width: int, classes: int = 7) -> Site:
    return Site(path, "Linear", width, classes)


@pytest.mark.parametrize(
    ("library", "architecture", "expected"),
    [
        ("timm", "test_resnet", [linear("fc", 96)]),
        ("timm", "dla46x_c", [Site("fc", "Conv2d", 256, 7)]),
        ("timm", "levit_256d", [linear("head.linear", 512)]),  # inside a NormLinear
        ("timm", "caformer_s18", [linear("head.fc.fc2", 2048)]),  # the second layer of an MLP
        ("timm", "crossvit_9_240", [linear("head.0", 128), linear("head.1", 256)]),
        ("timm", "levit_128s", [linear("head.linear", 384), linear("head_dist.linear", 384)]),
        ("timm", "repvit_m1", [linear("head.head.l", 384), linear("head.head_dist.l", 384)]),
        ("timm", "efficientvim_m1", [linear(f"heads.{i}", width) for i, width in enumerate((128, 192, 320, 320))]),
        ("timm", "volo_d1_224", [linear("head", 384), linear("aux_head", 384)]),
        ("torchvision", "squeezenet1_1", [Site("classifier.1", "Conv2d", 512, 7)]),
        ("torchvision", "mobilenet_v3_small", [linear("classifier.3", 1024)]),
        ("torchvision", "googlenet", [linear("fc", 1024), linear("aux2.fc2", 1024), linear("aux1.fc2", 1024)]),
        ("torchvision", "inception_v3", [linear("fc", 2048), linear("AuxLogits.fc", 768)]),
    ],
)
def test_the_layers_that_make_the_logits_are_found(library, architecture, expected):
    require(Family(library, architecture))
    identity = Identity(library, architecture, 7)
    with torch.device("meta"):
        module = build(identity)
    assert list(sites_of(identity, module)) == expected


def test_auxiliary_heads_that_the_model_was_built_without_are_no_sites():
    identity = Identity("torchvision", "googlenet", 7, {"aux_logits": False})
    with torch.device("meta"):
        module = build(identity)
    assert sites_of(identity, module) == (linear("fc", 1024),)


def dropout_parameters(sites) -> int:
    return Dropout(replicas=3).temporary_parameters(SimpleNamespace(sites=sites))


def test_temporary_parameters_are_those_of_equation_14():
    assert dropout_parameters([linear("fc", 2048, 1000)]) == 12_589_056
    assert dropout_parameters([linear("head", 768), linear("head_dist", 2048)]) == 1_771_776 + 12_589_056


def test_a_document_has_lists_where_there_are_several_sites():
    sites = [linear("head", 8), linear("head_dist", 6)]
    assert sites_document(sites[:1], "module", "width") == {"module": "head", "width": 8}
    assert sites_document(sites, "module", "width") == {"module": ["head", "head_dist"], "width": [8, 6]}


def test_a_model_without_a_classifier_is_refused_with_what_to_do():
    with pytest.raises(ArchitectureError, match="the model has no classifier") as caught:
        find_sites(timm.create_model("test_resnet", num_classes=0), IMAGES)
    assert "--num-classes" in caught.value.hint


class Net(nn.Module):
    """A body, a head, and a forward that the test gives."""

    def __init__(self, forward, head: nn.Module | None = None) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = head or nn.Linear(8, 5)
        self.scale = nn.Parameter(torch.ones(()))
        self.function = forward

    def forward(self, images: Tensor):
        return self.function(self, images)


def plain(net: Net, images: Tensor) -> Tensor:
    return net.head(net.body(images))


def auxiliary_in_train_mode(net: Net, images: Tensor):
    hidden = net.body(images)
    return (net.head[0](hidden), net.head[1](hidden)) if net.training else net.head[0](hidden)


@pytest.mark.parametrize(
    ("forward", "heads", "expected"),
    [
        (lambda net, x: net.scale * plain(net, x).relu_().softmax(1), [(8, 5), (5, 5)], ["head.1"]),
        (lambda net, x: net.head[1](net.body(x)), [(8, 5), (8, 5)], ["head.1"]),  # the other is never called
        (lambda net, x: net.head[1](net.body(x)) + net.head[0](net.body(x)), [(8, 5), (8, 5)], ["head.1", "head.0"]),
        (auxiliary_in_train_mode, [(8, 5), (8, 5)], ["head.0", "head.1"]),
    ],
)
def test_the_heads_are_the_last_layers_before_the_outputs_in_the_outputs_order(forward, heads, expected):
    net = Net(forward, nn.Sequential(*(nn.Linear(*sizes) for sizes in heads)))
    assert [site.module for site in find_sites(net, IMAGES)] == expected


@pytest.mark.parametrize("prepare", [lambda net: net.requires_grad_(False), lambda net: net.to(torch.bfloat16)])
def test_frozen_and_half_precision_models_are_traced_as_any_other(prepare):
    net = prepare(Net(plain))
    with torch.no_grad():
        assert find_sites(net, IMAGES.to(net.scale.dtype)) == (linear("head", 8, 5),)


@pytest.mark.parametrize(
    ("forward", "head", "message"),
    [
        (lambda net, x: plain(net, x) + plain(net, x), None, "'head' is called 2 times"),
        (lambda net, x: {"out": plain(net, x)}, None, "its output is a dict"),
        (lambda net, x: (plain(net, x), net.body(x)), None, r"heads of different classes \(5, 8\)"),
        (lambda net, x: net.body[0](x), None, r"its output is a tensor \[2, 8, 30, 30\]"),
        (lambda net, x: x.flatten(1), None, "no layer makes its output"),
        (lambda net, x: net.head(net.body(x), net.body(x)), nn.Bilinear(8, 8, 5), "the head at 'head' is a Bilinear"),
        (plain, nn.LayerNorm(8), "the head at 'head' is a LayerNorm"),
        (lambda net, x: net.head(net.body[0](x)).mean((2, 3)), nn.Conv2d(8, 5, 3), "the head at 'head' is a Conv2d"),
        (lambda net, x: net.head(net.body[0](x)).mean((2, 3)), nn.Conv2d(8, 4, 1, groups=2), "is a Conv2d"),
        (lambda net, x: plain(net, x).unflatten(1, (5, 2)).amax(2), nn.Linear(8, 10), "makes 10 numbers, not .* 5"),
        (lambda net, x: plain(net, x[:, :2]), None, r"on images of \[3, 32, 32\] the model fails: Invalid channel"),
    ],
)
def test_another_head_is_refused_with_what_was_found(forward, head, message):
    with pytest.raises(ArchitectureError, match=message) as caught:
        find_sites(Net(forward, head), IMAGES)
    assert caught.value.exit_code == 5


def test_tracing_leaves_the_model_as_it_is():
    net = Net(plain)
    net.train().body[1].eval()
    modes = [module.training for module in net.modules()]
    state = {key: value.clone() for key, value in net.state_dict().items()}
    numbers = torch.random.get_rng_state()
    find_sites(net, torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert torch.equal(torch.random.get_rng_state(), numbers)


@pytest.mark.parametrize("name", ["fcn_resnet50", "fcn_resnet101", "deeplabv3_resnet50", "deeplabv3_resnet101"])
def test_segmentation_heads_are_shared_whole_before_the_backbones_two_outputs(name):
    identity = Identity("torchvision", name, 21)
    with torch.device("meta"):
        module = build(identity)
    main, auxiliary = sites = sites_of(identity, module)
    head = "FCNHead" if name.startswith("fcn") else "DeepLabHead"
    assert main == Site("classifier", head, 2048, 21)
    assert auxiliary == Site("aux_classifier", "FCNHead", 1024, 21)
    assert dropout_parameters(sites) == 15_737_856  # 15.74 M: table 2 of arXiv 2506.15051


def test_lraspp_reads_two_maps_by_name():
    identity = Identity("torchvision", "lraspp_mobilenet_v3_large", 21)
    with torch.device("meta"):
        module = build(identity)
    low, high = sites_of(identity, module)
    assert low == Site("classifier", "LRASPPHead", 40, 21, key="low")
    assert high == Site("classifier", "LRASPPHead", 960, 21, key="high")
