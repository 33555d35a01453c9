"""A task is one file: no other names one, and a made-up one trains, is scored and compared as those that there are."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attaching import attach
from made_up_task import PADDING, SIGNS, Rows, SignModel
from tiny_runs import ONE_PROCESS, PREPROCESSING, SETTINGS, Watcher, changed, tiny_run_folder, train

import spgsurgeon
from spgsurgeon.cli.terminal.text import score_line
from spgsurgeon.comparing.scores import Scored, against_plain
from spgsurgeon.data.loading.loader import EvaluationBatches, TrainingBatches
from spgsurgeon.data.transforms.augmentation import Augmentation
from spgsurgeon.errors import UsageError
from spgsurgeon.recipe.schema import Recipe
from spgsurgeon.replicas.grafted import GraftedModel
from spgsurgeon.tasks.registry import TASKS, task_named, task_of, task_scored_by
from spgsurgeon.tasks.task import Task
from spgsurgeon.training.loop import Retraining
from spgsurgeon.training.state import Counters

PACKAGE = Path(spgsurgeon.__file__).parent
ROOMS = ("tasks", "models", "data")
NAMED = re.compile(r"(?<![a-z])(classification|segmentation|mean_iou|top1)(?![a-z])")


def literals(path: Path) -> Iterator[str]:
    """Return the texts of a file of which one word is the name of a task or of a score; no prose, no docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    said = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        value = node.value if isinstance(node, ast.Constant) and node not in said else None
        if isinstance(value, str) and " " not in value and NAMED.search(value):
            yield f"{path.relative_to(PACKAGE)}:{node.lineno}: {value!r}"


def test_no_task_is_named_outside_its_rooms() -> None:
    files = [path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] not in ROOMS]
    assert len(files) > 100
    assert [found for path in files for found in literals(path)] == []


# A made-up task


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, SIGNS.name, SIGNS)


def grafted_signs() -> GraftedModel:
    torch.manual_seed(0)
    return attach(SignModel(), "head", "dropout", replicas=2, rate=0.2)


def sign_retraining(recipe: Recipe, path: Path | None = None, progress: Watcher | None = None) -> Retraining:
    training = SIGNS.training_transform(PREPROCESSING, Augmentation())
    return Retraining(
        grafted_signs(),
        recipe,
        SIGNS,
        ONE_PROCESS,
        TrainingBatches(Rows(8), training, batch_size=4, workers=0, seed=0, collate=SIGNS.collation(PREPROCESSING)),
        EvaluationBatches(
            Rows(10),
            SIGNS.evaluation_transform(PREPROCESSING),
            batch_size=4,
            workers=0,
            collate=SIGNS.collation(PREPROCESSING),
        ),
        num_classes=2,
        step_labels=("0", "0.2", "0.36"),
        run=tiny_run_folder(path) if path else None,
        progress=progress,
    )


def trained(lr: float, epochs: int, path: Path | None = None) -> tuple[Counters, list[float]]:
    """Return the counters of a run of two steps an epoch, and its scores: before it, and after each epoch."""
    recipe = changed(SETTINGS, epochs=epochs, optimizer=changed(SETTINGS.training.optimizer, lr=lr, momentum=0.0))
    watcher = Watcher()
    counters = train(sign_retraining(recipe, path, watcher)).counters
    assert counters.original is not None
    scores = [counters.original, *(line["evaluation"] for line in watcher.lines)]
    return counters, [score["surprise"] for score in scores]


def test_it_trains_and_learns() -> None:
    counters, scores = trained(lr=0.5, epochs=4)
    assert counters.step == 8
    assert scores == sorted(scores, reverse=True)
    assert score_line(counters.last or {}) == f"surprise {scores[-1]:.2f}"


def test_the_best_checkpoint_is_the_one_with_the_lowest_score(tmp_path: Path) -> None:
    """At this learning rate the model gets better and worse."""
    counters, scores = trained(lr=4.0, epochs=5, path=tmp_path / "run")
    best = min(scores[1:])
    assert best not in (scores[1], scores[-1], max(scores[1:]))
    assert counters.best is not None
    assert counters.best["surprise"] == best
    step = 2 * scores.index(best)
    assert (tmp_path / "run" / "best").resolve().name == f"{step:08d}"


def test_padding_and_the_place_of_classes_change_no_loss() -> None:
    """Row by row, unpadded and by hand, the loss is the same; at two numbers a row, classes and units are as many."""
    retraining = sign_retraining(SETTINGS)
    retraining.grafted.base.eval()
    collate = SIGNS.collation(PREPROCESSING)
    (batch,) = collate([*map(retraining.batches._uncached.__getitem__, [(0, 1), (0, 5)])])  # type: ignore[list-item]
    assert batch.inputs["numbers"].shape == (2, 2)
    (padded,) = collate([*map(retraining.batches._uncached.__getitem__, [(0, 1), (0, 5), (0, 3)])])  # type: ignore[list-item]
    assert (padded.targets[:2, 2:] == PADDING).all()
    for made in (batch, padded):
        assert retraining.try_batch(made).step_losses[0].item() == pytest.approx(by_hand(retraining, made), rel=1e-5)


def by_hand(retraining: Retraining, batch: Any) -> float:
    model, entropies = retraining.grafted.base, []
    for row, signs in zip(batch.inputs["numbers"], batch.targets, strict=True):
        for number, sign in zip(row[signs != PADDING], signs[signs != PADDING], strict=True):
            logits = model.head(model.body(number.view(1, 1)))[0]
            entropies.append(-logits.log_softmax(0)[sign].item())
    return sum(entropies) / len(entropies)


def test_arms_are_compared_in_the_direction_of_the_score() -> None:
    def scored(*losses: float) -> Scored:
        counts = np.array([[loss, 1.0] for loss in losses])
        return Scored({"surprise": float(np.exp(np.mean(losses))), "samples": len(losses)}, counts)

    plain, arm = scored(0.5, 0.6, 0.7, 0.4), scored(0.3, 0.4, 0.5, 0.2)
    better, worse = against_plain([plain], [arm], SIGNS), against_plain([arm], [plain], SIGNS)
    assert (better["verdict"], worse["verdict"]) == ("gain", "loss")
    assert better["difference"]["mean"] == pytest.approx(arm.scores["surprise"] - plain.scores["surprise"])
    seeds = [[scored(loss + seed / 50) for seed in range(4)] for loss in (0.5, 0.3)]
    assert against_plain(*seeds, SIGNS)["verdict"] == "gain"


def test_tasks_are_found_by_name_and_by_their_scores() -> None:
    assert task_named("signs") is task_scored_by("surprise") is task_of({"surprise": 2.0, "loss": 0.7}) is SIGNS
    assert task_of({"loss": 1.0}) is None
    for look_up, name, near in ((task_named, "singns", "'signs'"), (task_scored_by, "suprise", "'surprise'")):
        with pytest.raises(UsageError, match=name) as caught:
            look_up(name)
        assert near in str(caught.value.hint)


def test_data_of_another_kind_is_refused() -> None:
    SIGNS.check_samples("rows of numbers", "m")
    with pytest.raises(UsageError, match="m predicts a sign for each number, and the data has labelled images"):
        SIGNS.check_samples("labelled images", "m")


def test_tasks_that_share_a_score_count_and_judge_it_alike() -> None:
    """What is compared by a score is found by its name alone, see `task_scored_by`."""
    found: dict[str, list[Task]] = {}
    for task in TASKS.values():
        for name in (task.primary.name, *task.alternatives):
            found.setdefault(name, []).append(task.scored_by(name))
    for tasks in found.values():
        assert len({(task.primary, task.counts, task.from_counts) for task in tasks}) == 1
    assert len(found["accuracy"]) > 1
