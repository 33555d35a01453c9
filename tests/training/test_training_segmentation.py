"""The loop on masks: the laws of law 7 again, and what is different where each pixel is a unit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from attaching import attach
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_masks import (
    EVERYTHING_OF_MASKS,
    NoiseMasks,
    TinySegmenter,
    tiny_segmentation,
    tiny_segmenter,
)
from tiny_runs import (
    CLASSES,
    SETTINGS,
    CrashError,
    Watcher,
    changed,
    crash_at,
    metrics_of,
    signal_at,
    train,
    weights_hash,
)
from torch import Tensor

from spgsurgeon.data.loading.samples import Batch
from spgsurgeon.data.transforms.masks import IGNORED
from spgsurgeon.errors import UsageError
from spgsurgeon.models.inputs import IMAGES
from spgsurgeon.recipe.schema import ObjectiveSection
from spgsurgeon.recipe.training_section import CheckpointSection
from spgsurgeon.runtime.signals import InterruptedRunError
from spgsurgeon.training.loop import Retraining
from spgsurgeon.training.plan import plan


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[dict[str, Any]]]:
    path = tmp_path_factory.mktemp("uninterrupted") / "run"
    return weights_hash(train(tiny_segmentation(EVERYTHING_OF_MASKS, path=path))), metrics_of(path)


def test_workers_do_not_matter(uninterrupted: Any, tmp_path: Path) -> None:
    retraining = train(tiny_segmentation(EVERYTHING_OF_MASKS, path=tmp_path / "run", workers=2))
    assert (weights_hash(retraining), metrics_of(tmp_path / "run")) == uninterrupted


def test_maps_may_have_as_many_rows_and_columns_as_there_are_classes() -> None:
    """Which dimension holds the classes is known, though the shapes alone don't tell."""
    retraining = tiny_segmentation()
    retraining.grafted.train()
    masks = torch.randint(CLASSES, (2, CLASSES, CLASSES))
    result, _ = retraining._stepper.forward(Batch({IMAGES: torch.rand(2, 3, CLASSES, CLASSES)}, masks, torch.arange(2)))
    assert result.episode.lengths.shape == (*masks.shape, 2)


@pytest.mark.parametrize("step", [2, 6, 8, 9])
def test_stopped_and_resumed(uninterrupted: Any, tmp_path: Path, step: int) -> None:
    with pytest.raises(InterruptedRunError):
        train(tiny_segmentation(EVERYTHING_OF_MASKS, path=tmp_path / "run", progress=signal_at(step)))
    other = tiny_segmentation(EVERYTHING_OF_MASKS, path=tmp_path / "run", grafted=tiny_segmenter(seed=9))
    assert (weights_hash(train(other, resume=True)), metrics_of(tmp_path / "run")) == uninterrupted


def test_crashed_and_resumed(uninterrupted: Any, tmp_path: Path) -> None:
    settings = changed(EVERYTHING_OF_MASKS, checkpoints=CheckpointSection(steps=1))
    with pytest.raises(CrashError):
        train(tiny_segmentation(settings, path=tmp_path / "run", progress=crash_at(8)))
    other = tiny_segmentation(settings, path=tmp_path / "run", grafted=tiny_segmenter(seed=9))
    assert (weights_hash(train(other, resume=True)), metrics_of(tmp_path / "run")) == uninterrupted


def test_a_line_of_metrics_and_its_curves(uninterrupted: Any, tmp_path: Path) -> None:
    watcher = Watcher()
    retraining = train(tiny_segmentation(path=tmp_path / "run", progress=watcher))
    line = watcher.lines[-1]
    scores = line["evaluation"]
    assert scores.keys() == {"mean_iou", "pixel_accuracy", "class_iou", "loss", "samples", "images_per_second"}
    assert len(scores["class_iou"]) == CLASSES
    assert metrics_of(tmp_path / "run")[-1]["evaluation"]["class_iou"] == scores["class_iou"]
    assert retraining.counters.last == scores
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    tags = board.Tags()["scalars"]
    assert {"evaluation/mean_iou", "evaluation/pixel_accuracy", "valid_share/0"} <= set(tags)
    assert not [tag for tag in tags if "class_iou" in tag]


def test_it_learns_and_keeps_the_best_mean_iou() -> None:
    watcher = Watcher()
    counters = train(tiny_segmentation(changed(SETTINGS, epochs=4), progress=watcher)).counters
    assert counters.original is not None
    assert counters.best is not None
    assert counters.best["mean_iou"] == max(line["evaluation"]["mean_iou"] for line in watcher.lines)
    assert counters.best["mean_iou"] > counters.original["mean_iou"] + 20


def test_each_pixel_of_each_output_is_a_unit() -> None:
    retraining = tiny_segmentation()
    result = retraining.try_batch()
    assert result.episode.valid_mask.shape == (3, 4, 8, 8, 2)
    _, masks, _ = next(retraining._training.epoch(0))
    assert result.step_sizes[0] == 2 * (masks != IGNORED).sum() < 2 * masks.numel()


class WithoutIgnored(NoiseMasks):
    """The same images, with a class for the pixels that `NoiseMasks` ignores."""

    def read(self, index: int) -> tuple[Image.Image, Tensor]:
        image, mask = super().read(index)
        return image, mask.masked_fill(mask == IGNORED, index % CLASSES)


def test_ignored_pixels_change_nothing() -> None:
    """Whatever is predicted there."""

    def spoil(module: Any, inputs: Any, output: dict[str, Tensor]) -> dict[str, Tensor]:
        ignored = (masks == IGNORED).repeat(len(output["out"]) // len(masks), 1, 1)[:, None]
        return {name: logits.masked_fill(ignored, 7.0) for name, logits in output.items()}

    plain, spoilt = tiny_segmentation(), tiny_segmentation()
    _, masks, _ = next(plain._training.epoch(0))
    spoilt.grafted.base.register_forward_hook(spoil)
    for retraining in (plain, spoilt):
        retraining.try_batch().loss.backward()
    gradients = [[p.grad for p in retraining.grafted.parameters()] for retraining in (plain, spoilt)]
    torch.testing.assert_close(gradients[0], gradients[1])
    assert not torch.equal(tiny_segmentation(source=WithoutIgnored(24)).try_batch().loss, plain.try_batch().loss)


def test_scores_do_not_depend_on_the_batch_size() -> None:
    found = []
    for batch_size in (1, 3, 4, 11):
        retraining = tiny_segmentation(eval_batch_size=batch_size)
        found.append(retraining._evaluate(retraining.grafted).scores)
    losses = [scores.pop("loss") for scores in found]
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-6)
    for scores in found:
        scores.pop("images_per_second")
        assert scores == found[0]
    assert found[0]["samples"] == 11


def test_plain_retraining_has_both_outputs_too() -> None:
    grafted = attach(TinySegmenter(), ["classifier", "aux_classifier"], "none")
    retraining = tiny_segmentation(changed(SETTINGS, objective=ObjectiveSection()), grafted=grafted)
    assert retraining.try_batch().episode.valid_mask.shape == (1, 4, 8, 8, 2)
    train(retraining)
    assert retraining.counters.step == 12


@pytest.mark.parametrize("mixing", ["mixup", "cutmix"])
def test_masks_are_not_mixed(mixing: str) -> None:
    with pytest.raises(UsageError, match="mixup and cutmix mix labelled images") as caught:
        tiny_segmentation(changed(SETTINGS, **{mixing: 0.2}))
    assert "data.augment" in str(caught.value.hint)


def activations(retraining: Retraining) -> int:
    bytes_: int = plan(retraining)["estimated_memory_bytes"]["activations"]
    return bytes_


def test_the_plan_counts_what_every_pixel_keeps() -> None:
    plain = attach(TinySegmenter(), ["classifier", "aux_classifier"], "none")
    without = activations(tiny_segmentation(changed(SETTINGS, objective=ObjectiveSection()), grafted=plain))
    grafted = activations(tiny_segmentation())
    pixels = 4 * 8 * 8 * 4  # of one float32 channel of a batch
    # the image, two maps of the backbone, one of the head, two outputs' log-softmax, and their labels (8 bytes each)
    assert 0 <= without - pixels * (3 + 2 * 6 + 6 + 2 * CLASSES + 2 * 2) < pixels
    # each of two more steps: a hidden state (and its dropout) for both heads, the norm's output, the logits
    assert grafted > without + 2 * pixels * (2 * 6 + 6 + 2 * CLASSES)
