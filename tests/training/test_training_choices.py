"""Models that choose go the whole way: grafted, trained, scored, stripped, and read by transformers."""

import json
from pathlib import Path

import pytest
import torch
from command_line import spgsurgeon, succeed
from folder_runs import RECIPE, write_recipe
from tiny_texts import chosen, json_lines, reader


@pytest.fixture
def work(tmp_path: Path) -> Path:
    json_lines(tmp_path / "data", train=chosen(40), dev=chosen(20, seed=1))
    reader(tmp_path / "model", "BertForMultipleChoice")
    write_recipe(tmp_path, "choices", drop_last=False)
    return tmp_path


def test_a_model_that_chooses_goes_the_whole_way(work) -> None:
    transformers = pytest.importorskip("transformers")
    succeed("graft", work / "model", "-o", work / "grafted", "--trp", "dropout", "--replicas", "2", "--rate", "0.1")
    arguments = ("--recipe", work / RECIPE, "-o", work / "run")
    found = succeed("train", "--json", work / "grafted", *arguments).document
    assert found["best"]["samples"] == 20
    epoch = json.loads((work / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    labels = [row["label"] for row in chosen(40)]
    assert [sum(row) for row in epoch["accepted_by_class"]] == [labels.count(place) for place in range(3)]
    assert succeed("strip", "--json", work / "run", "-o", work / "better").document["proof"]["from_pretrained_equal"]
    scored = succeed("eval", "--json", work / "better", "--data", work / "data", "--split", "dev").document
    assert scored["choice_accuracy"] == pytest.approx(found["best"]["choice_accuracy"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(work / "better"))
    model = transformers.AutoModelForMultipleChoice.from_pretrained(str(work / "better")).eval()
    hits = 0
    for row in chosen(20, seed=1):
        second = [f"{row['sent2']} {row[f'ending{place}']}" for place in range(3)]
        options = {"padding": True, "return_token_type_ids": True, "return_tensors": "pt"}
        encoded = tokenizer([row["sent1"]] * 3, second, **options)
        with torch.no_grad():
            logits = model(**{name: value[None] for name, value in encoded.items()}).logits
        hits += int(logits.argmax()) == row["label"]
    assert scored["choice_accuracy"] == pytest.approx(100 * hits / 20)


@pytest.mark.parametrize(
    ("spoil", "code", "kind"),
    [
        ("label", 1, "unknown-label"),
        ("choices", 1, "unfit-choices"),
        ("columns", 2, "unknown-column"),
        ("too long", 1, "data"),
    ],
)
def test_what_does_not_fit_is_said(work, spoil, code, kind) -> None:
    rows, overrides = chosen(20), []
    if spoil == "label":
        rows[3]["label"] = -1
    elif spoil == "choices":
        rows[3]["ending1"] = None
    elif spoil == "columns":
        overrides = ["data.columns={context: sent1}"]
    else:
        overrides = ["data.max_length=5", "data.too_long=stop"]
    json_lines(work / "data", train=rows)
    arguments = ("--recipe", work / RECIPE, "-o", work / "run", *overrides)
    outcome = spgsurgeon("train", "--json", work / "model", *arguments)
    assert (outcome.code, outcome.document["error"]["code"]) == (code, kind), outcome.document
    assert not (work / "run").exists()
