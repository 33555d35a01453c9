"""Runs of a second: 8x8 images in memory, a module of a few hundred parameters, and what to compare of two runs."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from attaching import attach
from PIL import Image
from torch import nn

from spgsurgeon.checkpoint.folders import GraftManifest
from spgsurgeon.checkpoint.hashing import content_hash
from spgsurgeon.data.cache.caching import Cache
from spgsurgeon.data.loading.loader import EvaluationBatches, TrainingBatches
from spgsurgeon.data.loading.samples import Batch
from spgsurgeon.data.transforms.augmentation import Augmentation, evaluation_transform, training_transform
from spgsurgeon.models.inputs import IMAGES
from spgsurgeon.models.preprocessing import Preprocessing
from spgsurgeon.recipe.schema import ColdStartSection, Recipe
from spgsurgeon.recipe.training_section import CheckpointSection, OptimizerSection, TrainingSection
from spgsurgeon.replicas.grafted import GraftedModel
from spgsurgeon.runs.folder import RunFolder
from spgsurgeon.runs.trackers import trackers_of
from spgsurgeon.runtime.distributed import Processes
from spgsurgeon.sections import Section
from spgsurgeon.tasks.classification import CLASSIFICATION
from spgsurgeon.training.loop import Retraining

Changed = TypeVar("Changed", bound=Section)
CLASSES = 4
ONE_PROCESS = Processes(0, 1, torch.device("cpu"))
ON_A_GPU = Processes(0, 1, torch.device("cuda"))
PREPROCESSING = Preprocessing(input_size=(3, 8, 8), crop_pct=1.0)
WEIGHTS = (0.4, 0.2)
LABELS = ("0", "0.2", "0.36", "3", "4", "5")
"""Of three steps; a mesh has more of them."""
ADAMW = OptimizerSection(name="adamw", lr=3e-3, weight_decay=1e-2)


def changed(section: Changed, **changes: Any) -> Changed:
    """Return a section of a recipe with other values; of a whole recipe those of `training` and of augmentation too."""
    if isinstance(section, Recipe):
        augment = {key: changes.pop(key) for key in ("mixup", "cutmix") if key in changes}
        data = changed(section.data, augment=changed(section.data.augment, **augment))
        training = {key: changes.pop(key) for key in TrainingSection.model_fields if key in changes}
        changes |= {"data": data, "training": changed(section.training, **training)}
    assert changes.keys() <= type(section).model_fields.keys()
    return section.model_copy(update=changes)


SETTINGS = changed(
    Recipe.model_validate(
        {"data": {"source": "digits"}, "trp": {"kind": "dropout", "replicas": 2}, "objective": {"weights": WEIGHTS}}
    ),
    epochs=2,
    optimizer=OptimizerSection(lr=0.05),
)
EVERYTHING = changed(
    SETTINGS,
    optimizer=ADAMW,
    cold_start=ColdStartSection(until="converged", max_epochs=2, tolerance=1e-6, batch_norm="track"),
    gradient_clip=1.0,
    accumulate=2,
    mixup=0.4,
    cutmix=0.4,
    ema=0.9,
)
"""Three steps an epoch: 1..6 of the cold start, 7..12 of the training."""


class Noise:
    """Images of noise, the brighter the higher their label."""

    name = "noise"
    classes = tuple(str(label) for label in range(CLASSES))

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> tuple[Image.Image, int]:
        label = index % CLASSES
        pixels = np.random.default_rng(index).integers(0, 120, (8, 8, 3)) + 40 * label
        return Image.fromarray(pixels.astype(np.uint8)), label

    def describe(self, index: int) -> str:
        return f"noise {index}"

    def labels(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        return np.arange(self.count) % CLASSES


class Tiny(nn.Module):
    def __init__(self, *, dropout: float = 0.2, norm: bool = True) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 6, 3),
            nn.BatchNorm2d(6) if norm else nn.Identity(),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(6, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(images))


class TinyAuxiliary(Tiny):
    """A second head, which is an output of its own in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.auxiliary = nn.Linear(6, CLASSES)

    def forward(self, images: torch.Tensor) -> Any:
        hidden = self.body(images)
        return (self.head(hidden), self.auxiliary(hidden)) if self.training else self.head(hidden)


def tiny_grafted(seed: int = 0, *, rate: float = 0.2, replicas: int = 2, **options: Any) -> GraftedModel:
    """Return a tiny model with replicas at its head; without any, it is the control."""
    torch.manual_seed(seed)
    settings = {"kind": "dropout", "replicas": replicas, "rate": rate} if replicas else {"kind": "none"}
    return attach(Tiny(**options), "head", **settings)


def tiny_run_folder(
    path: Path, keep: int = 2, *, create: bool | None = None, companions: dict[str, bytes] | None = None
) -> RunFolder:
    """Return the folder of a tiny run; left out, `create` makes it where there is none."""
    base = dict.fromkeys(("source", "library", "architecture", "content_hash", "layout"), "tiny") | {
        "num_classes": CLASSES,
        "tensors": 9,
        "model_args": {},
    }
    manifest = GraftManifest(
        package_version="0", base=base, trp={"kind": "dropout"}, site={"module": "head"}, temporary_parameters=84
    )
    trackers = trackers_of(None, path, {})
    run = RunFolder(path, {"architecture": "tiny"}, manifest, companions=companions, keep=keep, trackers=trackers)
    if create or (create is None and not path.exists()):
        run.create("model: tiny\n")
    return run


class Watcher:
    """Collects the epochs' lines and calls `at_step` with each finished step's number."""

    def __init__(self, at_step: Callable[[int], None] = lambda step: None) -> None:
        self.at_step = at_step
        self.lines: list[dict[str, Any]] = []
        self.warnings: list[str] = []
        self.steps = self.done = self.first = -1

    def start(self, steps: int, done: int) -> None:
        self.steps, self.done, self.first = steps, done, done

    def advance(self) -> None:
        self.done += 1
        self.at_step(self.done)

    def original(self, scores: dict[str, float]) -> None:
        pass

    def epoch(self, metrics: dict[str, Any]) -> None:
        self.lines.append(metrics)

    def warning(self, text: str) -> None:
        self.warnings.append(text)


class CrashError(Exception):
    """What a hook raises."""


def crash_at(step: int) -> Watcher:
    def crash(done: int) -> None:
        if done == step:
            raise CrashError

    return Watcher(crash)


def signal_at(step: int, number: int = signal.SIGTERM) -> Watcher:
    return Watcher(lambda done: os.kill(os.getpid(), number) if done == step else None)


def tiny_retraining(
    settings: Recipe = SETTINGS,
    *,
    path: Path | None = None,
    grafted: GraftedModel | None = None,
    progress: Watcher | None = None,
    processes: Processes = ONE_PROCESS,
    source: Noise | None = None,
    samples: int = 24,
    batch_size: int = 4,
    workers: int = 0,
    keep: int = 2,
    unreadable: str = "stop",
    cache: Cache | None = None,
) -> Retraining:
    grafted = grafted or tiny_grafted()
    source = source or Noise(samples)
    share: dict[str, Any] = {"rank": processes.rank, "world_size": processes.world_size}
    share["pin_memory"] = processes.device.type == "cuda"
    return Retraining(
        grafted,
        settings,
        CLASSIFICATION,
        processes,
        TrainingBatches(
            source,
            training_transform(PREPROCESSING, Augmentation(crop="pad")),
            batch_size=batch_size,
            workers=workers,
            seed=settings.training.seed,
            unreadable=unreadable,
            cache=cache,
            drop_last=settings.training.drop_last,
            **share,
        ),
        EvaluationBatches(
            Noise(11),
            evaluation_transform(PREPROCESSING),
            batch_size=4,
            workers=workers,
            unreadable=unreadable,
            cache=cache,
            **share,
        ),
        num_classes=CLASSES,
        step_labels=LABELS[: grafted.steps],
        run=tiny_run_folder(path, keep) if path else None,
        progress=progress,
    )


def in_one(*parts: torch.Tensor) -> torch.Tensor:
    """Return the batch of what several processes have of it."""
    return torch.cat(parts)


def images_with(targets: torch.Tensor, images: torch.Tensor) -> Batch:
    """Return a batch of images with these targets."""
    return Batch({IMAGES: images}, targets, torch.arange(len(targets)))


def train(retraining: Retraining, *, resume: bool = False) -> Retraining:
    try:
        if resume:
            assert retraining.resume()
        retraining.run()
    finally:
        retraining.close()
    return retraining


def weights_hash(retraining: Retraining) -> str:
    """Return the hash of everything that was trained: base, replicas and the base's moving average."""
    ema = retraining.state.ema
    averaged = ema.module.base.state_dict() if ema else {}
    return content_hash({**retraining.grafted.state_dict(), **{f"ema.{k}": v for k, v in averaged.items()}})


def scores_of(retraining: Retraining) -> list[dict[str, Any]]:
    """Return the scores of the original, the best and the last model, without their speed."""
    counters = retraining.counters
    scores = [dict(s) for s in (counters.original, counters.best, counters.last) if s]
    for score in scores:
        score.pop("images_per_second")
    return scores


TIMES = (
    "seconds",
    "data_seconds",
    "data_share",
    "images_per_second",
    "loader_images_per_core_second",
    "peak_memory_bytes",
)
"""What differs in the metrics of two runs that did the same."""


def metrics_of(path: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl without times and memory."""
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        for key in TIMES:
            assert line.pop(key) >= 0
        if line["evaluation"]:
            line["evaluation"].pop("images_per_second")
    return lines


if __name__ == "__main__":  # a process of its own, to be killed: tiny_runs.py RUN, with a checkpoint at each step
    import sys
    import time

    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    slowly = Watcher(lambda step: time.sleep(0.05))
    started = (folder / "last").exists()
    train(
        tiny_retraining(changed(EVERYTHING, checkpoints=CheckpointSection(steps=1)), path=folder, progress=slowly),
        resume=started,
    )
