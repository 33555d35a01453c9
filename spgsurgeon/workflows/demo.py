"""`spgsurgeon demo`: the whole job on real handwritten digits, with an honest control, on any machine.

For each seed a small base is trained; then two arms retrain it for equally long, SPG and plainly. Both get the same
grid of learning rates, chosen on the validation part; scores are computed on the test part, which chose nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from spgsurgeon.checkpoint.writing import atomic_folder, write_json
from spgsurgeon.workflows.evaluate import evaluate_model
from spgsurgeon.workflows.strip import strip_folder
from spgsurgeon.workflows.train import train

MODEL = "timm/test_resnet"
RECIPE = "digits-dropout"
SEEDS = (0, 1, 2)
LEARNING_RATES = (0.02, 0.06, 0.18)
BASE_OVERRIDES = ("trp.kind=none", "training.epochs=10", "training.optimizer.lr=0.1")
ARMS: dict[str, tuple[str, ...]] = {"plain": ("trp.kind=none",), "spg": ()}
EPOCHS = 8

Say = Callable[[str], None]


def demo(output: Path, *, force: bool = False, say: Say = lambda text: None) -> dict[str, Any]:
    """Run the demo into the folder `output` and return the document of `demo --json`.

    `say` is told each step. All scores are top-1 in percent on the test part.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the model is so small that more threads only get in each other's way
    try:
        with atomic_folder(output, force=force) as folder:
            document = _run(folder, say)
            write_json(folder / "demo.json", document)
    finally:
        torch.set_num_threads(threads)
    return document | {"outputs": [str(output / path) for path in document["outputs"]]}


def _run(folder: Path, say: Say) -> dict[str, Any]:
    seeds = [_one_seed(folder / f"seed-{seed}", seed, say) for seed in SEEDS]
    mean = {arm: sum(row[arm] for row in seeds) / len(seeds) for arm in ("base", "plain", "spg")}
    best = max(seeds, key=lambda row: row["spg_validation"])
    say(f"strip the SPG model of seed {best['seed']}, prove it, export it")
    runs = folder / f"seed-{best['seed']}"
    stripped = strip_folder(
        runs / f"spg-{best['spg_learning_rate']}",
        folder / "stripped",
        exports=["safetensors", "onnx"],
        reference=str(runs / "base"),
    )
    return {
        "seeds": seeds,
        "mean": mean,
        "learning_rates": list(LEARNING_RATES),
        "epochs": EPOCHS,
        "outputs": [str(Path("stripped") / Path(written["path"]).name) for written in stripped["outputs"]],
        "proof": stripped["proof"],
        "onnx_largest_difference": stripped["outputs"][1]["largest_difference"],
    }


def _one_seed(folder: Path, seed: int, say: Say) -> dict[str, Any]:
    """Train a base and both arms; return the row of the table, and the SPG arm's validation score."""
    say(f"seed {seed}: train a base")
    base = folder / "base"
    seeded = f"training.seed={seed}"
    train(MODEL, recipe=RECIPE, overrides=[*BASE_OVERRIDES, seeded], output=base, random_weights=True)
    row: dict[str, Any] = {"seed": seed, "base": _test_score(base)}
    for arm, overrides in ARMS.items():
        say(f"seed {seed}: retrain it, {arm}, at learning rates {', '.join(map(str, LEARNING_RATES))}")
        runs = {}
        for rate in LEARNING_RATES:
            run = folder / f"{arm}-{rate}"
            settings = [*overrides, f"training.epochs={EPOCHS}", f"training.optimizer.lr={rate}", seeded]
            runs[rate] = train(str(base), recipe=RECIPE, overrides=settings, output=run)
        # Ties, which 500 pictures often give, go to the lower loss.
        chosen = max(runs, key=lambda rate: (runs[rate]["best"]["top1"], -runs[rate]["best"]["loss"]))
        row |= {arm: _test_score(Path(runs[chosen]["run"])), f"{arm}_learning_rate": chosen}
        row[f"{arm}_validation"] = runs[chosen]["best"]["top1"]
    return row


def _test_score(run: Path) -> float:
    score: float = evaluate_model(str(run), "digits", split="test", workers=0, device="cpu")["top1"]
    return score
