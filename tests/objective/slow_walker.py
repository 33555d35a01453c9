"""The objective in plain Python: walks each episode by eq. 6, 8 and 9, whatever the units are and however they're read.

A unit is what happens to it at each of its T+1 steps: (its cross entropy, whether it is predicted right).
"""

from collections.abc import Sequence
from itertools import product
from math import prod

Unit = Sequence[tuple[float, bool]]


def walk(correct):
    """Observed states and rewards of one episode: eq. 6 and eq. 8, T+1 steps."""
    observed, rewards = 1, []
    for is_correct in correct:
        rewards.append(1 if observed > 0 else 0)
        observed = observed * (observed + int(is_correct)) - 1
        assert observed in (1, 0, -1)
    return rewards


def walks_to(cell: tuple[int, ...]) -> list[list[tuple[int, ...]]]:
    """Return every walk from the first cell of a mesh to this one, which goes forward along one axis at a time."""
    before = [(*cell[:axis], place - 1, *cell[axis + 1 :]) for axis, place in enumerate(cell) if place]
    return [[*walk, cell] for one in before for walk in walks_to(one)] if before else [[cell]]


def walk_mesh(correct, shape: Sequence[int]) -> list[int]:
    """Return the rewards of the cells of a mesh: 1 where every walk to a cell has it, each walk being an episode."""
    cells = list(product(*map(range, shape)))
    right = dict(zip(cells, correct, strict=True))
    return [min(walk([right[passed] for passed in one])[-1] for one in walks_to(cell)) for cell in cells]


def slow_objective(units: Sequence[Unit], weights: Sequence[float], form: str) -> float:
    """Return the loss of the units that count."""
    walks = [walk([right for _, right in unit]) for unit in units]
    return _objective(units, walks, [1.0, *weights], form)


def slow_mesh_objective(units: Sequence[Unit], axes: Sequence[Sequence[float]], form: str) -> float:
    """Return the loss of the units that count, whose steps are the cells of a mesh with these weights of its axes."""
    lambdas = [prod(cell) for cell in product(*([1.0, *axis] for axis in axes))]
    walks = [walk_mesh([right for _, right in unit], [len(axis) + 1 for axis in axes]) for unit in units]
    return _objective(units, walks, lambdas, form)


def _objective(units: Sequence[Unit], walks: Sequence[Sequence[int]], lambdas: Sequence[float], form: str) -> float:
    entropies = [[entropy for entropy, _ in unit] for unit in units]
    total = 0.0
    if form == "step":
        for t, weight in enumerate(lambdas):
            valid = [entropy[t] for entropy, rewards in zip(entropies, walks, strict=True) if rewards[t]]
            total += weight * sum(valid) / len(valid) if valid else 0.0
        return total
    for entropy, rewards in zip(entropies, walks, strict=True):
        returns = sum(weight * reward for weight, reward in zip(lambdas, rewards, strict=True))
        log_probability = sum(value for value, reward in zip(entropy, rewards, strict=True) if reward)
        total += returns * log_probability / (sum(rewards) if form == "episode-mean" else 1)
    return total / len(units) if units else 0.0
