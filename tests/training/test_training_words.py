"""Models that label words go the whole way: grafted, trained, resumed, scored, stripped, and used as a pipeline."""

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import spgsurgeon, succeed
from folder_runs import RECIPE, check_resuming, trained, write_recipe
from tiny_texts import json_lines, reader, tagged


@pytest.fixture
def work(tmp_path: Path) -> Path:
    json_lines(tmp_path / "data", train=tagged(40), dev=tagged(20, seed=1))
    reader(tmp_path / "model", "BertForTokenClassification")
    write_recipe(tmp_path, "words", drop_last=False, metric="macro_f1")
    return tmp_path


def test_a_model_of_words_goes_the_whole_way(work) -> None:
    transformers = pytest.importorskip("transformers")
    succeed("graft", work / "model", "-o", work / "grafted", "--trp", "dropout", "--replicas", "2", "--rate", "0.1")
    found = trained(work, "run", model="grafted").document
    assert (found["best"]["metric"], found["best"]["samples"]) == ("macro_f1", 20)
    epoch = json.loads((work / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    rows = tagged(40)
    labels = [label for row in rows for label in row["tags"]]
    counted = [sum(row) for row in epoch["accepted_by_class"]]
    assert counted == [labels.count(name) for name in ("BAD", "GOOD", "O")]  # a word has one episode
    assert succeed("strip", "--json", work / "run", "-o", work / "better").document["proof"]["from_pretrained_equal"]
    scored = succeed("eval", "--json", work / "better", "--data", work / "data", "--split", "dev").document
    assert scored["macro_f1"] == pytest.approx(found["best"]["macro_f1"])
    predict = transformers.pipeline("token-classification", model=str(work / "better"), ignore_labels=[])
    hits = []
    for row in tagged(20, seed=1):
        text, starts = " ".join(row["tokens"]), np.cumsum([0, *(len(word) + 1 for word in row["tokens"])])
        entities = {entity["start"]: entity["entity"] for entity in predict(text)}
        hits += [entities[start] == tag for start, tag in zip(starts, row["tags"], strict=False)]
    assert scored["token_accuracy"] == pytest.approx(100 * np.mean(hits))


def test_balanced_weights_count_words(work) -> None:
    document = trained(work, "run", "training.class_weights=balanced", "training.epochs=1").document
    labels = [label for row in tagged(40) for label in row["tags"]]
    said = next(note for note in document["notes"] if note.startswith("classes weigh"))
    assert f"by {len(labels):,} words" in said
    for name in ("BAD", "GOOD", "O"):
        count = labels.count(name)
        assert f"{name} {len(labels) / (3 * count):.4g} ({count} words)" in said


@pytest.mark.slow
def test_a_run_resumes_to_the_same_weights(work) -> None:
    check_resuming(work)


def test_a_split_need_not_have_every_label(work) -> None:
    rows = [row for row in tagged(40, seed=1) if "BAD" not in row["tags"]]
    json_lines(work / "data", dev=rows)
    found = trained(work, "run", "training.epochs=1").document
    scored = succeed("eval", "--json", work / "run", "--data", work / "data", "--split", "dev").document
    assert scored["macro_f1"] == pytest.approx(found["best"]["macro_f1"])


@pytest.mark.parametrize(
    ("spoil", "code", "kind"),
    [
        ("a label too few", 1, "unfit-words"),
        ("text", 1, "unfit-words"),
        ("a number", 1, "unfit-words"),
        ("another label", 2, "usage"),
        ("too long", 1, "data"),
        ("common", 2, "usage"),
    ],
)
def test_what_does_not_fit_is_said(work, spoil, code, kind) -> None:
    rows, overrides = tagged(40), []
    if spoil == "a label too few":
        rows[3]["tags"].pop()
    elif spoil == "text":
        rows[3]["tokens"] = "it was good"
    elif spoil == "a number":
        rows[3]["tokens"][0] = 5
    elif spoil == "another label":
        rows[3]["tags"][0] = "MORE"
    elif spoil == "too long":
        overrides = ["data.max_length=4", "data.too_long=stop"]
    json_lines(work / "data", train=rows)
    arguments = ("train", "--json", work / "model", "--recipe", work / RECIPE, "-o", work / "run", *overrides)
    if spoil == "common":
        arguments = ("eval", "--json", work / "model", "--data", work / "data", "--split", "dev", "--common-classes")
    outcome = spgsurgeon(*arguments)
    assert (outcome.code, outcome.document["error"]["code"]) == (code, kind), outcome.document
    assert not (work / "run").exists()
