"""Where replicas attach, found on models of known shape."""

import pytest
import timm
import torch
from torch import Tensor, nn

from spgsurgeon.errors import ArchitectureError
from spgsurgeon.models.building import build, site_of
from spgsurgeon.models.identity import Identity
from spgsurgeon.models.sites import Site, find_site

IMAGES = torch.zeros(1, 3, 32, 32)


@pytest.mark.parametrize(
    ("library", "architecture", "expected"),
    [
        ("timm", "test_resnet", Site("fc", "Linear", 96, 7)),
        ("timm", "dla46x_c", Site("fc", "Conv2d", 256, 7)),
        ("torchvision", "squeezenet1_1", Site("classifier.1", "Conv2d", 512, 7)),
        ("torchvision", "mobilenet_v3_small", Site("classifier.3", "Linear", 1024, 7)),
    ],
)
def test_the_head_is_found_with_its_width_and_classes(library, architecture, expected):
    identity = Identity(library, architecture, 7)
    assert site_of(identity, build(identity)) == expected


def test_the_layer_inside_a_wrapped_head_is_the_site():
    model = timm.create_model("levit_256d", num_classes=7, img_size=32)
    assert type(model.get_classifier()).__name__ == "NormLinear"
    assert find_site(model, IMAGES) == Site("head.linear", "Linear", 512, 7)


def test_temporary_parameters_are_those_of_equation_14():
    assert Site("fc", "Linear", 2048, 1000).temporary_parameters(3) == 12_589_056
    assert Site("head", "Linear", 768, 1000).temporary_parameters(3) == 1_771_776


def test_a_model_without_a_classifier_is_refused_with_what_to_do():
    with pytest.raises(ArchitectureError, match="the model has no classifier") as caught:
        find_site(timm.create_model("test_resnet", num_classes=0), IMAGES)
    assert "--num-classes" in caught.value.hint


class Net(nn.Module):
    """A body, a head, and a forward that the test gives."""

    def __init__(self, forward, head: nn.Module | None = None) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = head or nn.Linear(8, 5)
        self.function = forward

    def forward(self, images: Tensor):
        return self.function(self, images)


def plain(net: Net, images: Tensor) -> Tensor:
    return net.head(net.body(images))


def test_the_head_is_the_last_module_with_weights_that_a_pass_calls():
    unused = nn.Sequential(nn.Linear(8, 5), nn.Dropout(0.5))
    unused.spare = nn.Linear(8, 5)
    net = Net(lambda net, images: net.head[1](net.head[0](net.body(images))), unused)
    assert find_site(net, IMAGES) == Site("head.0", "Linear", 8, 5)


@pytest.mark.parametrize(
    ("forward", "head", "message"),
    [
        (lambda net, x: net.head(net.body(x)) + net.head(net.body(x)), None, "'head' is called 2 times"),
        (lambda net, x: {"out": plain(net, x)}, None, "its output is a dict"),
        (lambda net, x: net.body[0](x), None, r"its output is a tensor \[1, 8, 30, 30\]"),
        (lambda net, x: x.flatten(1), None, "its output is a tensor"),
        (plain, nn.Bilinear(8, 8, 5), None),
        (plain, nn.LayerNorm(8), "the head at 'head' is a LayerNorm"),
        (lambda net, x: net.head(net.body[0](x)).mean((2, 3)), nn.Conv2d(8, 5, 3), "the head at 'head' is a Conv2d"),
        (lambda net, x: net.head(net.body[0](x)).mean((2, 3)), nn.Conv2d(8, 4, 1, groups=2), "is a Conv2d"),
    ],
)
def test_another_head_is_refused_with_what_was_found(forward, head, message):
    if isinstance(head, nn.Bilinear):
        forward, message = (lambda net, x: net.head(net.body(x), net.body(x))), "the head at 'head' is a Bilinear"
    with pytest.raises(ArchitectureError, match=message) as caught:
        find_site(Net(forward, head), IMAGES)
    assert caught.value.exit_code == 5


def test_watching_leaves_no_hook_and_keeps_every_mode():
    net = Net(plain)
    net.train().body[1].eval()
    modes = [module.training for module in net.modules()]
    statistics = net.body[1].running_mean.clone()
    find_site(net, torch.randn(2, 3, 8, 8))
    assert [module.training for module in net.modules()] == modes
    assert torch.equal(net.body[1].running_mean, statistics)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_a_failing_pass_leaves_no_hook_and_keeps_every_mode():
    net = Net(plain).train()
    with pytest.raises(RuntimeError):
        find_site(net, torch.zeros(1, 4, 8, 8))
    assert all(module.training for module in net.modules())
    assert not any(module._forward_hooks for module in net.modules())
