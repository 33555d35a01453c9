"""The whole job on images with masks, through the real entry point, and what is refused on the way."""

import json
import shutil
from pathlib import Path

import pytest
from command_line import Outcome, make_image_folder, make_mask_folder, snapshot, spgsurgeon, succeed
from PIL import Image

LRASPP = "torchvision/lraspp_mobilenet_v3_large"
DEEPLAB = "torchvision/deeplabv3_mobilenet_v3_large"
RECIPE = """\
data: {{source: masks, path: {path}, classes: [a, b, c], image_size: 64, workers: 0, augment: {{crop: resize}}}}
training: {{epochs: 1, batch_size: 2, device: cpu, optimizer: {{lr: 0.01}}}}
"""


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_mask_folder(tmp_path_factory.mktemp("masks"), classes=3, each=4)


def write_recipe(folder: Path, data: Path) -> Path:
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(path=data))
    return recipe


@pytest.fixture(scope="module", params=[LRASPP, DEEPLAB])
def job(request: pytest.FixtureRequest, masks: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """Every step of the job, in order."""
    root = tmp_path_factory.mktemp("job")
    recipe, grafted, run, out = write_recipe(root, masks), root / "grafted", root / "run", root / "out"
    shutil.copyfile(masks / "train" / "images" / "0.png", root / "0.png")
    return {
        "graft": succeed("graft", request.param, "--random-weights", "--num-classes", 3, "-o", grafted, "--json"),
        "inspect": succeed("inspect", grafted, "--json"),
        "plan": succeed("train", grafted, "--recipe", recipe, "-o", run, "--dry-run", "--json"),
        "train": succeed("train", grafted, "--recipe", recipe, "-o", run, "--json"),
        "again": succeed("train", "--resume", "-o", run, "--json"),
        "strip": succeed("strip", run, "-o", out, "--export", "safetensors", "--json"),
        "eval": succeed("eval", out, "--data", masks, "--image-size", 64, "--workers", 0, "--json"),
        "seen": succeed("inspect", out, "--json"),
    }


def test_scores_are_of_pixels(job: dict[str, Outcome]) -> None:
    trained, scored = job["train"].document, job["eval"].document
    for scores in (trained["original"], trained["best"], trained["last"], scored):
        assert 0 <= scores["mean_iou"] <= 100
        assert 0 <= scores["pixel_accuracy"] <= 100
    assert scored["mean_iou"] == pytest.approx(trained["best"]["mean_iou"])
    assert list(scored["class_iou"]) == ["a", "b", "c"]
    assert (scored["samples"], scored["shorter_edge"]) == (4, 64)
    assert trained["steps"] == 2


def test_every_output_is_grafted_and_comes_back(job: dict[str, Outcome]) -> None:
    grafted, stripped = job["graft"].document, job["strip"].document
    assert set(grafted["proof"].values()) == {True}
    assert set(stripped["proof"].values()) == {True}
    two = isinstance(grafted["base"]["head"]["module"], list)
    assert two
    assert job["inspect"].document["grafted"] == {"kind": "dropout", "replicas": 3, "rate": 0.2}
    assert job["seen"].document["head"]["classes"] == 3
    assert job["seen"].document["grafted"] is None
    assert job["plan"].document["temporary_parameters"] == grafted["temporary_parameters"]


def test_a_finished_run_resumes_to_the_same_weights(job: dict[str, Outcome]) -> None:
    assert job["again"].document["content_hash"] == job["train"].document["content_hash"]


def test_the_control_of_a_grafted_folder_trains_its_base_plainly(job, masks: Path, tmp_path: Path) -> None:
    grafted, run = Path(job["graft"].document["output"]), tmp_path / "plain"
    recipe = write_recipe(tmp_path, masks)
    succeed("train", grafted, "--recipe", recipe, "trp.kind=none", "-o", run)
    manifest = json.loads((run / "last" / "graft.json").read_text())
    assert manifest["trp"] == {"kind": "none"}
    assert manifest["base"]["content_hash"] == json.loads((grafted / "graft.json").read_text())["base"]["content_hash"]


def test_eval_ignores_the_mask_values_that_the_run_did(masks: Path, tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    recipe = ("--recipe", write_recipe(tmp_path, masks), "data.ignore=[2]")
    best = succeed("train", LRASPP, "--random-weights", *recipe, "-o", run, "--json").document["best"]
    succeed("strip", run, "-o", out)
    score = ("--data", masks, "--workers", 0, "--device", "cpu", "--json")
    scores = ("mean_iou", "pixel_accuracy", "loss")
    for model in (run, (run / "best").resolve(), out):
        found = succeed("eval", model, *score).document
        assert [found[key] for key in scores] == pytest.approx([best[key] for key in scores])
        assert "2 is not scored" in " ".join(found["notes"])
    found = succeed("eval", out, *score, "--ignore", 255).document
    assert found["loss"] != pytest.approx(best["loss"])
    assert "scored" not in " ".join(found["notes"])
    config = json.loads((out / "config.json").read_text())
    for damage in ("2", [-1], [True]):
        (out / "config.json").write_text(json.dumps(config | {"ignored_mask_values": damage}))
        assert "ignored_mask_values is not a list of numbers" in refused(1, "eval", out, *score[:-1])["message"]


def test_a_base_with_other_classes_gets_a_new_head_when_it_is_told_to(masks: Path, tmp_path: Path) -> None:
    succeed("graft", LRASPP, "--random-weights", "--num-classes", 7, "-o", tmp_path / "seven")
    base = tmp_path / "seven" / "model.safetensors"
    train = ("train", base, "--arch", LRASPP, "--recipe", write_recipe(tmp_path, masks), "-o", tmp_path / "run")
    error = refused(2, *train)
    assert error["message"] == f"data.classes says 3 classes, {base} has 7"
    assert "correct data.classes if the data has 7 classes" in error["hint"]
    assert "--num-classes 3" in error["hint"]
    found = succeed(*train, "--num-classes", 3, "--json").document
    assert any("new head for 3 classes" in note for note in found["notes"])


def test_a_file_of_class_names_that_does_not_fit_is_named(masks: Path, tmp_path: Path) -> None:
    data = broken(masks, tmp_path)
    (data / "classes.txt").write_text("a\nb\nc\nd\n")
    recipe = ("--recipe", write_recipe(tmp_path, data), "data.classes=null")
    wanted = ("--random-weights", "--num-classes", 3, *recipe, "-o", tmp_path / "run")
    error = refused(2, "train", LRASPP, *wanted)
    assert error["message"] == f"{data / 'classes.txt'} says 4 classes, {LRASPP} with --num-classes 3 has 3"
    assert error["hint"].startswith(f"correct {data / 'classes.txt'} if")


def test_a_run_that_fails_before_its_first_step_leaves_the_way_free(masks: Path, tmp_path: Path) -> None:
    data = broken(masks, tmp_path)
    Image.new("L", (64, 64), 7).save(data / "val" / "masks" / "1.png")
    train = ("train", LRASPP, "--random-weights", "--recipe", write_recipe(tmp_path, data), "-o", tmp_path / "run")
    assert "class id 7" in refused(1, *train)["message"]
    assert not (tmp_path / "run").exists()
    shutil.copyfile(masks / "val" / "masks" / "1.png", data / "val" / "masks" / "1.png")
    succeed(*train)


def test_a_resumed_run_says_which_keys_differ(job, masks: Path, tmp_path: Path) -> None:
    run = job["train"].document["run"]
    recipe = ("--recipe", write_recipe(tmp_path, masks), "training.seed=3", "training.optimizer.lr=0.5")
    grafted = job["graft"].document["output"]
    error = refused(2, "train", grafted, *recipe, "--resume", "-o", run)
    assert error["message"].endswith("in training.optimizer.lr, training.seed")
    assert "no run" in refused(2, "train", "--resume", "-o", tmp_path / "nowhere")["message"]


def refused(code: int, *arguments: object) -> dict[str, str]:
    outcome = spgsurgeon(*arguments, "--json")
    assert outcome.code == code, outcome.out + outcome.err
    error: dict[str, str] = outcome.document["error"]
    assert len(error["message"]) < 300
    return error


def broken(masks: Path, root: Path) -> Path:
    return Path(shutil.copytree(masks, root / "data"))


def change_mask_size(data: Path) -> None:
    Image.new("L", (32, 64)).save(data / "train" / "masks" / "1.png")


def write_strange_class(data: Path) -> None:
    Image.new("L", (64, 64), 7).save(data / "train" / "masks" / "1.png")


def remove_mask(data: Path) -> None:
    (data / "train" / "masks" / "1.png").unlink()


def remove_picture(data: Path) -> None:
    (data / "train" / "images" / "1.png").unlink()


@pytest.mark.parametrize(
    ("damage", "code", "message"),
    [
        (change_mask_size, 1, "64 x 64 pixels, its mask"),
        (write_strange_class, 1, "has the class id 7, classes are 0 to 2"),
        (remove_mask, 2, "without a mask"),
        (remove_picture, 2, "without an image"),
    ],
)
def test_data_that_does_not_fit_together(damage, code: int, message: str, masks: Path, tmp_path: Path) -> None:
    data = broken(masks, tmp_path)
    damage(data)
    recipe = write_recipe(tmp_path, data)
    train = ("train", LRASPP, "--random-weights", "--recipe", recipe, "-o", tmp_path / "run")
    error = refused(code, *train)
    assert message in error["message"]
    assert "1.png" in error["message"]


@pytest.mark.parametrize(
    ("model", "overrides", "message"),
    [
        ("timm/test_resnet", [], "predicts a class for each image, and the data has images with masks"),
        (LRASPP, ["data={source: folder, path: IMAGES}"], "predicts a class for each pixel"),
        (LRASPP, ["data.augment.mixup=0.2"], "mixup is for whole images"),
        (LRASPP, ["data.classes=null"], "nothing says which classes"),
        (LRASPP, ["data.path=EMPTY"], "no folders"),
        (LRASPP, ["data.train=trian"], "no folders"),
    ],
)
def test_models_and_data_of_different_kinds(
    model: str, overrides: list[str], message: str, masks: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    images = make_image_folder(tmp_path / "images", classes=3)
    named = [text.replace("IMAGES", str(images)).replace("EMPTY", str(tmp_path / "empty")) for text in overrides]
    recipe = write_recipe(tmp_path, masks)
    before = snapshot(tmp_path)
    error = refused(2, "train", model, "--random-weights", "--recipe", recipe, *named, "-o", tmp_path / "run")
    assert message in error["message"]
    assert error["hint"]
    assert snapshot(tmp_path) == before


def test_a_segmentation_model_has_no_depth(tmp_path: Path) -> None:
    error = refused(5, "graft", LRASPP, "--random-weights", "--trp", "depth", "-o", tmp_path / "out")
    assert "for classifiers, not for a LRASPP" in error["message"]


@pytest.mark.slow
def test_sequential_heads_train_to_nearly_the_same_weights(masks: Path, tmp_path: Path) -> None:
    losses = {}
    for head_batch in ("stacked", "sequential"):
        run = tmp_path / head_batch
        recipe = ("--recipe", write_recipe(tmp_path, masks), f"trp.head_batch={head_batch}")
        succeed("train", DEEPLAB, "--random-weights", *recipe, "-o", run)
        losses[head_batch] = json.loads((run / "metrics.jsonl").read_text())["loss"]
    assert losses["sequential"] == pytest.approx(losses["stacked"], rel=1e-3)
