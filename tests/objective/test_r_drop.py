"""R-Drop's divergence: its definition, unit by unit, and what does not count."""

import pytest
import torch

from spgsurgeon.errors import UsageError
from spgsurgeon.objective.r_drop import divergence


def by_hand(logits, target):
    found = []
    first, second = logits.chunk(2)
    for sample in range(len(target)):
        for unit in range(target[sample].numel()):
            if target[sample].flatten()[unit] == -100:
                continue
            p, q = (half[sample].flatten(1)[:, unit].softmax(0) for half in (first.unsqueeze(-1), second.unsqueeze(-1)))
            found.append(((p * (p / q).log()).sum() + (q * (q / p).log()).sum()) / 2)
    return sum(found) / len(found)


@pytest.mark.parametrize("units", [(), (5,), (2, 3)])
def test_it_is_the_mean_of_both_directions(units) -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(8, 3, *units), torch.randint(3, (4, *units))
    target[0] = -100
    assert divergence(logits, target).item() == pytest.approx(float(by_hand(logits, target)), rel=1e-5)


def test_nothing_apart_and_nothing_counted_are_zero() -> None:
    logits, target = torch.randn(4, 3).repeat(2, 1).requires_grad_(), torch.tensor([0, 1, 2, 0])
    assert divergence(logits, target).item() == pytest.approx(0, abs=1e-6)
    nothing = divergence(torch.randn(8, 3, requires_grad=True), torch.full((4,), -100))
    nothing.backward()
    assert nothing.item() == 0


def test_ranks_share_their_counts() -> None:
    logits, target = torch.randn(8, 3), torch.tensor([0, 1, -100, -100])
    whole = divergence(logits, target)
    assert divergence(logits, target, mean_over_ranks=lambda count: count * 2).item() == pytest.approx(whole.item() / 2)


@pytest.mark.parametrize("shape", [(7, 3), (8, 3, 2), (8,)])
def test_shapes_that_do_not_fit(shape) -> None:
    with pytest.raises(UsageError):
        divergence(torch.randn(shape), torch.zeros(4, dtype=torch.int64))
