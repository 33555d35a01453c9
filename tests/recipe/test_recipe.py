"""The recipe schema, its reader and writer, and the shipped recipes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from spgsurgeon.commands.recipes import check_recipe, copy_recipe, diff_recipes, list_recipes, show_recipe
from spgsurgeon.errors import RecipeError, SurgeonError, UsageError
from spgsurgeon.recipe.data_section import DataSection
from spgsurgeon.recipe.json_schema import recipe_json_schema
from spgsurgeon.recipe.reading import read_recipe
from spgsurgeon.recipe.schema import Recipe, recipe_keys
from spgsurgeon.recipe.shipped import find_recipe, shipped_recipes
from spgsurgeon.recipe.training_section import OptimizerSection, TrainingSection
from spgsurgeon.recipe.writing import dump_recipe
from spgsurgeon.replicas.kinds import kinds
from spgsurgeon.replicas.kinds.fixed_dropout import FixedDropout
from spgsurgeon.replicas.kinds.none import NoReplicas
from spgsurgeon.sections import meanings

SHIPPED = (
    "camvid-lraspp-base",
    "camvid-lraspp-dropout",
    "cifar10-few",
    "cifar10-resnet-base",
    "cifar10-resnet-depth",
    "cifar10-resnet-dropout",
    "cifar10-resnet18-base",
    "cifar10-vit-base",
    "coco-deeplabv3-resnet101-dropout",
    "coco-deeplabv3-resnet50-dropout",
    "coco-fcn-resnet101-dropout",
    "coco-fcn-resnet50-dropout",
    "cola-gpt2",
    "digits-dropout",
    "glue-cola",
    "glue-mrpc",
    "glue-qnli",
    "glue-qqp",
    "glue-rte",
    "glue-small",
    "glue-sst2",
    "imagenet-efficientnet-v2-m-dropout",
    "imagenet-mobilenet-v2-dropout",
    "imagenet-resnet18-depth",
    "imagenet-resnet34-depth",
    "imagenet-resnet50-depth",
    "imagenet-resnet50-dropout",
    "imagenet-vit-b-16-depth",
    "imagenet-vit-b-16-dropout",
    "my-classes",
    "squad",
    "superb-keyword-spotting",
)
MINIMAL = "data: {source: digits}\n"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write recipe.yaml into the current folder, so that faults name it as `recipe.yaml:LINE`."""
    monkeypatch.chdir(tmp_path)

    def write_text(text: str, encoding: str = "utf-8") -> str:
        Path("recipe.yaml").write_text(text, encoding=encoding)
        return "recipe.yaml"

    return write_text


def faults_of(source: str, overrides: tuple[str, ...] = ()) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        read_recipe(source, overrides)
    assert caught.value.message.splitlines() == caught.value.details["faults"]
    return caught.value.details["faults"]


def test_the_shipped_recipes_are_found():
    assert tuple(shipped_recipes()) == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recipes_validate_and_survive_writing(name, write):
    recipe = read_recipe(name)
    assert read_recipe(write(dump_recipe(recipe))) == recipe == read_recipe(f"{name}.yaml")
    assert read_recipe(name, ["trp.kind=none"]).trp.kind == "none"


def test_the_dump_writes_every_key():
    recipes = [Recipe(data=DataSection(source="digits"), trp=kind()) for kind in kinds().values()]
    shown = "".join(map(dump_recipe, recipes))
    leaves = [key.rpartition(".")[2] for key in recipe_keys()]
    assert [leaf for leaf in leaves if f"{leaf}:" not in shown] == []
    assert all(recipe_keys().values()), "a key without a description"


# As runs of before have written it: the settings of all kinds, whichever it is.
EVERY_KIND = "trp: {{kind: {}, replicas: 3, rate: 0.2, blocks: null, block: null, init: identity, head_batch: stacked, "
EVERY_KIND += "rollouts: false}}\n"


@pytest.mark.parametrize("kind", kinds())
def test_a_section_with_the_defaults_of_every_kind_is_one_of_its_kind(kind, write):
    read = read_recipe(write(MINIMAL + EVERY_KIND.format(kind))).trp
    assert read == kinds()[kind]()
    assert read.model_fields_set <= kinds()[kind].model_fields.keys()


def test_the_kind_alone_makes_the_control_of_any_recipe(write):
    source = write(MINIMAL + "trp: {kind: dropout, replicas: 5, rate: 0.1, head_batch: sequential}")
    assert read_recipe(source, ["trp.kind=none"]).trp == NoReplicas()
    assert read_recipe(source, ["trp.kind=fixed-dropout"]).trp == FixedDropout(rate=0.1)
    assert faults_of(source, ("trp.kind=depth",)) == [
        "recipe.yaml:2: trp.rate: rate is not a setting of depth replicas but of dropout, channel-dropout, "
        "drop-path, token-drop, fixed-dropout; to change the kind, replace the section: trp={kind: depth}",
        "recipe.yaml:2: trp.head_batch: head_batch is not a setting of depth replicas but of dropout, "
        "channel-dropout, feature-noise; to change the kind, replace the section: trp={kind: depth}",
    ]


def test_text_that_looks_like_something_else_survives_writing(write):
    for text in ("4e-4", "no", "007", "null", "2024-01-01", "a: b", "ä #b"):
        recipe = Recipe(model=text, data=DataSection(path=text), training=TrainingSection(seed=2**63 - 1))
        assert read_recipe(write(dump_recipe(recipe))) == recipe


def test_all_faults_come_at_once_in_order_with_their_lines(write):
    source = write("""\
trp: {kind: dropout, replicas: 0, rate: 1.0}
objective:
  weights: [0.4, -1, .nan]
data:
  flip: 0.5
  source: digits
training:
  batch_sise: 3
  batch_size: 0
  epochs: 3.0
  optimizer: fast
  ema: none
  compile: yes
  seed: true
  device: gpu
xyz: red
""")
    assert faults_of(source, ("training.epoch=3", "data.augment.flip=2")) == [
        "recipe.yaml:1: trp.replicas: 0 is refused, it must be 1 or more",
        "recipe.yaml:1: trp.rate: 1.0 is refused, it must be less than 1",
        "recipe.yaml:3: objective.weights[1]: -1 is refused, it must be 0 or more",
        "recipe.yaml:3: objective.weights[2]: NaN is refused, it must be a finite number",
        "recipe.yaml:5: data.flip: unknown key, did you mean 'data.augment.flip'?",
        "recipe.yaml:8: training.batch_sise: unknown key, did you mean 'batch_size'?",
        "recipe.yaml:9: training.batch_size: 0 is refused, it must be 1 or more",
        "recipe.yaml:10: training.epochs: 3.0 is refused, it must be an integer",
        "recipe.yaml:11: training.optimizer: 'fast' is not a section with keys name, lr, momentum, weight_decay, "
        "nesterov, decay_bias_and_norm, head_lr, layer_decay",
        "recipe.yaml:12: training.ema: 'none' is refused, it must be a number (or null)",
        "recipe.yaml:13: training.compile: 'yes' is refused, it must be true or false",
        "recipe.yaml:14: training.seed: true is refused, it must be an integer",
        "recipe.yaml:15: training.device: 'gpu' is not a device; it must be auto, cpu, cuda, cuda:N or mps",
        "recipe.yaml:16: xyz: unknown key",
        "override data.augment.flip=2: data.augment.flip: 2 is refused, it must be 1 or less",
        "override training.epoch=3: training.epoch: unknown key, did you mean 'epochs'?",
    ]


def test_without_a_source_overrides_say_everything():
    recipe = read_recipe(None, ["data.source=digits", "training.epochs=3"])
    assert (recipe.data.source, recipe.training.epochs, recipe.trp.kind) == ("digits", 3, "dropout")
    with pytest.raises(RecipeError, match="the recipe: data: missing"):
        read_recipe(None, [])


def test_duplicate_keys_are_refused(write):
    source = write(MINIMAL + "training:\n  epochs: 3\n  seed: 1\n  epochs: 4\n")
    assert faults_of(source) == ["recipe.yaml:5: training.epochs: duplicate key, first given at recipe.yaml:3"]


def test_weights_and_replicas_are_counted_together(write):
    # The fault of another section must not hide it.
    source = write(MINIMAL + "trp: {replicas: 2}\nobjective: {weights: [1, 1, 1]}\ntraining: {epochs: 0}\n")
    assert faults_of(source)[0] == (
        "recipe.yaml:3: objective.weights: 3 weights for 2 replicas (trp.replicas); each needs one"
    )
    assert faults_of("digits-dropout", ("trp.replicas=2", "objective={}"))[0].startswith(
        "override objective={}: objective.weights: 3 weights for 2 replicas"
    )
    recipe = read_recipe("digits-dropout", ["trp={kind: none, replicas: 2}"])
    assert recipe.trp == NoReplicas()


def test_the_default_weights_are_counted_too(write):
    assert faults_of(write(MINIMAL + "trp: {replicas: 2}\n")) == [
        "recipe.yaml: objective.weights: 3 weights for 2 replicas (trp.replicas); each needs one"
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "trp: {kind: norm-noise}\ndata: {source: digits}\ntraining: {batch_norm: freeze}",
            "recipe.yaml:3: training.batch_norm: the replicas of norm-noise do nothing where batch norms are in eval",
        ),
        ("trp: {}", "recipe.yaml: data: missing; it says: The images."),
        ("", "recipe.yaml: data: missing; it says: The images."),
        ("data:\n  source: folder", "recipe.yaml:1: data.path: source: folder needs the path of the folder that holds"),
        ("data: {source: masks}", "recipe.yaml:1: data.path: source: masks needs the path"),
        ("data: {source: folder, path: x, ignore: [3]}", "recipe.yaml:1: data.ignore: ignore is for images with mas"),
        (
            "data: {source: coco, path: x, classes: 3}",
            "recipe.yaml:1: data.classes: classes is for source: ",
        ),
        (
            "data: {source: masks, path: x, augment: {crop: pad}}",
            "recipe.yaml:1: data.augment: crop 'pad' does not go with source: masks, which has random-scale and resize",
        ),
        (
            "data: {source: digits, augment: {crop: random-scale}}",
            "recipe.yaml:1: data.augment: crop 'random-scale' does not go with source: digits, which has random-resiz",
        ),
        (
            "data: {source: masks, path: x, augment: {mixup: 0.2}}",
            "recipe.yaml:1: data.augment: mixup is for whole images",
        ),
        (
            "data: {source: masks, path: x, classes: [road, 7]}",
            'recipe.yaml:1: data.classes: ["road", 7] is refused, it must be a list of names',
        ),
        ("data: {source: masks, path: x, classes: 0}", "recipe.yaml:1: data.classes: 0 is refused"),
        (MINIMAL + "trp: {kind: depth, rate: 0.1}", "recipe.yaml:2: trp.rate: rate is not a setting of depth replicas"),
        (MINIMAL + "trp: {kind: width}", "recipe.yaml:2: trp.kind: 'width' is refused, it must be 'dropout', 'depth'"),
        (MINIMAL + "trp: {kind: [a]}", "recipe.yaml:2: trp.kind: [\"a\"] is refused, it must be 'dropout', 'depth'"),
        (MINIMAL + "trp: 3", "recipe.yaml:2: trp: 3 is not a section with keys kind, replicas, head_batch"),
        (MINIMAL + "trp: {blok: 2}", "recipe.yaml:2: trp.blok: unknown key"),
        (MINIMAL + "trp: {blocks: 2}", "recipe.yaml:2: trp.blocks: blocks is not a setting of dropout replicas"),
        (MINIMAL + "trp: {kind: depth, blocks: 0}", "recipe.yaml:2: trp.blocks: 0 is refused, it must be 1 or more"),
        (
            "data: {source: wds/x}",
            "recipe.yaml:1: data.source: 'wds/x' names a data set, and wds data is found by its folder",
        ),
        ("data: {source: tfds/x}", "recipe.yaml:1: data.source: 'tfds/x' is a stream: it can't be read at random"),
        ("data: {source: wds}", "recipe.yaml:1: data.path: source: wds needs the path of the folder that holds"),
        ("data: {source: mnist}", "recipe.yaml:1: data.source: 'mnist' is not a data source"),
        ("data: {source: torch/}", "recipe.yaml:1: data.source: 'torch/' is not a data source"),
        (
            MINIMAL + "cold_start:\n  epochs: 2\n  until: converged",
            "recipe.yaml:4: cold_start.until: until: converged and epochs: 2 exclude each other",
        ),
        ("[1, 2]", "recipe.yaml: a recipe is a mapping of sections"),
        (MINIMAL + "? [a]\n: 3", "recipe.yaml:2: a key must be a word"),
        (MINIMAL + "training: {epochs: [", "recipe.yaml:2: column 21: expected the node content"),
        (MINIMAL + "---\nmodel: x", "recipe.yaml:2: column 1: but found another document"),
        ("model: \x07", "recipe.yaml:1: not YAML: unacceptable character"),
        ("data: &a {source: digits}\ntrp: *a", "recipe.yaml:2: column 6: aliases (*name) are not read in a recipe"),
        ("data: {source: !!str digits}", "recipe.yaml:1: column 16: tags (tag:yaml.org,2002:str) are not read"),
        ("data: " + "[" * 5000, "recipe.yaml:1: column 22: nested too deeply for a recipe"),
        ("#" * 70_000, "recipe.yaml:1: not YAML: longer than 65,536 characters"),
    ],
)
def test_a_fault_says_where_and_what(text, fault, write):
    faults = faults_of(write(text))
    assert len(faults) == 1
    assert faults[0].startswith(fault)


def test_the_form_of_the_loss_goes_by_the_kind_of_replica_unless_it_is_said(write):
    assert read_recipe(write(MINIMAL)).objective.form == "step"
    assert read_recipe(write(MINIMAL + "trp: {kind: depth}")).objective.form == "episode"
    assert read_recipe(write(MINIMAL + "trp: {kind: depth}\nobjective: {form: step}")).objective.form == "step"
    shown = dump_recipe(read_recipe(write(MINIMAL + "trp: {kind: depth}")))
    assert read_recipe(write(shown)).objective.form == "episode"


def test_pictures_with_masks_are_cropped_at_random_scales_unless_it_is_said(write):
    masks = "data: {source: masks, path: x, classes: [a, b], ignore: [11]}"
    recipe = read_recipe(write(masks))
    assert recipe.data.augment.crop == "random-scale"
    assert read_recipe(write(dump_recipe(recipe))) == recipe
    assert read_recipe(write(masks), ["data.augment.crop=resize"]).data.augment.crop == "resize"
    assert read_recipe(write(masks), ["data.classes=11"]).data.classes == 11


def test_python_tags_are_refused_and_never_run(write, tmp_path):
    proof = tmp_path / "ran"
    source = write(f'model: !!python/object/apply:os.system ["touch {proof}"]\n')
    assert "tags (tag:yaml.org,2002:python/object/apply:os.system) are not read" in faults_of(source)[0]
    assert not proof.exists()


def test_a_file_that_is_not_text_is_refused(write):
    with pytest.raises(RecipeError, match="not UTF-8"):
        read_recipe(write("model: ä", encoding="latin-1"))


@pytest.mark.parametrize("spelling", ["4e-4", "4E-4", "4.e-4", "0.0004", "+.4e-3", "4.0e-4"])
def test_every_spelling_of_a_number_is_a_number(spelling, write):
    source = write(f"{MINIMAL}training: {{optimizer: {{lr: {spelling}}}}}")
    assert read_recipe(source).training.optimizer.lr == 4e-4
    assert read_recipe("digits-dropout", [f"training.optimizer.lr={spelling}"]).training.optimizer.lr == 4e-4


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("training.epochs=3", 3),
        ("training.gradient_clip=1", 1.0),
        ("training.gradient_clip=null", None),
        ("training.compile=true", True),
        ("training.device=cuda:1", "cuda:1"),
        ("model=2024", "2024"),
        ("model=007", "007"),
        ("model=", None),
        ("data.path='null'", "null"),
        ("data.eval=no", "no"),
        ("objective.weights=[1, 0.5, 2e-1]", (1.0, 0.5, 0.2)),
    ],
)
def test_overrides_are_typed_by_the_schema(override, value):
    section = read_recipe("digits-dropout", [override])
    for key in override.partition("=")[0].split("."):
        assert key in section.model_fields_set, "an override counts as set"
        section = getattr(section, key)
    assert section == value
    assert type(section) is type(value)


def test_what_nobody_set_is_not_counted_as_set():
    recipe = read_recipe("digits-dropout", ["training.schedule.every=10"])
    assert recipe.training.schedule.model_fields_set == {"name", "every"}
    assert "cold_start" not in recipe.model_fields_set


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("training.epoch=3", "training.epoch: unknown key, did you mean 'epochs'?"),
        ("trainin.epochs=3", "trainin: unknown key, did you mean 'training'?"),
        (
            "epochs=3",
            "epochs: unknown key, did you mean 'head_start.epochs' or 'cold_start.epochs' or 'training.epochs'?",
        ),
        ("training.epochs.x=3", "training.epochs has a value, and no keys below it"),
        ("data.augment={flip: 2}", "data.augment.flip: 2 is refused, it must be 1 or less"),
        ("training.epochs", "an override has the form section.key=value"),
        ("training..epochs=3", "an override has the form section.key=value"),
        ("data.batch_size=3", "data.batch_size: unknown key, did you mean 'training.batch_size'?"),
        ("training.epochs=010", "training.epochs: '010' is refused, it must be an integer"),
        ("training.epochs=1_0", "training.epochs: '1_0' is refused, it must be an integer"),
        ("training.ema=1e999", "training.ema: Infinity is refused, it must be a finite number (or null)"),
        ("model=[", "column 2: expected the node content"),
        ("model=[a]", 'model: ["a"] is refused, it must be text (or null)'),
    ],
)
def test_faults_of_overrides_name_the_override(override, fault):
    assert faults_of("digits-dropout", (override,))[0].startswith(f"override {override}: {fault}")


def test_a_recipe_that_is_not_there_names_near_ones(tmp_path):
    with pytest.raises(UsageError, match="no recipe 'digits-dropuot'") as caught:
        read_recipe("digits-dropuot")
    assert not isinstance(caught.value, RecipeError)
    assert "'digits-dropout'" in (caught.value.hint or "")
    with pytest.raises(UsageError, match="is a folder"):
        read_recipe(tmp_path)


def test_a_file_goes_before_a_shipped_name(write):
    Path("digits-dropout").write_text("data: {source: digits}\nmodel: mine")
    write("")
    assert read_recipe("digits-dropout").model == "mine"


def test_listing_gives_title_and_head():
    summaries = {summary.name: summary for summary in list_recipes()}
    assert tuple(summaries) == SHIPPED
    for summary in summaries.values():
        assert summary.head.startswith(summary.title)
        for word in ("Source:", "Command:", "Hardware and time:", "Expected score:"):
            assert word in summary.head, f"{summary.name} says no {word}"


def test_showing_resolves_overrides_under_the_head(write):
    shown = show_recipe("digits-dropout", ["training.epochs=7"])
    assert shown.startswith("# Handwritten digits")
    assert read_recipe(write(shown)) == read_recipe("digits-dropout", ["training.epochs=7"])


def test_copying_refuses_what_exists(tmp_path):
    copied = copy_recipe("digits-dropout", tmp_path)
    assert copied == tmp_path / "digits-dropout.yaml"
    assert check_recipe(copied) == read_recipe("digits-dropout")
    copied.write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        copy_recipe("digits-dropout", copied)
    assert copied.read_text() == "mine"
    copy_recipe("digits-dropout.yaml", copied, force=True)
    line, rest = copied.read_text().split("\n", maxsplit=1)
    assert rest == shipped_recipes()["digits-dropout"].read_text()
    schema = tmp_path / line.removeprefix("# yaml-language-server: $schema=")
    assert json.loads(schema.read_text()) == recipe_json_schema()
    assert {*tmp_path.iterdir()} == {copied, schema}, "nothing else is left behind"
    with pytest.raises(UsageError, match="not a folder"):
        copy_recipe("digits-dropout", tmp_path / "missing" / "x.yaml")


def test_a_copy_is_shown_under_the_head_that_it_was_copied_with(tmp_path):
    copied = copy_recipe("digits-dropout", tmp_path)
    assert show_recipe(copied) == show_recipe("digits-dropout")


def test_copying_leaves_the_file_of_others_where_the_schema_goes(tmp_path):
    other = tmp_path / "recipe.schema.json"
    other.write_text('{"title": "recipes of a kitchen"}')
    with pytest.raises(UsageError, match=r"recipe\.schema\.json is not a schema of recipes"):
        copy_recipe("digits-dropout", tmp_path)
    assert [*tmp_path.iterdir()] == [other]


@pytest.mark.parametrize("name", ["digits-dropout", "imagenet-resnet18-depth", "camvid-lraspp-base"])
def test_an_explained_recipe_is_the_same_recipe(name, write):
    explained = show_recipe(name, ["training.epochs=7"], explain=True)
    recipe = read_recipe(name, ["training.epochs=7"])
    assert read_recipe(write(explained)) == recipe
    words = " ".join(re.sub(r"\s+# ?", " ", explained).split())
    kind = type(recipe.trp)
    for section, told in ((recipe.trp, meanings(kind)), (recipe.training.optimizer, meanings(OptimizerSection))):
        for key in type(section).model_fields:
            assert " ".join(told[key].split()) in words, key


def test_recipes_differ_by_key(write):
    found = diff_recipes("digits-dropout", write(show_recipe("digits-dropout", ["trp={kind: depth}", "model=m"])))
    differences = {row.pop("key"): row for row in found["differences"]}
    assert differences["trp.kind"] == {"a": "dropout", "b": "depth"}
    assert differences["model"] == {"a": None, "b": "m"}
    assert differences["trp.rate"] == {"a": 0.2}, "replicas of depth have no such key"
    assert differences["trp.init"] == {"b": "identity"}
    assert not found["identical"]
    assert diff_recipes("digits-dropout", "digits-dropout")["differences"] == []


def test_a_failed_copy_leaves_the_old_file(tmp_path, monkeypatch):
    old = tmp_path / "x.yaml"
    old.write_text("mine")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(SurgeonError, match="No space left"):
        copy_recipe("digits-dropout", old, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["x.yaml"]
    assert old.read_text() == "mine"


def test_recipes_never_import_torch():
    code = "import sys; from spgsurgeon.commands.recipes import show_recipe; show_recipe('digits-dropout')\n"
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_can_not_be_repeated_is_not_deterministic(write) -> None:
    recipe = write("data: {path: d}\ntraining:\n  deterministic: true\n  cudnn_benchmark: true\n")
    (fault,) = faults_of(recipe)
    assert fault.startswith("recipe.yaml:4: training.cudnn_benchmark: what cudnn_benchmark takes is left to chance")
    assert read_recipe(recipe, ["training.deterministic=false"]).training.cudnn_benchmark


def test_a_recipe_file_that_is_not_there_names_its_neighbour(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").touch()
    with pytest.raises(UsageError, match="no recipe file mine") as caught:
        find_recipe("mine.yml")
    assert "'mine.yaml'" in caught.value.hint


def test_mask_values_and_ranges_survive_writing(write) -> None:
    text = "data: {source: masks, path: x, classes: 2, mask_values: {255: 1, 0: 0}, value_range: [0, 4095]}"
    recipe = read_recipe(write(text))
    assert recipe.data.mask_values == {255: 1, 0: 0}
    assert recipe.data.value_range == (0.0, 4095.0)
    assert read_recipe(write(dump_recipe(recipe))) == recipe
    given = ["data.mask_values={7: 0}", "data.value_range=null", "data.max_pixels=200000000"]
    changed = read_recipe(write(text), given).data
    assert (changed.mask_values, changed.value_range, changed.max_pixels) == ({7: 0}, None, 200_000_000)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("mask_values: {255: x}", "it must say the class number of mask values, such as {255: 1}"),
        ("mask_values: {-1: 0}", "it must say the class number"),
        ("mask_values: {255: 1.0}", "it must say the class number"),
        ("mask_values: {}", "it must say the class number"),
        ("mask_values: [255, 1]", "it must say the class number"),
        ("mask_values: {11: 1}, ignore: [11]", "11 has a class here, and is in ignore too"),
        ("value_range: [5, 5]", "two numbers, black and white"),
        ("value_range: [0, .inf]", "two numbers, black and white"),
        ("value_range: [true, 5]", "two numbers, black and white"),
        ("value_range: 5", "two numbers, black and white"),
        ("max_pixels: 0", "it must be 1 or more"),
    ],
)
def test_mask_values_ranges_and_sizes_that_are_none(key: str, words: str, write) -> None:
    (fault,) = faults_of(write(f"data: {{source: masks, path: x, classes: 2, {key}}}"))
    assert words in fault


def test_mask_values_are_for_folders_of_masks(write) -> None:
    for source in ("folder", "digits", "voc", "coco"):
        (fault,) = faults_of(write(f"data: {{source: {source}, path: x, mask_values: {{255: 1}}}}"))
        assert "mask_values is for source: masks" in fault


def test_nesterovs_momentum_needs_one(write) -> None:
    recipe = write("data: {path: d}\ntraining: {optimizer: {nesterov: true, momentum: 0.0}}\n")
    with pytest.raises(RecipeError, match="needs a momentum greater than 0"):
        read_recipe(recipe)
