import re
from dataclasses import replace

import pytest
import timm
import torch
import torchvision
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.utils import validate_repo_id
from safetensors.torch import save_file
from timm.models import save_for_hf
from torch import nn

from spgsurgeon.exporting.card import model_card
from spgsurgeon.exporting.card_metadata import Evaluation
from spgsurgeon.models.libraries.identity import Identity
from spgsurgeon.models.libraries.registry import library
from spgsurgeon.tasks.classification import CLASSIFICATION
from spgsurgeon.tasks.segmentation import SEGMENTATION

FACTS = {
    "architecture": "test_resnet",
    "library": "timm",
    "num_classes": 7,
    "base_source": "timm/test_resnet.r160_in1k",
    "base_content_hash": "b" * 64,
    "content_hash": "c" * 64,
    "package_version": "1.2.3",
}


def scores(original: float, best: float, metric: str = "top1") -> dict[str, dict[str, float]]:
    return {"original": {metric: original}, "best": {metric: best}}


def run_snippet(card: str) -> nn.Module:
    names: dict[str, object] = {}
    exec(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1], names)
    return names["model"]


def test_front_matter_is_what_the_hub_reads():
    card = model_card(**FACTS, pipeline_tag=CLASSIFICATION.pipeline_tag)
    head = yaml.safe_load(card.split("---\n")[1])
    assert card.startswith("---\n")
    assert head["library_name"] == "timm"
    assert head["pipeline_tag"] == "image-classification"
    assert {"timm", "spgsurgeon"} <= set(head["tags"])


def test_every_fact_is_said_and_every_missing_one_is_named():
    card = model_card(**FACTS)
    assert all(str(fact) in card for fact in FACTS.values())
    for words in ("no gain is claimed", "No proof was recorded", "No recipe was recorded"):
        assert words in card


def test_a_gain_is_the_difference_of_the_two_numbers():
    card = model_card(**FACTS, scores=scores(71.878, 72.104))
    assert "| top1 | 71.878 | 72.104 | +0.226 |" in card
    assert "Gain: top1 was 71.878 and is 72.104 (+0.226)." in card


@pytest.mark.parametrize("best", [71.878, 71.5, 71.8781, float("nan")], ids=["equal", "worse", "invisible", "nan"])
def test_without_a_visible_gain_the_card_says_so(best):
    card = model_card(**FACTS, scores=scores(71.878, best))
    assert f"**No gain**: top1 was 71.878 and is {best:.3f} (" in card
    assert "Gain: " not in card
    assert "-0.000" not in card


def test_the_first_metric_decides_in_its_direction():
    both = {"original": {"top1": 60.0, "top5": 80.0}, "best": {"top1": 59.0, "top5": 81.0}}
    assert "**No gain**: top1" in model_card(**FACTS, scores=both)
    assert "Gain: perplexity" in model_card(**FACTS, scores=scores(20.5, 20.1, "perplexity"), higher_is_better=False)
    assert "**No gain**" in model_card(**FACTS, scores=scores(20.1, 20.5, "perplexity"), higher_is_better=False)


def test_a_law_that_does_not_hold_is_not_hidden():
    card = model_card(**FACTS, proof={"keys": True, "outputs": False, "onnx": "largest difference 1e-7"})
    assert "| keys | holds |" in card
    assert "| outputs | **does not hold** |" in card
    assert "| onnx | largest difference 1e-7 |" in card


def test_the_recipe_can_be_read_back():
    recipe = "model: timm/test_resnet\ntraining: {epochs: 3}\n"
    card = model_card(**FACTS, recipe=recipe)
    assert re.search(r"```yaml\n(.*?)```", card, re.DOTALL)[1] == recipe


def test_the_timm_snippet_loads_the_folder(tmp_path, monkeypatch):
    model = timm.create_model("test_resnet", num_classes=7)
    save_for_hf(model, tmp_path, safe_serialization=True)
    monkeypatch.chdir(tmp_path)
    loaded = run_snippet(model_card(**FACTS))
    assert not loaded.training
    assert torch.equal(loaded.fc.weight, model.fc.weight)


def test_the_torchvision_snippet_loads_the_folder(tmp_path, monkeypatch):
    facts = {**FACTS, "library": "torchvision", "architecture": "squeezenet1_1", "builder_arguments": {"dropout": 0.25}}
    model = torchvision.models.get_model("squeezenet1_1", num_classes=7)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    loaded = run_snippet(model_card(**facts))
    assert not loaded.training
    assert loaded.classifier[0].p == 0.25
    assert torch.equal(loaded.classifier[1].weight, model.classifier[1].weight)


@pytest.mark.parametrize(
    ("recipe", "title", "sentence"),
    [
        ("trp: {kind: dropout}\n", "# resnet18, retrained with SPG\n", "retrained with Sequential Policy Gradient"),
        ("trp: {kind: none}\n", "# resnet18, retrained plainly\n", "without its method"),
        (None, "# resnet18\n", "**not retrained**"),
    ],
)
def test_the_card_says_how_the_weights_were_made(recipe, title, sentence):
    note = "new head for 7 classes where there was none: untrained"
    card = model_card(**FACTS | {"architecture": "resnet18", "recipe": recipe, "base_notes": [note]})
    assert title in card
    assert sentence in card
    assert f"- {note}\n" in card


@pytest.mark.parametrize("auxiliary", [True, False])
def test_the_snippet_loads_a_segmentation_model_and_fetches_no_backbone(tmp_path, monkeypatch, auxiliary):
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", None)
    name = "deeplabv3_mobilenet_v3_large"
    model = torchvision.models.get_model(name, weights_backbone=None, num_classes=4, aux_loss=auxiliary)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    facts = FACTS | {"library": "torchvision", "architecture": name, "num_classes": 4}
    identity = Identity("torchvision", name, 4)
    arguments = library("torchvision").builder_arguments(identity, 2 if auxiliary else 1)
    tag, usage = SEGMENTATION.pipeline_tag, SEGMENTATION.usage
    card = model_card(**facts, builder_arguments=arguments, pipeline_tag=tag, usage=usage)
    assert yaml.safe_load(card.split("---\n")[1])["pipeline_tag"] == "image-segmentation"
    loaded = run_snippet(card)
    assert (loaded.aux_classifier is not None) is auxiliary
    assert torch.equal(loaded.classifier[4].weight, model.classifier[4].weight)


@pytest.mark.parametrize("replicas", ["3 dropout replicas, rate 0.2", None])
def test_the_card_says_what_the_temporary_modules_were(replicas):
    card = model_card(**FACTS, replicas=replicas)
    assert ("temporary modules, gone" in card) is (replicas is not None)
    assert replicas is None or f"| temporary modules, gone | {replicas} |" in card


DIGITS = Evaluation("digits", "digits", "val", None, {"top1": "accuracy"}, frozenset({"top1", "top5"}))
ON_HUB = replace(DIGITS, source="hfds/owner/data", name="data", hub_id="owner/data")
BOTH = {"original": {"top1": 60.0, "top5": 80.0}, "best": {"top1": 61.23456, "top5": 81.0}}


def test_huggingface_hub_reads_the_metadata_back():
    facts = {
        "base_model": "timm/test_resnet.r160_in1k",
        "license": "apache-2.0",
        "pipeline_tag": "image-classification",
    }
    text = model_card(**FACTS, **facts, scores=BOTH, evaluation=ON_HUB)
    data = ModelCard(text).data  # raises for a model-index that it can't read
    assert {key: data[key] for key in facts} == facts
    assert (data.library_name, data.datasets, data.metrics) == ("timm", ["owner/data"], ["accuracy"])
    found = [(r.metric_type, r.metric_value, r.dataset_type, r.dataset_split) for r in data.eval_results]
    assert found == [("accuracy", 61.235, "owner/data", "val"), ("top5", 81.0, "owner/data", "val")]
    assert {result.task_type for result in data.eval_results} == {"image-classification"}
    for name in (data.base_model, *data.datasets):
        validate_repo_id(name)
    assert str(ModelCard(text)) == text
    assert model_card(**FACTS, **facts, scores=BOTH, evaluation=ON_HUB) == text


def test_nothing_is_said_of_the_base_the_data_or_the_license_that_is_not_known():
    card = model_card(**FACTS, base_model="not a/name/at all", license="unknown", scores=BOTH)
    head = ModelCard(card).data.to_dict()
    assert head.keys() == {"library_name", "tags"}
    assert "| base on the Hub | not known |" in card
    assert "license of the weights is that of the base checkpoint, which is not known here" in card
    assert "Of which data and split they are was not recorded" in card


def test_data_that_is_not_on_the_hub_is_named_beside_the_scores_and_not_as_a_data_set_of_the_hub():
    card = model_card(**FACTS, scores=BOTH, evaluation=DIGITS)
    head = ModelCard(card).data
    assert head.datasets is None
    assert {(result.dataset_name, result.dataset_split) for result in head.eval_results} == {("digits", "val")}
    assert "They are of the data set digits, split val." in card


@pytest.mark.parametrize(
    ("license", "said"),
    [("cc-by-nc-4.0", {"license": "cc-by-nc-4.0"}), ("own-one", {"license": "other", "license_name": "own-one"})],
)
def test_a_license_that_the_hub_has_no_name_for_is_another_one(license, said):
    card = model_card(**FACTS, license=license)
    assert {key: value for key, value in ModelCard(card).data.to_dict().items() if "license" in key} == said
    assert f"that of the base checkpoint: {license}." in card


def test_a_score_that_is_not_finite_is_not_in_the_model_index():
    card = model_card(**FACTS, scores={**BOTH, "best": {"top1": float("nan"), "top5": 81.0}}, evaluation=DIGITS)
    assert [result.metric_type for result in ModelCard(card).data.eval_results] == ["top5"]
    assert "**No gain**: top1" in card


def test_the_control_takes_the_place_of_the_words_that_there_was_none():
    words = "don't tell how much plain retraining"
    assert words in model_card(**FACTS, scores=BOTH)
    card = model_card(**FACTS, scores=BOTH, control="over 3 seeds there is no difference.")
    assert words not in card
    assert "**Against plain retraining, the control:** over 3 seeds there is no difference.\n" in card


def test_laws_are_said_in_words():
    card = model_card(**FACTS, proof={"eval_outputs_equal": True})
    assert "| in evaluation it gives the grafted model's outputs, bit for bit | holds |" in card


def test_what_comes_from_files_stays_text():
    facts = FACTS | {"base_source": "a|b`<script>`", "base_notes": ["{{ 7 * 7 }} <b>x</b>\n# heading"]}
    recipe = "model: x  # ```\n"
    card = model_card(**facts, recipe=recipe, license="[x](y)<i>")
    assert "<script>" not in card
    assert "<b>" not in card
    assert "<i>" not in ModelCard(card).text
    assert "- {{ 7 * 7 }} (b)x(/b) # heading\n" in card
    assert re.search(r"^````yaml\n(.*?)^````$", card, re.DOTALL | re.MULTILINE)[1] == recipe
