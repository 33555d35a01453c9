"""Every shipped recipe: its own model passes a dry run on data of the right shape, and all its settings train."""

from __future__ import annotations

import json
import math
import re
import shlex
from pathlib import Path

import pytest
import typer
from command_line import make_image_folder, make_mask_folder, succeed

from spgsurgeon.cli.app import application
from spgsurgeon.recipe.reading import read_recipe
from spgsurgeon.recipe.shipped import shipped_recipes

RECIPES = shipped_recipes()
OF_IMAGES = [name for name in RECIPES if read_recipe(name).data.source in ("folder", "digits", "masks", "coco")]
"""The others' tests are those of training, which have models and data for them."""
SEGMENTATION = ("camvid", "coco")
LRASPP = "torchvision/lraspp_mobilenet_v3_large"
# For recipes that leave the model to the command.
BASES = {
    "camvid-lraspp-dropout": LRASPP,
    "cifar10-resnet-depth": "timm/test_resnet",
    "cifar10-resnet-dropout": "timm/test_resnet",
    "digits-dropout": "timm/test_resnet",
    "my-classes": "timm/test_resnet",
}


@pytest.fixture(scope="session")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A thousand classes of one image each, in one split."""
    return make_image_folder(tmp_path_factory.mktemp("imagenet"), splits=("train",), classes=1000, each=1)


@pytest.fixture(scope="session")
def cifar10(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images of each class to train on, so that one can be held out."""
    root = make_image_folder(tmp_path_factory.mktemp("cifar10"), splits=("train",), classes=10, each=10)
    return make_image_folder(root, splits=("test",), classes=10, each=1)


@pytest.fixture(scope="session")
def two_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two batches of two images, under every name of a split that a recipe uses."""
    return make_image_folder(tmp_path_factory.mktemp("two"), splits=("train", "val", "test"), classes=2, each=2)


@pytest.fixture(scope="session")
def three_each(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two batches of two images, and a third that is held out."""
    return make_image_folder(tmp_path_factory.mktemp("three"), splits=("train",), classes=2, each=3)


@pytest.fixture(scope="session")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two batches of two images with masks of the fewest classes that a segmentation recipe has."""
    return make_mask_folder(tmp_path_factory.mktemp("masks"), splits=("train", "val"), classes=11, each=4)


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_IMAGES)
def test_a_dry_run_with_the_recipes_own_model(
    name: str, imagenet: Path, cifar10: Path, masks: Path, tmp_path: Path
) -> None:
    overrides = ["training.batch_size=2", "training.device=cpu", "data.workers=0"]
    if name.startswith("imagenet"):
        overrides += [f"data.path={imagenet}", "data.eval=train"]
    elif name.startswith(("cifar10", "my")):
        overrides += [f"data.path={cifar10}", "data.train=train"]
    elif name.startswith("camvid"):
        overrides += [f"data.path={masks}"]
    elif name.startswith("coco"):
        overrides += [f"data.path={masks}", "data.source=masks", "data.classes=21", "data.image_size=64"]
    model = [BASES[name]] if name in BASES else []
    command = ("train", *model, "--random-weights", "--recipe", name, *overrides, "-o", tmp_path / "run")
    plan = succeed(*command, "--dry-run", "--json").document

    recipe = read_recipe(name)
    counts = {"imagenet": 1000, "cifar10": 100, "digits": 600, "camvid": 4, "coco": 4, "my": 100}
    pictures = counts[name.partition("-")[0]]
    pictures -= round(pictures * (recipe.data.holdout or 0))
    steps = pictures // 2 // recipe.training.accumulate
    assert plan["steps_per_epoch"] == steps
    assert plan["steps"] == steps * (recipe.training.epochs + recipe.cold_start.epochs)
    assert len(plan["learning_rates"]) == recipe.training.epochs
    assert max(plan["learning_rates"]) <= recipe.training.optimizer.lr * (1 + 1e-6)
    assert plan["model"] == (recipe.model or BASES[name])
    assert (plan["temporary_parameters"] > 0) == (recipe.trp.kind != "none")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n.startswith("coco") else []) for n in OF_IMAGES],
)
def test_two_steps_with_the_recipes_settings_on_a_tiny_model(
    name: str, two_classes: Path, three_each: Path, masks: Path, tmp_path: Path
) -> None:
    run, model = tmp_path / "run", "timm/test_resnet"
    overrides = ["training.epochs=1", "training.batch_size=2", "training.accumulate=1", "training.device=cpu"]
    overrides += ["data.image_size=32", "data.eval_image_size=null", "data.workers=0"]
    if name.startswith("digits"):
        overrides += ["training.batch_size=300"]
    elif name.startswith(SEGMENTATION):
        model = LRASPP
        overrides += [f"data.path={masks}", "data.source=masks", "data.classes=11", "data.image_size=64"]
    elif read_recipe(name).data.holdout:
        overrides += [f"data.path={three_each}", "data.train=train", "data.holdout=0.34"]
    else:
        overrides += [f"data.path={two_classes}"]
    if "vit" in name and name.endswith("depth"):
        model, size = "timm/test_vit", "data.image_size=160"  # the only size that it takes
        overrides += [size]
    command = ("train", model, "--random-weights", "--recipe", name, *overrides, "-o", run)
    trained = succeed(*command, "--json").document

    recipe = read_recipe(name)
    assert trained["steps"] == 2 * (1 + recipe.cold_start.epochs)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["phase"] for line in lines] == ["cold"] * recipe.cold_start.epochs + ["train"]
    assert all(math.isfinite(line["loss"]) for line in lines)
    assert (run / "best" / "ema.safetensors").exists() == (recipe.training.ema is not None)


@pytest.mark.parametrize("name", RECIPES)
def test_the_commands_in_a_recipes_head_parse_and_name_it(name: str) -> None:
    head = RECIPES[name].read_text().partition("\n# Command:")[2].replace("\\\n#", " ")
    commands = [line.lstrip("# ") for line in head.splitlines() if re.match(r"[# ]+(spgsurgeon|torchrun) ", line)]
    assert commands
    for command in commands:
        words = shlex.split(command)
        verb = next(word for word in words if word in ("train", "compare"))
        parser = typer.main.get_command(application()).commands[verb]
        options = parser.make_context(verb, words[words.index(verb) + 1 :]).params
        assert options["recipe"] == name
        assert options["output"] is not None
