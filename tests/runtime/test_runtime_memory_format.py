"""How images and weights lie in memory, and what must not lie channels-last."""

import pytest
import timm
import torch
from attaching import attach
from tiny_runs import SETTINGS, changed, tiny_retraining
from torch import nn

from spgsurgeon.errors import UsageError
from spgsurgeon.runtime.memory_format import choose_memory_format, laid_out_like, lay_out_convolutions

COMMON = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(16, 32, 1, stride=2), nn.Conv2d(8, 16, 1))


def stem(channels: int = 3, **options: int) -> nn.Module:
    """Return a RepVGG-like stem: a 1x1 convolution on the images, strided unless told otherwise."""
    return nn.Sequential(nn.Identity(), nn.Conv2d(channels, 8, 1, **{"stride": 2, **options}))


@pytest.mark.parametrize(
    ("wanted", "device", "found"),
    [
        ("auto", "cpu", torch.channels_last),
        ("auto", "cuda", torch.channels_last),
        ("auto", "mps", torch.contiguous_format),
        ("channels-last", "mps", torch.channels_last),
        ("contiguous", "cuda", torch.contiguous_format),
    ],
)
def test_how_pictures_lie_in_memory(wanted: str, device: str, found: torch.memory_format) -> None:
    assert choose_memory_format(wanted, torch.device(device), COMMON) == found


def test_what_overflows_memory_channels_last_does_not_lie_so() -> None:
    """On CPUs, where oneDNN writes beyond its memory in the gradient of such a convolution."""
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert choose_memory_format("auto", cpu, stem()) == torch.contiguous_format
    assert choose_memory_format("auto", cuda, stem()) == torch.channels_last
    for safe in (stem(16), stem(stride=1), stem(12, groups=4)):
        assert choose_memory_format("auto", cpu, safe) == torch.channels_last
    with pytest.raises(UsageError, match="corrupt memory in 1, a strided 1x1 convolution") as caught:
        choose_memory_format("channels-last", cpu, stem(15))
    assert caught.value.hint == "training.memory_format=auto"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("repvgg_a0", torch.contiguous_format),
        ("mobileone_s0", torch.contiguous_format),
        ("fastvit_t8", torch.contiguous_format),
        ("resnet18", torch.channels_last),
        ("test_vit", torch.channels_last),
    ],
)
def test_models_by_name(name: str, found: torch.memory_format) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    assert choose_memory_format("auto", torch.device("cpu"), model) == found


class Fast(nn.Module):
    """Images enter it through a stem as FastViT's."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(stem(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(8, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(images))


def test_such_a_model_trains_with_contiguous_pictures() -> None:
    grafted = attach(Fast(), "head", "dropout", replicas=2, rate=0.2)
    seen: list[bool] = []
    grafted.base.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].is_contiguous()))
    with tiny_retraining(changed(SETTINGS, epochs=1), grafted=grafted) as retraining:
        retraining.run()
    assert seen
    assert all(seen)


def test_weights_of_convolutions_are_laid_out_and_stay_the_same_parameters() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 4, 3), nn.Linear(4, 4))
    model.register_parameter("positions", nn.Parameter(torch.randn(1, 4, 5, 5)))
    before = [(parameter, parameter.detach().clone()) for parameter in model.parameters()]
    lay_out_convolutions(model, torch.channels_last)
    assert [p.is_contiguous() for p in model.parameters() if p.dim() == 4] == [True, False, False]
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    for parameter, (same, value) in zip(model.parameters(), before, strict=True):
        assert parameter is same
        assert torch.equal(parameter, value)


def test_what_belongs_to_a_weight_is_laid_out_like_it() -> None:
    weight = torch.randn(8, 3, 3, 3).contiguous(memory_format=torch.channels_last)
    momentum = torch.randn(8, 3, 3, 3, dtype=torch.float64)
    found = laid_out_like(momentum, weight)
    assert found.stride() == weight.stride()
    assert found.dtype == torch.float64
    assert torch.equal(found, momentum)
    step = torch.tensor(3.0)
    assert laid_out_like(step, weight) is step
