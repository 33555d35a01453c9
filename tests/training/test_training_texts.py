"""Models of texts go the whole way: grafted, trained, resumed, scored, stripped, and read by transformers."""

import json
from pathlib import Path

import pytest
from command_line import spgsurgeon, succeed
from folder_runs import RECIPE, check_resuming, trained, write_recipe
from tiny_texts import opinions, opinions_folder, reader, with_tokenizer
from tiny_transformers import saved, tiny


@pytest.fixture
def work(tmp_path: Path) -> Path:
    opinions_folder(tmp_path / "data")
    reader(tmp_path / "model", num_labels=2)
    write_recipe(tmp_path, "texts", drop_last=False, metric="matthews")
    return tmp_path


def test_a_model_of_texts_goes_the_whole_way(work) -> None:
    succeed("graft", work / "model", "-o", work / "grafted", "--trp", "dropout", "--replicas", "2", "--rate", "0.1")
    found = trained(work, "run", model="grafted").document
    assert found["best"]["metric"] == "matthews"
    assert {"accuracy", "matthews", "f1", "loss", "samples"} <= found["best"].keys()
    assert found["best"]["samples"] == 20
    assert any("'sentence'" in note for note in found["notes"])
    stripped = succeed("strip", "--json", work / "run", "-o", work / "better").document
    assert stripped["proof"]["from_pretrained_equal"]
    assert (work / "better" / "tokenizer.json").read_bytes() == (work / "model" / "tokenizer.json").read_bytes()
    scored = succeed("eval", "--json", work / "better", "--data", work / "data", "--split", "dev", "--metric", "f1")
    assert scored.document["matthews"] == pytest.approx(found["best"]["matthews"])
    assert (scored.document["metric"], scored.document["max_length"]) == ("f1", 24)


def test_no_gain_is_said_of_the_score_that_the_run_was_judged_by(work) -> None:
    trained(work, "run", "training.epochs=1", "training.optimizer.lr=1.0e-12", "trp.kind=dropout")
    notes = succeed("strip", "--json", work / "run", "-o", work / "better").document["notes"]
    assert any("the run's best matthews is" in note for note in notes)


def test_pipeline_predicts_what_eval_scores(work) -> None:
    transformers = pytest.importorskip("transformers")
    trained(work, "run")
    succeed("strip", work / "run", "-o", work / "better")
    succeed("report", work / "run", "-o", work / "report")
    data = ("--data", "texts", "--data-path", work / "data", "--split", "dev")
    scored = succeed("eval", "--json", work / "better", *data)
    predict = transformers.pipeline("text-classification", model=str(work / "better"))
    texts = opinions(20, seed=1)
    hits = sum(predict(text)[0]["label"] == f"LABEL_{label}" for text, label in texts)
    assert scored.document["accuracy"] == pytest.approx(100 * hits / 20)


def test_samples_are_recorded_by_file_and_line_within_the_data(work) -> None:
    trained(work, "run", "training.record_episodes=true", "training.epochs=1")
    document = succeed("episodes", work / "run", "--json").document
    assert {one["name"] for one in document["worst"]} == {f"train.tsv, line {line}" for line in range(2, 50)}
    line = json.loads((work / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    names = [one["name"] for which in ("shortest", "longest") for one in line["pictures"][which]]
    assert names
    assert set(names) <= {one["name"] for one in document["worst"]}
    succeed("report", work / "run", "-o", work / "report")
    page = (work / "report" / "index.html").read_text()
    assert names[0] in page
    assert str(work / "data" / "train.tsv") not in page


def test_train_gives_a_model_the_head_of_another_task(work) -> None:
    reader(work / "tagger", "BertForTokenClassification", num_labels=3)
    asked = ("train", "--json", work / "tagger", "--recipe", work / RECIPE, "--dry-run", "-o", work / "x")
    assert spgsurgeon(*asked).code == 2, "it labels words, and the data has texts"
    document = succeed(*asked, "--task", "text-classification", "--num-classes", 2).document
    assert any("new head for 2 classes, text-classification" in note for note in document["notes"])
    assert spgsurgeon(*asked, "--task", "texts").code == 2


@pytest.mark.slow
def test_a_run_resumes_to_the_same_weights(work) -> None:
    check_resuming(work)


def test_recipes_of_texts_have_no_keys_of_images(work) -> None:
    for override in ("data.image_size=64", "data.cache=memory", "data.augment.flip=0.1"):
        outcome = spgsurgeon("train", "--json", work / "model", "--recipe", work / RECIPE, override)
        assert (outcome.code, outcome.document["error"]["kind"]) == (2, "recipe")
    images = ("train", "--json", "timm/test_resnet", "--random-weights", "--recipe", "digits-dropout")
    for override in ("data.max_length=5", "data.columns={text: a}", "data.too_long=stop"):
        assert spgsurgeon(*images, override).code == 2
    refused = spgsurgeon(*images, "training.metric=matthews", "-o", work / "x").document
    assert refused["error"]["code"] == "unknown-metric"


@pytest.mark.parametrize(
    ("spoil", "code", "kind"),
    [
        ("three classes", 2, "usage"),
        ("images", 2, "usage"),
        ("no tokenizer", 2, "missing-tokenizer"),
        ("too long", 1, "data"),
        ("label", 1, "unknown-label"),
    ],
)
def test_what_does_not_fit_is_said(work, spoil, code, kind) -> None:
    overrides = []
    table = work / "data" / "train.tsv"
    if spoil == "three classes":
        table.write_text(table.read_text() + "x\t2\n")
    elif spoil == "images":
        overrides = ["data={source: digits, eval: val}"]
    elif spoil == "no tokenizer":
        (work / "model" / "tokenizer.json").unlink()
    elif spoil == "too long":
        overrides = ["data.max_length=4", "data.too_long=stop"]
    else:
        table.write_text(table.read_text() + "x\t-1\n")
    outcome = spgsurgeon("train", "--json", work / "model", "--recipe", work / RECIPE, "-o", work / "run", *overrides)
    assert (outcome.code, outcome.document["error"]["code"]) == (code, kind), outcome.document
    assert not (work / "run").exists()


def test_r_drop_is_a_control(work) -> None:
    plain = trained(work, "plain", "trp.kind=none", "training.epochs=1")
    drawn = trained(work, "drawn", "trp.kind=none", "training.epochs=1", "objective.r_drop=0.5")
    assert plain.document["content_hash"] != drawn.document["content_hash"]
    refused = spgsurgeon("train", work / "model", "--recipe", work / RECIPE, "objective.r_drop=0.5")
    assert refused.code == 2
    mixed = ("train", "--json", "timm/test_resnet", "--random-weights", "--recipe", "digits-dropout")
    mixed += ("trp.kind=none", "objective.r_drop=1", "data.augment.mixup=0.2", "-o", work / "mixed")
    assert spgsurgeon(*mixed).document["error"]["kind"] == "usage"


def test_replicas_without_projections_have_no_weights(work) -> None:
    found = succeed(
        "train", "--json", work / "model", "--recipe", work / RECIPE, "trp.projection=false", "--dry-run"
    ).document
    assert (found["temporary_parameters"], found["trp"]["projection"]) == (0, False)
    trained(work, "run", "trp.projection=false", "training.epochs=1")
    assert succeed("strip", "--json", work / "run", "-o", work / "better").document["proven"]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["cola", "sst2", "mrpc", "qqp", "qnli", "rte", "small"])
def test_recipes_for_glue_train_a_model_without_a_head(work, task) -> None:
    """Of the shipped recipes all but the number of tokens, which this model can't take."""
    overrides = (f"data.path={work / 'data'}", "data.max_length=null", "training.epochs=1", "data.workers=0")
    body = with_tokenizer(saved(tiny("BertForSequenceClassification").bert, work / "base"))
    command = ("train", "--json", body)
    found = succeed(*command, "--recipe", f"glue-{task}", "-o", work / "run", *overrides).document
    assert found["best"]["samples"] == 20
    assert "untrained" in " ".join(found["notes"])


def test_eval_reads_as_many_tokens_as_training_did(work) -> None:
    found = trained(work, "run", "data.max_length=6").document
    scored = succeed("eval", "--json", work / "run", "--data", work / "data", "--split", "dev").document
    assert (scored["max_length"], scored["loss"]) == (6, pytest.approx(found["best"]["loss"]))
    assert any("6 tokens" in note for note in scored["notes"])
    longer = succeed("eval", "--json", work / "run", "--data", work / "data", "--split", "dev", "--max-length", "20")
    assert longer.document["max_length"] == 20
