"""Write the archive of files that later versions have to read, with the code of the version at hand.

    OMP_NUM_THREADS=1 python tests/tools/write_old_files.py      # tests/old_files.tar.xz; two minutes on two cores

Everything that this version writes, as small as it goes: grafted folders, runs (one that was stopped), a stripped
folder, a comparison, the recipes as they ship and with every default; and `expected.json`, what this version says of
them and makes of them. An archive that is there is not replaced: it is of an earlier version, which is its point.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import timm
import torch
from command_line import make_mask_folder
from old_files import (
    ARCHIVE,
    COMMANDS,
    EXPECTED,
    INSPECTED,
    RESUME,
    STRIPPED,
    TINY,
    interface,
    metrics_of,
    path_and_options,
    rounding,
    without_times,
)
from safetensors.torch import save_file
from torchvision.models import segmentation

import spgsurgeon

SHARED = ("--recipe", "digits-dropout", "training.device=cpu", "training.checkpoints.keep=1")
STOPPED = (
    *("training.epochs=5", "cold_start.epochs=1", "training.optimizer={name: adamw, lr: 0.003}"),
    *("training.ema=0.9", "training.gradient_clip=1.0", "training.checkpoints.steps=3", "data.augment.mixup=0.2"),
)
FINISHED = ("training.epochs=2", "training.ema=0.9", "training.optimizer.lr=0.1")
COMPARED = (
    *("data.limit=10", "data.holdout=0.2", "data.eval=test", "training.epochs=1"),
    *("--seeds", "1", "--learning-rates", "1", "--jobs", "1"),
)
STEPS_AN_EPOCH = 12
INTERRUPTED = 143


def run(*arguments: str, code: int | None = 0) -> dict[str, Any]:
    """Run one command in the working folder and return its JSON document."""
    command = [sys.executable, "-m", "spgsurgeon", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if code is not None and done.returncode != code:
        sys.exit(f"{' '.join(command)} left with {done.returncode}:\n{done.stdout}{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def write_bases() -> None:
    """Write a classifier with random weights, a Hub folder, and a segmentation model of zeros, a file."""
    torch.manual_seed(0)
    Path("base").mkdir()
    classifier = timm.create_model("test_resnet", num_classes=10, **TINY)
    save_file(classifier.state_dict(), "base/model.safetensors")
    config = {"architecture": "test_resnet", "num_classes": 10, "model_args": TINY}
    Path("base/config.json").write_text(json.dumps(config))
    with torch.device("meta"):
        segmenter = segmentation.lraspp_mobilenet_v3_large(weights_backbone=None, num_classes=3)
    save_file(
        {key: torch.zeros(value.shape, dtype=value.dtype) for key, value in segmenter.state_dict().items()},
        "segmenter.safetensors",
    )


def stop_amid_an_epoch(*arguments: str, run: Path) -> None:
    """Start a run of checkpoints at every third step, and send SIGTERM early in the epoch after its first score."""
    process = subprocess.Popen([sys.executable, "-m", "spgsurgeon", *arguments, "-o", str(run)])
    while step_of(run / "last") <= 2 * STEPS_AN_EPOCH:
        if process.poll() is not None:
            sys.exit("the run that was to be stopped ended by itself")
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    if process.wait() != INTERRUPTED or step_of(run / "last") % STEPS_AN_EPOCH == 0:
        sys.exit(f"the run left with {process.returncode} after step {step_of(run / 'last')}, and not amid an epoch")


def step_of(checkpoint: Path) -> int:
    """Return the step of the checkpoint that a link points to, -1 where there is none."""
    return int(checkpoint.resolve().name.partition("-")[0]) if checkpoint.exists() else -1


def write_files() -> None:
    """Write everything but `expected.json` into the working folder."""
    write_bases()
    run("graft", "base", "-o", "dropout")
    run("graft", "base", "--trp", "depth", "--replicas", "2", "-o", "depth")
    run("graft", "segmenter.safetensors", "--arch", "torchvision/lraspp_mobilenet_v3_large", "-o", "segmentation")
    stop_amid_an_epoch("train", "dropout", *SHARED, *STOPPED, run=Path("unfinished"))
    run("train", "base", *SHARED, *FINISHED, "-o", "finished")
    run("strip", "finished", "-o", "stripped", "--export", "safetensors", "--export", "pt")
    run("compare", "base", *SHARED, *COMPARED, "-o", "comparison")
    for kind in ("recipes", "resolved"):
        Path(kind).mkdir()
    for recipe in run("recipes", "ls")["recipes"]:
        shutil.copy(recipe["path"], f"recipes/{recipe['name']}.yaml")
        Path(f"resolved/{recipe['name']}.yaml").write_text(run("recipes", "show", recipe["name"])["recipe"])
    make_mask_folder(Path("masks"), splits=("val",))
    forget_the_machine()


def forget_the_machine() -> None:
    """Take this machine's name and system out of names and files."""
    for events in Path().glob("**/events.out.tfevents.*"):
        head, _, rest = events.name.partition(f".{platform.node()}.")
        events.rename(events.with_name(f"{head}.host.{rest}"))
    for path in Path().glob("**/environment.json"):
        path.write_text(path.read_text().replace(platform.platform(), platform.system()))
    for path in Path().glob("**/*"):
        if path.is_file() and str(Path.cwd()).encode() in path.read_bytes():
            sys.exit(f"{path} names the folder that it was written in")


def what_becomes_of_them(folder: Path) -> dict[str, Any]:
    """Return what this version says of the archive's files, and makes of them. They are changed by it."""
    found: dict[str, Any] = {"version": spgsurgeon.__version__, "rounding": rounding(), "interface": interface()}
    found["inspect"] = {name: run("inspect", *path_and_options(INSPECTED, name)) for name in INSPECTED}
    found["strip"] = {}
    for name in STRIPPED:
        outputs = run("strip", *path_and_options(STRIPPED, name), "-o", "new", "--force")["outputs"]
        found["strip"][name] = outputs[0]["content_hash"]
    keys = {}
    for name, command in COMMANDS.items():
        for path in (Path("new"), Path("new.yaml")):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        keys[name] = sorted(run(*command, code=None if name in ("doctor", "an error") else 0))
    keys["demo"] = sorted(run("demo", "-o", "demo"))
    found["json keys"] = keys
    found["resumed"] = without_times(run(*RESUME))
    found["metrics"] = metrics_of(folder / "unfinished")
    return found


def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Return the entry of a file without its owner and time."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


def main() -> None:
    """Write the archive."""
    if ARCHIVE.exists():
        sys.exit(f"{ARCHIVE} exists; it is of an earlier version")
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as used:
        os.chdir(made)
        write_files()
        shutil.copytree(made, used, symlinks=True, dirs_exist_ok=True)
        os.chdir(used)
        expected = what_becomes_of_them(Path(used))
        (Path(made) / EXPECTED).write_text(json.dumps(expected, indent=1) + "\n")
        os.chdir(made)
        temporary = ARCHIVE.with_suffix(".tmp")
        with tarfile.open(temporary, "w:xz", preset=9) as archive:
            for path in sorted(Path().iterdir()):
                archive.add(path, filter=anonymous)
        temporary.rename(ARCHIVE)
        os.chdir(ARCHIVE.parent)  # the other folder goes
    print(f"{ARCHIVE}: {ARCHIVE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
