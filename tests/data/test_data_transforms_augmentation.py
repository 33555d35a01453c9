"""Transforms: sizes, types, where their random numbers come from, and what is refused."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from torchvision.transforms import v2

from spgsurgeon.data.transforms.augmentation import (
    CROPS,
    POLICIES,
    Augmentation,
    Normalised,
    evaluation_transform,
    to_normalised,
    training_transform,
)
from spgsurgeon.errors import UsageError
from spgsurgeon.models.preprocessing import Preprocessing

SMALL = Preprocessing(input_size=(3, 32, 32))


def picture(width: int = 40, height: int = 30) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("policy", [None, *POLICIES])
@pytest.mark.parametrize("crop", [name for name, crop in CROPS.items() if "classification" in crop.tasks])
@pytest.mark.parametrize("channels", [1, 3])
def test_training_pictures_follow_torchs_generator_alone(crop: str, policy: str | None, channels: int) -> None:
    size = (channels, 32, 24)
    preprocessing = Preprocessing(input_size=size, mean=(0.5,) * channels, std=(0.25,) * channels)
    transform = training_transform(preprocessing, Augmentation(crop=crop, policy=policy, erase=0.5))
    results = []
    for other_seed in (1, 2):
        random.seed(other_seed)
        np.random.seed(other_seed)
        torch.manual_seed(0)
        results.append(torch.stack([transform(picture()) for _ in range(4)]))
    assert results[0].shape == (4, *size)
    assert results[0].dtype == torch.float32
    assert type(results[0]) is torch.Tensor
    assert torch.equal(*results)
    assert not torch.equal(results[0][0], results[0][1])


def test_no_augmentation_is_a_plain_resize() -> None:
    transform = training_transform(SMALL, Augmentation(crop="resize", flip=0.0))
    expected = np.asarray(picture().resize((32, 32), Image.Resampling.BILINEAR), dtype=np.float32) / 255
    mean, std = torch.tensor(SMALL.mean), torch.tensor(SMALL.std)
    torch.testing.assert_close(transform(picture()), ((torch.from_numpy(expected) - mean) / std).permute(2, 0, 1))


@pytest.mark.parametrize("channels", [1, 3])
def test_numbers_are_those_of_torchvisions_transforms(channels: int) -> None:
    preprocessing = Preprocessing((channels, 30, 40), mean=(0.485, 0.456, 0.406)[:channels], std=(0.3,) * channels)
    image = picture().convert("L") if channels == 1 else picture()
    found = Normalised(preprocessing)(image)
    assert torch.equal(found, v2.Compose(to_normalised(preprocessing))(image))
    assert found.is_contiguous()


def test_pad_shifts_by_an_eighth_of_the_size() -> None:
    preprocessing = replace(SMALL, input_size=(3, 32, 16), mean=(0.0,) * 3, std=(1.0,) * 3)
    transform = training_transform(preprocessing, Augmentation(crop="pad", flip=0.0))
    torch.manual_seed(0)
    masks = torch.stack([transform(Image.new("RGB", (40, 30), "white"))[0] for _ in range(200)])
    assert masks.unique().tolist() == [0.0, 1.0]
    assert ((masks == 0).sum((1, 2)) > 0).float().mean() > 0.5
    assert [(masks == 0).all(2).sum(1).max().item(), (masks == 0).all(1).sum(1).max().item()] == [4, 2]


def test_flip_and_erase_do_what_they_say() -> None:
    plain = training_transform(SMALL, Augmentation(crop="resize", flip=0.0))(picture())
    flipped = training_transform(SMALL, Augmentation(crop="resize", flip=1.0))(picture())
    assert torch.equal(flipped, plain.flip(-1))
    erased = training_transform(SMALL, Augmentation(crop="resize", flip=0.0, erase=1.0))(picture())
    assert (erased == 0).all(0).any()


@pytest.mark.parametrize("crop_pct", [0.875, 0.95, 1.0])
# Not bicubic at sizes that are not square: older timm forgets the interpolation there.
@pytest.mark.parametrize(
    ("size", "interpolation"),
    [((3, 32, 32), "bilinear"), ((3, 32, 32), "bicubic"), ((3, 32, 64), "bilinear"), ((3, 64, 32), "bilinear")],
)
def test_evaluation_is_timms(size: tuple[int, int, int], crop_pct: float, interpolation: str) -> None:
    preprocessing = Preprocessing(input_size=size, crop_pct=crop_pct, interpolation=interpolation)
    theirs = create_transform(
        size, crop_pct=crop_pct, interpolation=interpolation, mean=preprocessing.mean, std=preprocessing.std
    )
    torch.testing.assert_close(evaluation_transform(preprocessing)(picture()), theirs(picture()))


def test_evaluation_at_torchvisions_sizes_is_exact() -> None:
    preset = Preprocessing(crop_pct=224 / 232)
    assert "Resize(size=[232]" in evaluation_transform(preset).fixed_key()


def test_evaluation_is_deterministic_and_enlarges_small_pictures() -> None:
    transform = evaluation_transform(replace(SMALL, crop_pct=1.0))
    digit = picture(8, 8)
    assert transform(digit).shape == (3, 32, 32)
    assert torch.equal(transform(digit), transform(digit))


@pytest.mark.parametrize(
    ("augmentation", "preprocessing", "words"),
    [
        (Augmentation(crop="padd"), SMALL, "unknown crop 'padd'"),
        (Augmentation(crop="random-scale"), SMALL, "'random-scale' is not for classification"),
        (Augmentation(policy="rand-augment"), SMALL, "unknown policy 'rand-augment'"),
        (Augmentation(flip=1.5), SMALL, "flip is a probability"),
        (Augmentation(erase=-0.1), SMALL, "erase is a probability"),
        (Augmentation(), replace(SMALL, interpolation="cubic"), "unknown interpolation 'cubic'"),
        (Augmentation(), replace(SMALL, input_size=(4, 32, 32)), "reads 4 channels"),
        (Augmentation(), replace(SMALL, input_size=(1, 32, 32)), "1 channels with 3 means"),
    ],
)
def test_refusals(augmentation: Augmentation, preprocessing: Preprocessing, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        training_transform(preprocessing, augmentation)
