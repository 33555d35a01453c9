"""The archive of files that an earlier version wrote, and what must still be true of them."""

from __future__ import annotations

import hashlib
import inspect
import json
import tarfile
from functools import cache
from pathlib import Path
from typing import Any

import timm
import torch

import spgsurgeon

ARCHIVE = Path(__file__).with_name("old_files.tar.xz")
EXPECTED = "expected.json"
"""In the archive: what the version that wrote it made of the rest. tools/write_old_files.py says how."""

TINY = {"channels": [2, 2, 2, 4], "stem_width": 2}
"""Arguments of timm's test_resnet that make it as small as an archive in a repository wants it."""

RESUME = ("train", "--resume", "-o", "unfinished")
RESUME_COMPARISON = ("compare", "--resume", "-o", "comparison", "--jobs", "1")
INSPECTED = {
    "base": (),
    "dropout": (),
    "depth": (),
    "segmentation": (),
    "unfinished": (),
    "finished": (),
    "finished, raw": ("--weights", "raw"),
    "stripped": (),
    "segmenter.safetensors": ("--arch", "torchvision/lraspp_mobilenet_v3_large"),
    "comparison/base": (),
    "comparison/runs/plain/lr-1/seed-0": (),
    "comparison/runs/spg/lr-1/seed-0": (),
}
"""What `inspect` is given: the path before the comma, and options."""
STRIPPED = {
    "dropout": (),
    "depth": (),
    "segmentation": (),
    "unfinished": (),
    "finished": (),
    "finished, raw": ("--weights", "raw"),
    "comparison/runs/spg/lr-1/seed-0": (),
}

_LITTLE = ("--recipe", "digits-dropout", "data.limit=5", "training.epochs=1", "training.device=cpu")
COMMANDS: dict[str, tuple[str, ...]] = {
    "inspect": ("inspect", "base", "--tensors"),
    "graft": ("graft", "base", "-o", "new"),
    "train": ("train", "dropout", *_LITTLE, "-o", "new"),
    "train --dry-run": ("train", "dropout", *_LITTLE, "-o", "new", "--dry-run"),
    "strip": ("strip", "finished", "-o", "new"),
    "eval": ("eval", "stripped", "--data", "digits", "--split", "test", "--device", "cpu", "--workers", "0"),
    "eval of masks": ("eval", "segmentation", "--data", "masks", "--device", "cpu", "--workers", "0"),
    "diff": ("diff", "finished", "stripped"),
    "compare": RESUME_COMPARISON,
    "compare --dry-run": ("compare", "base", *_LITTLE, "data.eval=test", "--seeds", "1", "-o", "new", "--dry-run"),
    "report": ("report", "finished", "comparison", "-o", "new"),
    "bench": ("bench", "base", *_LITTLE[:2], "--batch-size", "2", "--steps", "1", "--device", "cpu", "--threads", "1"),
    "recipes ls": ("recipes", "ls"),
    "recipes show": ("recipes", "show", "recipes/digits-dropout.yaml"),
    "recipes cp": ("recipes", "cp", "digits-dropout", "new.yaml"),
    "recipes check": ("recipes", "check", "recipes/digits-dropout.yaml"),
    "doctor": ("doctor",),
    "an error": ("inspect", "nothing/of/this/name"),
}
"""Every verb but `demo`, whose keys test_demo.py looks at; to be run in the archive's folder, with --json."""


def path_and_options(found: dict[str, tuple[str, ...]], name: str) -> list[str]:
    """Return the arguments that an entry of `INSPECTED` or `STRIPPED` stands for."""
    return [name.partition(",")[0], *found[name]]


def extract(folder: Path) -> Path:
    """Unpack the archive into `folder` and return it."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@cache
def expected() -> dict[str, Any]:
    """Return what the writing version made of its files."""
    with tarfile.open(ARCHIVE) as archive:
        file = archive.extractfile(EXPECTED)
        assert file is not None
        found: dict[str, Any] = json.load(file)
    return found


_TIMES = {
    *("seconds", "data_seconds", "data_share", "images_per_second", "loader_images_per_core_second"),
    *("peak_memory_bytes",),
}


def without_times(value: Any) -> Any:
    """Return a document or a line of metrics without what differs whenever the same is done again."""
    if isinstance(value, dict):
        return {key: without_times(inner) for key, inner in value.items() if key not in _TIMES}
    return [without_times(inner) for inner in value] if isinstance(value, list) else value


def metrics_of(run: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics.jsonl without times and memory."""
    return [without_times(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()]


def rounding() -> str:
    """Return a hash of a few training steps by torch alone: machines and versions that have the same round alike."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = timm.create_model("test_resnet", num_classes=10, **TINY).to(memory_format=torch.channels_last).train()
        images, labels = torch.randn(50, 3, 32, 32), torch.arange(50) % 10
        for kind in (torch.optim.SGD, torch.optim.AdamW):
            optimizer = kind(model.parameters(), lr=0.01)
            for _ in range(5):
                optimizer.zero_grad()
                logits = model(images.contiguous(memory_format=torch.channels_last))
                torch.nn.functional.cross_entropy(logits, labels).backward()
                optimizer.step()
    state = b"".join(value.contiguous().numpy().tobytes() for value in model.state_dict().values())
    return hashlib.sha256(state).hexdigest()


def interface() -> dict[str, Any]:
    """Return the public names in Python, with the parameters of what is called and the attributes of classes."""
    return {name: _described(getattr(spgsurgeon, name)) for name in spgsurgeon.__all__}


def _described(public: Any) -> dict[str, Any]:
    if not callable(public):
        return {"parameters": None, "attributes": []}
    parameters = [
        {
            "name": p.name,
            "positional": p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD),
            "optional": p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD),
        }
        for p in inspect.signature(public).parameters.values()
    ]
    ours = [cls for cls in getattr(public, "__mro__", ()) if cls.__module__.startswith("spgsurgeon")]
    attributes = sorted({name for cls in ours for name in vars(cls) if not name.startswith("_")})
    return {"parameters": parameters, "attributes": attributes}
