"""`spgsurgeon demo`: the whole job on real handwritten digits, with an honest control, on any machine.

For each seed a small base is trained; then two arms retrain it for equally long, SPG and plainly. Both get the same
grid of learning rates, chosen on the validation part; scores are computed on the test part, which chose nothing.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from spgsurgeon.checkpoint.writing import write_json
from spgsurgeon.errors import UsageError
from spgsurgeon.workflows.evaluate import evaluate_model
from spgsurgeon.workflows.strip import strip_folder
from spgsurgeon.workflows.train import train

MODEL = "timm/test_resnet"
RECIPE = "digits-dropout"
SEEDS = (0, 1, 2)
LEARNING_RATES = (0.02, 0.06, 0.18)
ARMS: dict[str, tuple[str, ...]] = {"plain": ("trp.kind=none",), "spg": ()}
BASE = ("trp.kind=none", "training.epochs=8", "training.optimizer.lr=0.1", "training.device=cpu")
RETRAINING = ("training.epochs=6", "training.device=cpu")
_RESULT = "demo.json"

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Arm:
    """One retraining: an arm of a seed at one learning rate of the grid."""

    seed: int
    name: str
    learning_rate: float

    @property
    def folder(self) -> Path:
        return Path(f"seed-{self.seed}", f"{self.name}-{self.learning_rate}")


def demo(output: Path, *, force: bool = False, say: Say = lambda text: None) -> dict[str, Any]:
    """Run the demo into the folder `output` and return the document of `demo --json`.

    `say` is told each stage. Scores are top-1 in percent on the test part. `force` replaces an earlier demo.
    """
    _make_folder(output, force)
    # Spawned workers with one thread each: the model is too small for more, and threads would change the rounding.
    workers = min(len(SEEDS) * len(ARMS), os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_start_worker) as pool:
        document = _run(output, pool, say)
    write_json(output / _RESULT, document)
    return document


def _run(output: Path, pool: Executor, say: Say) -> dict[str, Any]:
    say(f"train a small base for each of {len(SEEDS)} seeds ({MODEL}, 600 digits)")
    bases = list(pool.map(_train_base, [output] * len(SEEDS), SEEDS))
    say(f"retrain each: {', '.join(ARMS)}; learning rates {', '.join(map(str, LEARNING_RATES))}; equally long")
    arms = [_Arm(seed, name, rate) for seed in SEEDS for name in ARMS for rate in LEARNING_RATES]
    validation = dict(zip(arms, pool.map(_retrain, [output] * len(arms), arms), strict=True))
    rows = [_row(output, seed, base, validation, pool) for seed, base in zip(SEEDS, bases, strict=True)]
    spg = [arm for arm in arms if arm.name == "spg" and arm.learning_rate == rows[arm.seed]["spg_learning_rate"]]
    best = max(spg, key=lambda arm: validation[arm])
    say(f"strip the SPG model of seed {best.seed}, prove it, export it")
    stripped = strip_folder(
        output / best.folder,
        output / "stripped",
        exports=["safetensors", "onnx"],
        reference=str(output / f"seed-{best.seed}" / "base"),
    )
    return {
        "seeds": rows,
        "mean": {arm: sum(row[arm] for row in rows) / len(rows) for arm in ("base", *ARMS)},
        "outputs": [written["path"] for written in stripped["outputs"]],
        "proof": stripped["proof"],
        "onnx_largest_difference": stripped["outputs"][1]["largest_difference"],
    }


def _row(
    output: Path, seed: int, base: float, validation: dict[_Arm, tuple[float, float]], pool: Executor
) -> dict[str, Any]:
    """Return a seed's scores, each arm's at the learning rate that validated best."""
    chosen = [
        max((arm for arm in validation if (arm.seed, arm.name) == (seed, name)), key=lambda arm: validation[arm])
        for name in ARMS
    ]
    scores = pool.map(_test_score, [output / arm.folder for arm in chosen])
    row: dict[str, Any] = {"seed": seed, "base": base}
    for arm, score in zip(chosen, scores, strict=True):
        row |= {arm.name: score, f"{arm.name}_learning_rate": arm.learning_rate}
    return row


def _train_base(output: Path, seed: int) -> float:
    """Train the base of a seed; return its test score."""
    run = output / f"seed-{seed}" / "base"
    train(MODEL, recipe=RECIPE, overrides=[*BASE, f"training.seed={seed}"], output=run, random_weights=True)
    return _test_score(run)


def _retrain(output: Path, arm: _Arm) -> tuple[float, float]:
    """Retrain one arm; return its validation score: top-1, then (500 digits often tie) minus the loss."""
    settings = [*ARMS[arm.name], *RETRAINING, f"training.optimizer.lr={arm.learning_rate}", f"training.seed={arm.seed}"]
    base = output / f"seed-{arm.seed}" / "base"
    best = train(str(base), recipe=RECIPE, overrides=settings, output=output / arm.folder)["best"]
    return best["top1"], -best["loss"]


def _test_score(run: Path) -> float:
    score: float = evaluate_model(str(run), "digits", split="test", workers=0, device="cpu")["top1"]
    return score


def _start_worker() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")


def _make_folder(output: Path, force: bool) -> None:
    if output.exists():
        if not force:
            raise UsageError(f"{output} exists", hint="give another output, or --force to replace an earlier demo")
        if not (output / _RESULT).is_file():
            raise UsageError(f"{output} is not replaced, even with --force: it is no demo (no {_RESULT})")
        shutil.rmtree(output)
    output.mkdir(parents=True)
