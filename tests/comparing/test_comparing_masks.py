"""`compare` on images with masks: by mean IoU, chosen on images held out, with an interval from one seed too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import make_mask_folder, spgsurgeon, succeed

from spgsurgeon.commands.evaluate import evaluate_model
from spgsurgeon.commands.evaluating.request import EvaluationRequest
from spgsurgeon.comparing.scores import Scored, against_plain, score
from spgsurgeon.recipe.reading import read_recipe
from spgsurgeon.tasks.segmentation import SEGMENTATION

LRASPP = ("torchvision/lraspp_mobilenet_v3_large", "--random-weights")
RECIPE = """
trp: {{kind: dropout, replicas: 1, rate: 0.1}}
objective: {{weights: [0.4]}}
data: {{source: masks, path: {path}, classes: [a, b, c], image_size: 32, workers: 0, augment: {{crop: resize}}}}
training: {{epochs: 1, batch_size: 3, device: cpu, optimizer: {{lr: 0.01}}}}
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_mask_folder(tmp_path_factory.mktemp("masks"), classes=3, each=4, side=32)


@pytest.fixture(scope="module")
def recipe(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "masks.yaml"
    path.write_text(RECIPE.format(path=data))
    return path


def arguments(recipe: Path, output: Path) -> list[Any]:
    asked = ("--seeds", 1, "--learning-rates", "1", "--jobs", 1, "data.holdout=0.25")
    return ["compare", *LRASPP, "--recipe", recipe, *asked, "-o", output]


@pytest.mark.slow
def test_mean_iou_is_compared_and_scored_as_eval_scores_it(recipe: Path, data: Path, tmp_path: Path) -> None:
    document = succeed(*arguments(recipe, tmp_path / "c"), "--json").document
    assert (document["metric"], document["samples"]) == ("mean_iou", 4)
    assert document["chosen_on"].endswith("1 of 4 held out")
    lines = [json.loads(line) for line in (tmp_path / "c" / "results.jsonl").read_text().splitlines()]
    assert [line["steps"] for line in lines] == [1, 1], "three images are left to train on"
    for name, arm in document["arms"].items():
        best = tmp_path / "c" / "runs" / name / "lr-1" / "seed-0"
        scored = evaluate_model(EvaluationRequest(str(best), str(data), image_size=32, workers=0, device="cpu"))
        assert arm["scores"] == [pytest.approx(scored["mean_iou"])]
    difference = document["arms"]["spg"]["difference"]
    scores = [document["arms"][name]["mean"] for name in ("spg", "plain")]
    assert difference["mean"] == pytest.approx(scores[0] - scores[1])
    assert difference["low"] <= difference["mean"] <= difference["high"]
    counts = score(tmp_path / "c" / "base", read_recipe(recipe)).counts
    assert counts.shape == (4, 2, 3)


@pytest.mark.slow
def test_depth_and_a_limit_are_refused_before_a_run(recipe: Path, tmp_path: Path) -> None:
    for more, said in (
        (("--arms", "depth"), "arm depth: "),
        (("data.limit=2",), "limit goes by an image's class"),
        (("data.holdout=0.1",), "is empty: it has 4 samples"),
        (("--num-classes", 7), "3 classes"),
    ):
        refused = spgsurgeon(*arguments(recipe, tmp_path / "c"), *more)
        assert (refused.code in (2, 5), said in refused.err) == (True, True), refused.err
    assert list(tmp_path.iterdir()) == []


def test_one_seed_and_one_picture_have_no_interval(recipe: Path, tmp_path: Path) -> None:
    data = make_mask_folder(tmp_path / "data", classes=3, each=4, side=32)
    for kind in ("images", "masks"):
        (data / "one" / kind).mkdir(parents=True)
        (data / "val" / kind / "0.png").rename(data / "one" / kind / "0.png")
    refused = spgsurgeon(*arguments(recipe, tmp_path / "c"), f"data.path={data}", "data.eval=one")
    assert (refused.code, "one seed and 1 image" in refused.err, "--seeds 5" in refused.err) == (2, True, True)


# Differences over images, on made-up counts


def counted(*pictures: tuple[tuple[int, int], ...]) -> Scored:
    """Return the scores of images with these pixels, by class, in the intersection and in the union."""
    counts = np.array(pictures).transpose(0, 2, 1)
    hits, unions = counts.sum(0)
    return Scored({"mean_iou": 100 * (hits[unions > 0] / unions[unions > 0]).mean(), "samples": len(counts)}, counts)


def test_the_difference_is_that_of_the_scores_and_ignored_pictures_don_t_count() -> None:
    plain = counted(((4, 8), (0, 0)), ((6, 8), (1, 4)), ((5, 8), (0, 0)))
    arm = counted(((5, 8), (0, 0)), ((8, 8), (1, 2)), ((6, 8), (0, 0)))
    found = against_plain([plain], [arm], SEGMENTATION)
    assert found["difference"]["mean"] == pytest.approx(arm.scores["mean_iou"] - plain.scores["mean_iou"])
    assert found["difference"]["agree"] == 1
    nothing = np.zeros((1, 2, 2), dtype=np.int64)
    more = [Scored(one.scores, np.concatenate([one.counts, nothing])) for one in (plain, arm)]
    assert against_plain(more[:1], more[1:], SEGMENTATION) == found
    same = against_plain([plain], [plain], SEGMENTATION)
    assert (same["verdict"], same["difference"]["low"], same["difference"]["high"]) == ("no difference shown", 0, 0)


def test_an_arm_that_is_better_on_every_picture_gains() -> None:
    random = np.random.default_rng(0)
    unions = random.integers(80, 100, (40, 3))
    hits = random.integers(40, 60, (40, 3))
    plain, arm = (Scored({"mean_iou": 0.0}, np.stack([hits + more, unions], 1)) for more in (0, 3))
    assert against_plain([plain], [arm], SEGMENTATION)["verdict"] == "gain"
    assert against_plain([arm], [plain], SEGMENTATION)["verdict"] == "loss"
