import pytest
import torch

from spgsurgeon.errors import VerificationError
from spgsurgeon.exporting.agreement import compare


def test_largest_difference_and_scale_are_over_all_pairs():
    small = torch.tensor([[1.0, 0.0, 0.5]])
    large = torch.tensor([[-8.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    found = compare("logits", [(large, large + torch.tensor([0.0, 0.5, 0.0])), (small, small)], tolerance=0.0625)
    assert (found.largest_difference, found.logits_scale) == (0.5, 8.0)
    assert found.top1_compared == 3 - 1  # the small margin, 0.5, is not above 0.0625 * 8


def test_a_close_call_may_flip_and_a_decided_one_may_not():
    expected = torch.tensor([[10.0, 9.95, 0.0]])
    flipped = torch.tensor([[9.97, 9.98, 0.0]])
    assert compare("logits", [(expected, flipped)], tolerance=0.006).top1_compared == 0
    with pytest.raises(VerificationError, match="top-1 of 'logits' differs"):
        compare("logits", [(expected, flipped)], tolerance=0.004)


def test_every_pixel_is_compared():
    expected = torch.zeros(2, 3, 4, 4)
    expected[:, 1] = 1.0
    assert compare("logits", [(expected, expected)], tolerance=1e-4).top1_compared == 2 * 4 * 4
    actual = expected.clone()
    actual[1, 0, 3, 3] += 1.0
    with pytest.raises(VerificationError, match=r"largest difference of 'logits' is 1, allowed is 0\.0001"):
        compare("logits", [(expected, actual)], tolerance=1e-4)


def test_other_shapes_are_a_miss_and_a_single_class_is_not():
    with pytest.raises(VerificationError, match=r"\(2, 4\), not \(2, 3\)"):
        compare("logits", [(torch.ones(2, 3), torch.ones(2, 4))], tolerance=1.0)
    assert compare("logits", [(torch.ones(2, 1), torch.ones(2, 1))], tolerance=1e-4).top1_compared == 2
