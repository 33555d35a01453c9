"""The gradient of one step, where ignored pixels lie unevenly over the processes and the model has two outputs."""

from typing import Any

import torch
from attaching import attach_blocks
from PIL import Image
from tiny_masks import PREPROCESSING, NoiseMasks
from tiny_runs import CLASSES, LABELS, SETTINGS, WEIGHTS, Watcher, changed, train
from torch import Tensor, nn

from spgsurgeon.data.loading.loader import EvaluationBatches, TrainingBatches
from spgsurgeon.data.transforms.augmentation import Augmentation
from spgsurgeon.data.transforms.joint import joint_evaluation_transform, joint_training_transform
from spgsurgeon.data.transforms.masks import IGNORED
from spgsurgeon.recipe.schema import ObjectiveSection
from spgsurgeon.recipe.training_section import OptimizerSection
from spgsurgeon.replicas.grafted import GraftedModel
from spgsurgeon.replicas.places import Place
from spgsurgeon.runtime.distributed import Processes
from spgsurgeon.tasks.segmentation import SEGMENTATION
from spgsurgeon.training.loop import Retraining

JOINED = 4
FORMS = ("episode", "episode-mean", "step")
OPTIONS: dict[str, dict[str, Any]] = {
    "uneven": {},
    "smoothed and accumulated": {"label_smoothing": 0.1, "accumulate": 2},
    "normalised": {"loss_normalization": True},
    "one process counts nothing": {"blank": True, "label_smoothing": 0.1},
    "one process counts nothing, normalised": {"blank": True, "loss_normalization": True, "accumulate": 2},
}
CASES = {f"{form}, {option}": {"form": form, **given} for form in FORMS for option, given in OPTIONS.items()}


class UnevenMasks(NoiseMasks):
    """Of each image more is ignored than of the one before; of those in `blank` all is."""

    def __init__(self, count: int, blank: frozenset[int] = frozenset()) -> None:
        super().__init__(count)
        self._blank = blank

    def read(self, index: int) -> tuple[Image.Image, Tensor]:
        image, ids = super().read(index)
        ids[: len(ids) if index in self._blank else len(ids) * index // self.count] = IGNORED
        return image, ids


class TwoOutputs(nn.Module):
    """A segmenter without norms: those of a batch see the joined one otherwise, others add rounding of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh())
        self.classifier = nn.Conv2d(6, CLASSES, 1)
        self.aux_classifier = nn.Conv2d(6, CLASSES, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        hidden = self.backbone(images.to(self.classifier.weight.dtype))
        return {"out": self.classifier(hidden), "aux": self.aux_classifier(hidden)}


def block() -> nn.Module:
    """Return a block that, other than the package's own at their start, changes what it is given."""
    return nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.Tanh())


def two_outputs() -> GraftedModel:
    """Return the segmenter with two replicas of depth."""
    torch.manual_seed(0)
    place = Place("backbone", "output", width=6)
    return attach_blocks(TwoOutputs(), place, block, replicas=2)


def gradients(
    processes: Processes,
    *,
    form: str,
    blank: bool = False,
    accumulate: int = 1,
    dtype: torch.dtype = torch.float32,
    **objective: Any,
) -> dict[str, Any]:
    """Return the gradients of one step, and the share of the units that were valid at each step of the episodes."""
    settings = changed(
        SETTINGS,
        epochs=1,
        objective=ObjectiveSection(form=form, weights=WEIGHTS, **objective),
        optimizer=OptimizerSection(lr=1e-3, momentum=0.0),
        accumulate=accumulate,
    )

    def batches(rank: int, world_size: int, blank: frozenset[int] = frozenset()) -> TrainingBatches:
        return TrainingBatches(
            UnevenMasks(JOINED * accumulate, blank),
            joint_training_transform(PREPROCESSING, Augmentation(crop="random-scale")),
            batch_size=JOINED // world_size,
            workers=0,
            seed=settings.training.seed,
            rank=rank,
            world_size=world_size,
        )

    of_the_second = {index for keys in batches(1, 2)._plan(0, 0) for _, index in keys}
    grafted, watcher = two_outputs().to(dtype), Watcher()
    retraining = Retraining(
        grafted,
        settings,
        SEGMENTATION,
        processes,
        batches(processes.rank, processes.world_size, frozenset(of_the_second if blank else ())),
        EvaluationBatches(NoiseMasks(2), joint_evaluation_transform(PREPROCESSING), batch_size=2, workers=0),
        num_classes=CLASSES,
        step_labels=LABELS[: grafted.steps],
        progress=watcher,
    )
    train(retraining)
    assert retraining.counters.step == 1
    return {
        "gradients": {name: p.grad for name, p in grafted.named_parameters()},
        "valid share": watcher.lines[0]["valid_share"],
    }


def largest_difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Return the largest difference of an entry, relative to the largest entry of its tensor."""
    return max(float((found[name] - value).abs().max() / value.abs().max()) for name, value in expected.items())
