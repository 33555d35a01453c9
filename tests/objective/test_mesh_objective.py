"""Episodes over a mesh: against a slow walker that takes every walk to every cell, one at a time."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from slow_walker import slow_mesh_objective, walk, walk_mesh
from torch import Tensor
from torch.nn.functional import cross_entropy

from spgsurgeon.errors import UsageError
from spgsurgeon.objective.episode import play_episodes, valid_mask, weights_of_steps
from spgsurgeon.objective.loss import FORMS, spg_loss

AXES = [((0.4, 0.2), (0.5, 0.3)), ((0.4,), (0.5, 0.3)), ((0.4, 0.2), ()), ((0.4,), (0.5,), (0.3,))]


def patterns(cells: int) -> Tensor:
    return torch.tensor(list(itertools.product([True, False], repeat=cells))).T


@pytest.mark.parametrize("shape", [(2, 2), (2, 3), (3, 2), (3, 3), (2, 2, 2), (1, 4), (4, 1), (5,)])
def test_a_cell_is_valid_where_every_walk_to_it_is_for_every_pattern(shape: tuple[int, ...]) -> None:
    correct = patterns(math.prod(shape))
    mask = valid_mask(correct, shape)
    for unit in range(correct.shape[1]):
        assert mask[:, unit].int().tolist() == walk_mesh(correct[:, unit], shape)


@pytest.mark.parametrize("shape", [(4,), (4, 1), (1, 4)])
def test_the_law_of_a_chain_is_that_of_a_mesh_with_one_axis(shape: tuple[int, ...]) -> None:
    correct = patterns(4)
    assert torch.equal(valid_mask(correct, shape), valid_mask(correct))
    assert valid_mask(correct, shape).T.int().tolist() == [walk(unit) for unit in correct.T]


def test_the_edges_of_a_mesh_are_its_chains_and_valid_cells_have_no_gap_before_them() -> None:
    correct = patterns(9)
    mask, right = (one.view(3, 3, -1) for one in (valid_mask(correct, (3, 3)), correct))
    assert torch.equal(mask[:, 0], valid_mask(right[:, 0]))
    assert torch.equal(mask[0], valid_mask(right[0]))
    assert not (mask[1:] & ~mask[:-1]).any()
    assert not (mask[:, 1:] & ~mask[:, :-1]).any()


def test_a_cell_has_the_product_of_its_steps_weights() -> None:
    weights = weights_of_steps(((0.4, 0.2), (0.5,)))
    assert weights == pytest.approx([1, 0.5, 0.4, 0.2, 0.2, 0.1])
    correct = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 1], [1, 1, 1], [1, 1, 1], [0, 1, 1]], dtype=torch.bool)
    episode = play_episodes(correct, torch.ones(3, dtype=torch.bool), ((0.4, 0.2), (0.5,)))
    assert episode.lengths.tolist() == [6, 3, 4]
    assert episode.returns.tolist() == pytest.approx([sum(weights), 1.9, 2.1])


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_every_form_agrees_with_the_slow_walker(axes, form: str, smoothing: float) -> None:
    cells = math.prod(len(axis) + 1 for axis in axes)
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(5, (37,), generator=generator)
    logits = torch.randn(cells, 37, 5, generator=generator)
    logits.scatter_add_(2, labels[None, :, None].expand(cells, -1, -1), torch.full_like(logits, 1.5))
    labels[::7] = -100
    fast = spg_loss(logits.flatten(0, 1), labels, axes, form, label_smoothing=smoothing)

    def unit(i: int) -> list[tuple[float, bool]]:
        rows = [logits[cell, i : i + 1].double() for cell in range(cells)]
        entropies = [cross_entropy(row, labels[i : i + 1], label_smoothing=smoothing).item() for row in rows]
        return [(entropy, bool(row.argmax() == labels[i])) for entropy, row in zip(entropies, rows, strict=True)]

    slow = slow_mesh_objective([unit(i) for i in range(37) if labels[i] != -100], axes, form)
    assert fast.loss.item() == pytest.approx(slow, rel=1e-5)
    assert 1 < fast.episode.lengths.float().mean() < cells


@pytest.mark.parametrize("form", FORMS)
def test_an_axis_without_steps_changes_nothing(form: str) -> None:
    logits, labels = torch.randn(12, 5), torch.arange(4)
    chain = spg_loss(logits, labels, (0.4, 0.2), form).loss
    assert spg_loss(logits, labels, ((0.4, 0.2), ()), form).loss == chain
    assert spg_loss(logits, labels, ((), (0.4, 0.2)), form).loss == chain


def test_rows_that_are_not_those_of_the_mesh_are_refused() -> None:
    with pytest.raises(UsageError, match=r"12 rows of logits for 4 targets and 4 steps"):
        spg_loss(torch.randn(12, 5), torch.arange(4), ((0.4,), (0.4,)))
