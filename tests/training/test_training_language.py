"""Language models go the whole way: grafted, trained, resumed, scored, stripped, and read by transformers."""

import json
from pathlib import Path

import pytest
import torch
from command_line import spgsurgeon, succeed
from folder_runs import RECIPE, check_resuming, trained, write_recipe
from tiny_texts import corpus_folder, reader

MODELS = {"causal-lm": "GPT2LMHeadModel", "masked-lm": "BertForMaskedLM"}


def prepared(work: Path, name: str, **fields: object) -> Path:
    corpus_folder(work / "data")
    reader(work / "model", name, **fields)
    write_recipe(work, "corpus", drop_last=False)
    return work


@pytest.mark.parametrize("task", MODELS)
def test_a_language_model_goes_the_whole_way(tmp_path, task) -> None:
    transformers = pytest.importorskip("transformers")
    work = prepared(tmp_path, MODELS[task])
    succeed("graft", work / "model", "-o", work / "grafted", "--trp", "dropout", "--replicas", "2", "--rate", "0.1")
    found = trained(work, "run", model="grafted").document
    assert found["best"]["perplexity"] < found["original"]["perplexity"]
    assert any("make" in note and "blocks of 24" in note for note in found["notes"])
    lines = [json.loads(line) for line in (work / "run" / "metrics.jsonl").read_text().splitlines()]
    assert found["best"]["perplexity"] == min(line["evaluation"]["perplexity"] for line in lines)
    stripped = succeed("strip", "--json", work / "run", "-o", work / "better").document
    assert stripped["proof"]["from_pretrained_equal"]
    assert (work / "better" / "tokenizer.json").read_bytes() == (work / "model" / "tokenizer.json").read_bytes()
    scored = succeed("eval", "--json", work / "better", "--data", work / "data", "--split", "dev").document
    assert scored["perplexity"] == pytest.approx(found["best"]["perplexity"])
    assert (scored["task"], scored["max_length"]) == (task, 24)
    kind = transformers.AutoModelForCausalLM if task == "causal-lm" else transformers.AutoModelForMaskedLM
    model = kind.from_pretrained(work / "better")
    words = model.get_input_embeddings().weight
    assert model.get_output_embeddings().weight is words
    assert torch.isfinite(model(torch.tensor([[1, 5, 6]])).logits).all()


@pytest.mark.slow
@pytest.mark.parametrize("task", MODELS)
def test_a_run_resumes_to_the_same_weights(tmp_path, task) -> None:
    check_resuming(prepared(tmp_path, MODELS[task]))


@pytest.mark.slow
def test_a_head_start_and_a_cold_start_go_the_same_way(tmp_path) -> None:
    transformers = pytest.importorskip("transformers")
    work = prepared(tmp_path, "BertForMaskedLM")
    model = transformers.BertForMaskedLM.from_pretrained(work / "model")
    model.bert.save_pretrained(work / "body")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (work / "body" / name).write_bytes((work / "model" / name).read_bytes())
    succeed("graft", work / "body", "--task", "masked-lm", "-o", work / "grafted", "--replicas", "2", "--rate", "0.1")
    trained(work, "run", "cold_start.epochs=1", "training.epochs=1", model="grafted")
    lines = [json.loads(line) for line in (work / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["phase"] for line in lines][-2:] == ["cold", "train"]
    assert lines[0]["phase"] == "head"


@pytest.mark.slow
def test_compare_chooses_the_lower_perplexity_and_reports_it(tmp_path) -> None:
    work = prepared(tmp_path, "GPT2LMHeadModel")
    command = ("compare", "--json", work / "model", "--recipe", work / RECIPE, "--arms", "spg-step", "--seeds", "2")
    settings = ("data.holdout=0.3", "training.epochs=1")
    found = succeed(*command, "--learning-rates", "1,0.01", "--jobs", "1", "-o", work / "compared", *settings).document
    assert found["metric"] == "perplexity"
    assert {arm["learning_rate"] for arm in found["arms"].values()} == {0.01}  # with a hundredth nothing is learned
    succeed("report", work / "compared", "-o", work / "report")


def test_the_recipe_trains_a_model_of_a_users_own(tmp_path) -> None:
    work = prepared(tmp_path, "GPT2LMHeadModel")
    small = (f"data.path={work / 'data'}", "data.max_length=24", "data.workers=0", "training.batch_size=8")
    found = succeed("train", "--json", work / "model", "--recipe", "cola-gpt2", "-o", work / "run", *small).document
    assert found["best"]["samples"] > 0


@pytest.mark.parametrize(
    ("spoil", "code", "kind"),
    [
        ("no tokenizer", 2, "missing-tokenizer"),
        ("no mask", 2, "no-mask-token"),
        ("another tokenizer", 1, "unfit-vocabulary"),
        ("empty", 2, "no-rows"),
        ("blank", 1, "no-text"),
        ("too short", 2, "too-short"),
        ("labels", 2, "usage"),
        ("r-drop", 2, "r-drop-needs-logits"),
        ("too long", 2, "recipe"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path, spoil, code, kind) -> None:
    work, overrides = prepared(tmp_path, "BertForMaskedLM"), ()
    if spoil == "no tokenizer":
        (work / "model" / "tokenizer.json").unlink()
    elif spoil == "no mask":
        (work / "model" / "tokenizer_config.json").write_text("{}")
    elif spoil == "another tokenizer":
        file = work / "model" / "tokenizer.json"
        file.write_text(file.read_text().replace('"good": 6', '"good": 60'))
    elif spoil in ("empty", "blank"):
        (work / "data" / "train.txt").write_text("\n \n" if spoil == "blank" else "")
    else:
        overrides = {
            "too short": ("data.max_length=3",),
            "labels": ("data.source=texts", "data.columns={text: text, label: text}"),
            "r-drop": ("trp={kind: none}", "objective.weights=[]", "objective.r_drop=1"),
            "too long": ("data.too_long=stop",),
        }[spoil]
    outcome = spgsurgeon("train", "--json", work / "model", "--recipe", work / RECIPE, "-o", work / "run", *overrides)
    assert (outcome.code, outcome.document["error"]["code"]) == (code, kind), outcome.document
    assert not (work / "run").exists()
