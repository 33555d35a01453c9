"""An image and its mask through the same transform: they stay together, and chance comes from torch alone."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from spgsurgeon.data.transforms.augmentation import Augmentation
from spgsurgeon.data.transforms.joint import joint_evaluation_transform, joint_training_transform
from spgsurgeon.data.transforms.masks import IGNORED
from spgsurgeon.errors import UsageError
from spgsurgeon.models.preprocessing import Preprocessing

PLAIN = Preprocessing(input_size=(3, 32, 24), mean=(0.0,) * 3, std=(1.0,) * 3)
GREY = replace(PLAIN, mean=(0.5,) * 3, std=(0.25,) * 3)


def sample(width: int = 60, height: int = 40, cells: int = 4) -> tuple[Image.Image, Tensor]:
    """Return an image of cells whose red says the class, 10 of it for each, and their mask."""
    rows, columns = torch.arange(height) * cells // height, torch.arange(width) * cells // width
    mask = rows[:, None] * cells + columns[None, :]
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[..., 0] = 10 * mask.numpy()
    return Image.fromarray(pixels), mask


def agreement(picture: Tensor, mask: Tensor) -> float:
    """Return the share of counted pixels whose colour says what the mask says; edges between cells are blurred."""
    said = picture[0] * 25.5
    return ((said - mask).abs() < 0.5)[mask != IGNORED].float().mean().item()


@pytest.mark.parametrize("crop", ["random-scale", "resize"])
def test_a_mask_moves_with_its_picture(crop: str) -> None:
    transform = joint_training_transform(PLAIN, Augmentation(crop=crop))
    for _ in range(30):
        picture, mask = transform(*sample())
        assert (picture.shape, mask.shape) == ((3, 32, 24), (32, 24))
        assert (picture.dtype, mask.dtype) == (torch.float32, torch.int64)
        assert type(picture) is type(mask) is Tensor
        assert agreement(picture, mask) > 0.7
    assert agreement(picture, mask.flip(0)) < 0.5


@pytest.mark.parametrize("crop", ["random-scale", "resize"])
def test_joint_transforms_follow_torchs_generator_alone(crop: str) -> None:
    transform = joint_training_transform(PLAIN, Augmentation(crop=crop))
    runs = []
    for other_seed in (1, 2):
        random.seed(other_seed)
        np.random.seed(other_seed)
        torch.manual_seed(0)
        runs.append([transform(*sample()) for _ in range(6)])
    for first, second in zip(*runs, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert any(not torch.equal(runs[0][0][1], mask) for _, mask in runs[0][1:])


def test_random_scale_is_from_half_to_twice_the_height() -> None:
    """The width of a cell that is whole tells the scale."""
    transform = joint_training_transform(replace(PLAIN, input_size=(3, 32, 96)), Augmentation("random-scale", flip=0.0))
    widths = []
    for _ in range(300):
        _, mask = transform(*sample(width=40, height=40, cells=2))
        widths.append((mask >= 0).any(0).sum().item())
    assert 16 <= min(widths) < 20
    assert 60 < max(widths) <= 64


def test_what_is_too_small_is_padded_with_the_mean_colour_and_ignored() -> None:
    transform = joint_training_transform(replace(GREY, input_size=(3, 32, 48)), Augmentation("random-scale"))
    left, padded = set(), 0
    for _ in range(40):
        picture, mask = transform(Image.new("RGB", (10, 10), "white"), torch.ones(10, 10, dtype=torch.int64))
        outside = mask == IGNORED
        padded += bool(outside.any())
        assert picture[:, outside].abs().max() < 0.02 if outside.any() else True
        assert (picture[:, ~outside] == 2.0).all()
        left.add((~outside).any(0).nonzero()[0].item())
    assert padded > 10
    assert len(left) > 5  # it does not always lie in the corner


def test_flip() -> None:
    picture, mask = joint_training_transform(PLAIN, Augmentation("resize", flip=0.0))(*sample())
    flipped = joint_training_transform(PLAIN, Augmentation("resize", flip=1.0))(*sample())
    assert torch.equal(flipped[0], picture.flip(-1))
    assert torch.equal(flipped[1], mask.flip(-1))


@pytest.mark.parametrize(("size", "expected"), [((60, 40), (32, 48)), ((40, 60), (48, 32)), ((20, 20), (32, 32))])
def test_evaluation_resizes_the_shorter_edge_and_crops_nothing(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    transform = joint_evaluation_transform(replace(PLAIN, crop_pct=0.5))
    image, mask = sample(*size)
    picture, resized = transform(image, mask)
    assert (picture.shape[1:], resized.shape) == (expected, expected)
    assert set(resized.unique().tolist()) == set(mask.unique().tolist())
    assert agreement(picture, resized) > 0.7
    assert all(torch.equal(a, b) for a, b in zip(transform(image, mask), (picture, resized), strict=True))


@pytest.mark.parametrize("edge", [16, 64])  # at these sizes no pixel's centre falls between two pixels
def test_masks_are_resized_as_pillow_resizes_them(edge: int) -> None:
    image, mask = sample(60, 40, cells=10)
    _, resized = joint_evaluation_transform(replace(PLAIN, input_size=(3, edge, edge)))(image, mask)
    height, width = resized.shape
    theirs = Image.fromarray(mask.numpy().astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST)
    assert np.array_equal(np.asarray(theirs), resized.numpy())


@pytest.mark.parametrize(
    ("augmentation", "words", "hint"),
    [
        (Augmentation("random-resized"), "crop 'random-resized' is not for segmentation", "random-scale, resize"),
        (Augmentation("pad"), "crop 'pad' is not for segmentation", "random-scale, resize"),
        (Augmentation("resize", policy="randaugment"), "data.augment.policy", "leave data.augment.policy out"),
        (Augmentation("resize", erase=0.5), "data.augment.erase", "leave data.augment.erase out"),
        (Augmentation("random-scales"), "unknown crop 'random-scales'", "'random-scale'"),
        (Augmentation("resize", flip=1.5), "flip is a probability", "between 0 and 1"),
    ],
)
def test_refusals(augmentation: Augmentation, words: str, hint: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        joint_training_transform(PLAIN, augmentation)
    assert hint in str(caught.value.hint)
