"""What checkpoints and the guard against NaN cost a run on a model of ResNet-18's size.

Not a test but a measurement: `python tests/tools/checkpoint_cost.py [--seconds 30] [--blocks 10] [--size 64] [--batch
32]`. Blocks with and without are interleaved in one process; a checkpoint is made once in so many seconds of training.
Prints medians of the ratios with their extremes, and what the training waits for at each checkpoint.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision

from spgsurgeon import graft
from spgsurgeon.checkpoint.folders import GraftManifest
from spgsurgeon.data.loading.samples import Batch
from spgsurgeon.models.inputs import IMAGES
from spgsurgeon.recipe.data_section import DataSection
from spgsurgeon.recipe.schema import Recipe
from spgsurgeon.recipe.training_section import OptimizerSection, ScheduleSection
from spgsurgeon.runs.folder import RunFolder
from spgsurgeon.runs.saving import CheckpointSaver
from spgsurgeon.runtime.distributed import Processes, choose_device
from spgsurgeon.tasks.classification import CLASSIFICATION
from spgsurgeon.training.optimization import make_optimizer, make_schedule
from spgsurgeon.training.state import Counters, TrainingState
from spgsurgeon.training.statistics import EpisodeStatistics
from spgsurgeon.training.stepping import Stepper

CLASSES = 1000


class Bench:
    """A grafted ResNet-18 in training on one batch, with a moving average and a run folder."""

    def __init__(self, folder: Path, size: int, batch: int) -> None:
        self.device = choose_device("auto")
        self.processes = Processes(0, 1, self.device)
        torch.manual_seed(0)
        base = torchvision.models.resnet18(num_classes=CLASSES)
        images = torch.randn(batch, 3, size, size)
        grafted = graft(base, "dropout", example=images).to(self.device).train()
        optimizer = make_optimizer(grafted, OptimizerSection(lr=1e-4))
        scaler = torch.amp.GradScaler(self.device.type, enabled=False)
        self.state = TrainingState(grafted, optimizer, scaler, None, Counters())
        recipe = Recipe(data=DataSection(source="digits"))
        schedule = make_schedule(optimizer, ScheduleSection(), 1000, 1000)
        self.stepper = Stepper(
            self.state, schedule, recipe, CLASSIFICATION, self.processes, num_classes=CLASSES, precision=torch.float32
        )
        self.batch = Batch({IMAGES: images}, torch.arange(batch) % CLASSES, torch.arange(batch))
        self.statistics = EpisodeStatistics(grafted.steps, CLASSES, self.processes)
        run = RunFolder(folder / "run", {"architecture": "resnet18"}, manifest())
        run.create("model: torchvision/resnet18\n")
        self.saver = CheckpointSaver(run, steps=None, minutes=None, step=-1, warn=print)

    def step(self) -> None:
        self.stepper.apply(self.stepper.accumulate([self.batch]), self.statistics, update=True)

    def train(self, seconds: float) -> tuple[int, float]:
        """Return how many steps were done in about so many seconds, and in how many exactly."""
        started, steps = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            self.step()
            steps += 1
        self.synchronize()
        return steps, time.perf_counter() - started

    def save(self) -> float:
        """Let a checkpoint be written; return how many seconds that took from the training."""
        self.synchronize()
        started = time.perf_counter()
        self.saver.save(self.state.counters.step, self.state.checkpoint())
        return time.perf_counter() - started

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def manifest() -> GraftManifest:
    base = dict.fromkeys(("source", "library", "architecture", "content_hash", "layout"), "resnet18")
    return GraftManifest(
        package_version="0",
        base=base | {"num_classes": CLASSES, "tensors": 122, "model_args": {}},
        trp={"kind": "dropout"},
        site={"module": "fc"},
        temporary_parameters=0,
    )


def summary(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.4f} ({min(ratios):.4f} to {max(ratios):.4f})"


def checkpoints(bench: Bench, seconds: float, blocks: int) -> None:
    ratios, waits = [], []
    for _ in range(blocks):
        steps, without = bench.train(seconds)
        started = time.perf_counter()
        waits.append(bench.save())
        for _ in range(steps):
            bench.step()
        bench.synchronize()
        ratios.append((time.perf_counter() - started) / without)
        bench.saver.close()
    print(f"a checkpoint every {seconds:g} s: run time {summary(ratios)} of the time without")
    print(f"the training waits {1000 * statistics.median(waits):.0f} ms for each")


def processor_time(bench: Bench) -> None:
    """Say what a checkpoint takes of the processors, copy and writing, which a busy machine blurs least."""
    spent = []
    for _ in range(5):
        started = time.process_time()
        bench.save()
        bench.saver.close()
        spent.append(time.process_time() - started)
    print(
        f"a checkpoint takes {statistics.median(spent):.2f} s of processor time ({min(spent):.2f} to {max(spent):.2f})"
    )


def guard(bench: Bench, blocks: int) -> None:
    """Time what the guard does in a step against whole steps, of which it is a part."""
    own = bench.stepper._guard
    check, spent = own.check, [0.0]

    def timed(losses: list[torch.Tensor]) -> torch.Tensor:
        started = time.perf_counter()
        found = check(losses)
        bench.synchronize()
        spent[0] += time.perf_counter() - started
        return found

    own.check = timed  # type: ignore[method-assign]
    shares = []
    for _ in range(blocks):
        spent[0] = 0.0
        _, whole = bench.train(2.0)
        shares.append(spent[0] / whole)
    own.check = check  # type: ignore[method-assign]
    print(f"the guard's share of a step: {summary(shares)}")


def main() -> None:
    parser = argparse.ArgumentParser()
    options: dict[str, tuple[Callable[[str], float], float]] = {
        "seconds": (float, 30.0),
        "blocks": (int, 10),
        "size": (int, 64),
        "batch": (int, 32),
    }
    for name, (kind, default) in options.items():
        parser.add_argument(f"--{name}", type=kind, default=default)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), int(given.size), int(given.batch))
        bench.train(5.0)
        steps, seconds = bench.train(5.0)
        print(f"{bench.device}, {torch.get_num_threads()} threads; a step takes {1000 * seconds / steps:.0f} ms")
        guard(bench, int(given.blocks))
        processor_time(bench)
        checkpoints(bench, given.seconds, int(given.blocks))


if __name__ == "__main__":
    main()
