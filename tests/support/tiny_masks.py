"""Segmentation in a second: images of noise with masks, a module with two heads, and runs of it."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from attaching import attach
from PIL import Image
from tiny_runs import CLASSES, EVERYTHING, LABELS, ONE_PROCESS, SETTINGS, Watcher, changed, tiny_run_folder
from torch import Tensor, nn

from spgsurgeon.data.loading.loader import EvaluationBatches, TrainingBatches
from spgsurgeon.data.transforms.augmentation import Augmentation
from spgsurgeon.data.transforms.joint import joint_evaluation_transform, joint_training_transform
from spgsurgeon.data.transforms.masks import IGNORED
from spgsurgeon.models.preprocessing import Preprocessing
from spgsurgeon.recipe.schema import Recipe
from spgsurgeon.replicas.grafted import GraftedModel
from spgsurgeon.replicas.places import Place
from spgsurgeon.runtime.distributed import Processes
from spgsurgeon.tasks.segmentation import SEGMENTATION
from spgsurgeon.training.loop import Retraining

PREPROCESSING = Preprocessing(input_size=(3, 8, 8))
EVERYTHING_OF_MASKS = changed(EVERYTHING, mixup=0.0, cutmix=0.0)
SIZES = ((8, 12), (8, 10), (12, 8), (8, 12), (9, 9))  # height, width


class NoiseMasks:
    """Noise, the brighter the higher the class of a pixel; the first row is ignored, the images differ in size."""

    name = "noise with masks"
    classes = tuple(str(label) for label in range(CLASSES))

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> tuple[Image.Image, Tensor]:
        height, width = SIZES[index % len(SIZES)]
        random = np.random.default_rng(index)
        ids = random.integers(0, CLASSES, (height, width))
        pixels = random.integers(0, 60, (height, width, 3)) + 60 * ids[..., None]
        ids[0] = IGNORED
        return Image.fromarray(pixels.astype(np.uint8)), torch.from_numpy(ids)

    def describe(self, index: int) -> str:
        return f"noise {index}"


class TinySegmenter(nn.Module):
    """As torchvision's: two outputs by name at the images' size, the second one's head beside the first."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.classifier = nn.Sequential(nn.BatchNorm2d(6), nn.Conv2d(6, CLASSES, 1))
        self.aux_classifier = nn.Conv2d(6, CLASSES, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        hidden = self.backbone(images)
        return {"out": self.classifier(hidden), "aux": self.aux_classifier(hidden)}


def tiny_segmenter(seed: int = 0) -> GraftedModel:
    torch.manual_seed(seed)
    places = [Place("classifier", width=6), Place("aux_classifier")]
    return attach(TinySegmenter(), places, "dropout", replicas=2, rate=0.2)


def tiny_segmentation(
    settings: Recipe = SETTINGS,
    *,
    path: Path | None = None,
    grafted: GraftedModel | None = None,
    progress: Watcher | None = None,
    processes: Processes = ONE_PROCESS,
    source: Any = None,
    evaluation: Any = None,
    eval_batch_size: int = 4,
    workers: int = 0,
) -> Retraining:
    grafted = grafted or tiny_segmenter()
    return Retraining(
        grafted,
        settings,
        SEGMENTATION,
        processes,
        TrainingBatches(
            source or NoiseMasks(24),
            joint_training_transform(PREPROCESSING, Augmentation(crop="random-scale")),
            batch_size=4,
            workers=workers,
            seed=settings.training.seed,
        ),
        EvaluationBatches(
            evaluation or NoiseMasks(11),
            joint_evaluation_transform(PREPROCESSING),
            batch_size=eval_batch_size,
            workers=workers,
        ),
        num_classes=CLASSES,
        step_labels=LABELS[: grafted.steps],
        run=tiny_run_folder(path) if path else None,
        progress=progress,
    )
