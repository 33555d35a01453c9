"""Compare the objective with its slow walker, and its gradient with a numerical one, on random cases.

Not a test but a search: `python tests/tools/fuzz_objective.py --cases 3000 --seed 0`. Units, classes, steps, weights,
forms, smoothing, uncounted units, soft targets, maps, ties and very large logits are drawn. Prints the cases that
differ, and leaves with 1 if any do.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

sys.path.append(str(Path(__file__).parents[1] / "objective"))

from slow_walker import slow_objective

from spgsurgeon.objective.loss import FORMS, spg_loss

IGNORED = -100
CLOSE = 2e-5  # relative to the sum of the terms' sizes


def case(rng: random.Random) -> dict[str, Any]:
    """Return what is drawn of a case, without its tensors."""
    soft = rng.random() < 0.3
    return {
        "seed": rng.randrange(2**31),
        "units": rng.choice(([1], [2], [7], [37], [2, 3], [2, 3, 4])) if not soft else [rng.choice((1, 5, 23))],
        "classes": rng.choice((2, 3, 10, 101)),
        "weights": [rng.choice((0.0, 0.1, 0.4, 1.0, 7.5)) for _ in range(rng.choice((0, 1, 2, 3, 6)))],
        "form": rng.choice(list(FORMS)),
        "smoothing": rng.choice((0.0, 0.0, 0.1, 0.9)),
        "soft": soft,
        "uncounted": 0.0 if soft else rng.choice((0.0, 0.3, 1.0)),
        "scale": rng.choice((0.0, 0.01, 1.0, 30.0, 3000.0)),
        "ties": rng.random() < 0.2,
    }


def tensors(drawn: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits float32 [(T+1)*N, C, ...], labels int64 [N, ...] and targets: labels, or soft ones [N, C]."""
    generator = torch.Generator().manual_seed(drawn["seed"])
    units, classes, steps = drawn["units"], drawn["classes"], len(drawn["weights"]) + 1
    labels = torch.randint(classes, units, generator=generator)
    logits = torch.randn(steps, units[0], classes, *units[1:], generator=generator)
    own = one_hot(labels, classes).movedim(-1, 1).float()
    logits = drawn["scale"] * (logits + 1.5 * own)
    if drawn["ties"]:
        logits = logits.round()
    if drawn["soft"]:
        other = torch.randint(classes, units, generator=generator)
        targets = 0.7 * own + 0.3 * one_hot(other, classes).float()
        return logits.flatten(0, 1), labels, targets
    labels[torch.rand(units, generator=generator) < drawn["uncounted"]] = IGNORED
    return logits.flatten(0, 1), labels, labels


def slowly(drawn: dict[str, Any], logits: Tensor, labels: Tensor, targets: Tensor) -> float:
    """Return the loss by the slow walker, in float64."""
    steps, classes = len(drawn["weights"]) + 1, drawn["classes"]
    rows = logits.double().unflatten(0, (steps, -1)).movedim(2, -1).reshape(steps, -1, classes)
    flat = targets.double() if drawn["soft"] else targets.flatten()
    units = []
    for number, label in enumerate(labels.flatten().tolist()):
        if label == IGNORED:
            continue
        target = flat[number : number + 1]
        entropies = [
            cross_entropy(row[number : number + 1], target, label_smoothing=drawn["smoothing"]).item() for row in rows
        ]
        units.append(
            [(entropy, int(row[number].argmax()) == label) for entropy, row in zip(entropies, rows, strict=True)]
        )
    return slow_objective(units, drawn["weights"], drawn["form"])


def wrong(drawn: dict[str, Any]) -> str | None:
    """Return what is wrong with the objective in this case."""
    logits, labels, targets = tensors(drawn)
    logits.requires_grad_()
    options = {"label_smoothing": drawn["smoothing"], "soft": drawn["soft"], "class_dim": 1}
    result = spg_loss(logits, targets, drawn["weights"], drawn["form"], **options)
    fast, slow = result.loss.item(), slowly(drawn, logits.detach(), labels, targets)
    if not math.isclose(fast, slow, rel_tol=CLOSE, abs_tol=CLOSE * max(1.0, drawn["scale"])):
        return f"{fast}, by the walker {slow}"
    result.loss.backward()
    if logits.grad is None or not torch.isfinite(logits.grad).all():
        return "a gradient that is not finite"
    if drawn["uncounted"] == 1.0 and (fast, float(logits.grad.abs().sum())) != (0.0, 0.0):
        return "a loss without a unit that counts"
    lengths = result.episode.lengths
    if not ((lengths >= 1) & (lengths <= len(drawn["weights"]) + 1)).all():
        return "an episode of impossible length"
    return None


def fuzz(cases: int, seed: int) -> list[str]:
    """Return the cases that are wrong, of so many."""
    rng = random.Random(seed)
    drawn = [case(rng) for _ in range(cases)]
    return [f"{reason}: {one}" for one in drawn if (reason := wrong(one))]


def main() -> int:
    """Run the search and say what it found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    found = fuzz(asked.cases, asked.seed)
    print("\n".join(found))
    print(f"{asked.cases} cases: {len(found)} differ")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
