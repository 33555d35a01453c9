"""`spgsurgeon demo`: the whole job on real handwritten digits, with an honest control, on any machine.

A small base is trained; `compare` retrains it with SPG and plainly, for as long, five seeds each; the best SPG run is
stripped, proven and exported.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spgsurgeon.checkpoint import atomic_file, atomic_folder, refuse_existing, write_json
from spgsurgeon.commands.compare import compare
from spgsurgeon.commands.strip import strip_folder
from spgsurgeon.comparing import PLAIN, RESULTS, merit, one_thread, read_results, results_of
from spgsurgeon.errors import UsageError
from spgsurgeon.replicas import kinds
from spgsurgeon.runtime import FolderLock, InterruptedRunError, extra_hint, missing
from spgsurgeon.tasks import task_scored_by
from spgsurgeon.training import train

MODEL = "timm/test_resnet"
RECIPE = "digits-dropout"
ARMS = (PLAIN, "spg")
SEEDS = 5
SHARED = ("data.holdout=0.2", "training.device=cpu")  # nor does the base see what learning rates are chosen on
BASE = (*SHARED, f"trp.kind={kinds.PLAIN}", "data.eval=holdout", "training.epochs=10", "training.optimizer.lr=0.1")
RETRAINING = (*SHARED, "data.eval=test", "training.epochs=6")
COMPARISON = "comparison"
"""The folder of the comparison in that of a demo."""
_RESULT = "demo.json"
_LATER = ("base/", f"{COMPARISON}/", "stripped/")  # see `ownership`

Say = Callable[[str], None]


def demo(output: Path, *, force: bool = False, say: Say = lambda text: None) -> dict[str, Any]:
    """Run the demo into the folder `output` and return the document of `demo --json`.

    `say` is told each stage. Scores are top-1 in percent on the test part; `comparison` is the document of `compare`,
    and `command` does that part by itself. `force` replaces an earlier demo, also one that was stopped.
    """
    with _make_folder(output, force):
        try:
            document = _run(output, say)
        except InterruptedRunError as error:
            error.hint = "the same command with --force starts it again"
            raise
        with atomic_file(output / _RESULT, force=True) as temporary:
            write_json(temporary, document)
    return document


def _run(output: Path, say: Say) -> dict[str, Any]:
    base, comparison = output / "base", output / COMPARISON
    say(f"train a small base ({MODEL}, 480 digits)")
    with one_thread():  # the model is too small for more, and their number would change the rounding
        train(MODEL, recipe=RECIPE, overrides=BASE, output=base, random_weights=True)
    command = ["spgsurgeon", "compare", str(base), "--recipe", RECIPE, *RETRAINING, "--seeds", str(SEEDS)]
    command += ["--arms", ",".join(ARMS), "-o", str(comparison)]
    say(shlex.join(command))
    compared = compare(
        str(base),
        recipe=RECIPE,
        overrides=RETRAINING,
        arms=ARMS,
        seeds=SEEDS,
        output=comparison,
        say=say,
    )[0]
    arms = compared["arms"]
    results = results_of(read_results(comparison / RESULTS), "spg", arms["spg"]["multiple"])
    metric = task_scored_by(compared["metric"]).primary
    best = max(results, key=lambda result: merit([result], metric))
    say(f"strip the SPG model of seed {best.run.seed}, prove it, export it")
    exports = ["safetensors", "onnx"]
    if missing("onnx"):
        exports.remove("onnx")
        say(f"no ONNX file is written: it needs the packages of {extra_hint('onnx')}")
    stripped = strip_folder(comparison / best.folder, output / "stripped", exports=exports, reference=str(base))
    return {
        "seeds": [
            {"seed": seed, "base": compared["original"]} | {arm: arms[arm]["scores"][place] for arm in ARMS}
            for place, seed in enumerate(compared["seeds"])
        ],
        "mean": {"base": compared["original"]} | {arm: arms[arm]["mean"] for arm in ARMS},
        "comparison": compared,
        "command": shlex.join(command),
        "outputs": [written["path"] for written in stripped["outputs"]],
        "proof": stripped["proof"],
        "onnx_largest_difference": stripped["outputs"][1]["largest_difference"] if "onnx" in exports else None,
    }


def _make_folder(output: Path, force: bool) -> FolderLock:
    """Make the folder, with what says that it is a demo's if it comes no further, and return the lock on it.

    Raises UsageError if it exists. `force` replaces one that is all ours and that nobody writes to.
    """
    if os.path.lexists(output) and not force:
        raise UsageError(f"{output} exists", hint="give another output, or --force to replace an earlier demo")
    refuse_existing(output, force=force)
    with atomic_folder(output, force=force, later=_LATER) as folder:
        write_json(folder / _RESULT, {})
        owned = FolderLock(folder)
    owned.moved_to(output)
    return owned
