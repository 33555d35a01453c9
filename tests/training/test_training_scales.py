"""Training and evaluation show things as large, or a note says so; the usual recipes have none."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from spgsurgeon.data.transforms.augmentation import Augmentation, training_transform
from spgsurgeon.models.preprocessing import Preprocessing
from spgsurgeon.training.soundness.scales import _CROP, said_of_scale


def sized(side: int, share: float = 0.875) -> Preprocessing:
    return Preprocessing(input_size=(3, side, side), crop_pct=share)


@pytest.mark.parametrize(
    ("crop", "trained", "scored", "words"),
    [
        ("random-resized", sized(224), sized(224), None),  # as everybody does it
        ("random-resized", sized(224, 0.95), sized(288, 0.95), None),
        ("pad", sized(96), sized(96), None),
        ("resize", sized(96, 1.0), sized(96, 1.0), None),
        ("random-resized", sized(224, 1.0), sized(224, 1.0), "1.5 times smaller"),
        ("random-resized", sized(224, 1.0), sized(224, 1.0), "data.eval_image_size=320"),
        ("pad", sized(96), sized(224), "2.7 times larger"),
        ("pad", sized(96), sized(224), "data.eval_image_size=96"),
    ],
)
def test_a_note_if_things_look_larger_or_smaller(
    crop: str, trained: Preprocessing, scored: Preprocessing, words: str | None
) -> None:
    said = said_of_scale(crop, trained, scored)
    assert (words in said[0]) if words else said == []


def test_the_share_that_a_random_crop_takes_is_as_said() -> None:
    """A ramp from left to right: how much of it a crop spans."""
    ramp = Image.frombytes("L", (256, 256), bytes(range(256)) * 256).convert("RGB")
    plain = Preprocessing(input_size=(3, 64, 64), mean=(0.0,) * 3, std=(1.0,) * 3)
    transform = training_transform(plain, Augmentation(crop="random-resized", flip=0, policy=None, erase=0))
    torch.manual_seed(0)
    spans = [float(image[0].max() - image[0].min()) for image in (transform(ramp) for _ in range(300))]
    assert sum(spans) / len(spans) == pytest.approx(_CROP, abs=0.03)
