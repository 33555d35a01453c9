"""Mixup and cutmix: soft labels tell the truth about the mixed images."""

import pytest
import torch

from spgsurgeon.data.transforms.mixing import BatchMixer

LABELS = torch.tensor([0, 1, 2, 3])
IMAGES = torch.eye(4)[:, :, None, None].expand(4, 4, 16, 16).contiguous()  # channel c is 1 in images of class c


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_labels_are_the_share_of_each_class_in_the_pixels(mixup: float, cutmix: float) -> None:
    mixer = BatchMixer(mixup, cutmix, num_classes=4)
    assert mixer.active
    for seed in range(8):
        torch.manual_seed(seed)
        images, labels = mixer(IMAGES, LABELS)
        assert (labels.shape, labels.dtype) == ((4, 4), torch.float32)
        torch.testing.assert_close(images.mean((2, 3)), labels)


def test_both_kinds_occur_and_the_seed_decides() -> None:
    mixer = BatchMixer(0.8, 1.0, num_classes=4)

    def is_mixup(seed: int) -> bool:
        torch.manual_seed(seed)
        images = mixer(IMAGES, LABELS)[0]
        return bool(((images > 0) & (images < 1)).any())

    kinds = [is_mixup(seed) for seed in range(16)]
    assert set(kinds) == {True, False}
    assert kinds == [is_mixup(seed) for seed in range(16)]


def test_the_given_batch_is_left_as_it_was() -> None:
    images, labels = IMAGES.clone(), LABELS.clone()
    BatchMixer(0.8, 1.0, num_classes=4)(images, labels)
    assert torch.equal(images, IMAGES)
    assert torch.equal(labels, LABELS)


def test_nothing_to_mix() -> None:
    assert not BatchMixer(0.0, 0.0, num_classes=4).active
