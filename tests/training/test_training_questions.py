"""Models that answer questions go the whole way: grafted, trained, resumed, scored, stripped, read by transformers."""

import json
from pathlib import Path

import pytest
import torch
from command_line import spgsurgeon, succeed
from folder_runs import RECIPE, check_resuming, trained, write_recipe
from tiny_texts import json_lines, questions, reader

from spgsurgeon.tasks.question_answering import answer_f1, normalized


@pytest.fixture
def work(tmp_path: Path) -> Path:
    json_lines(tmp_path / "data", train=questions(40), dev=questions(20, seed=1))
    reader(tmp_path / "model", "BertForQuestionAnswering")
    write_recipe(tmp_path, "questions", drop_last=False)
    return tmp_path


def answers_of_transformers(folder: Path, rows) -> list[str]:
    """Return the likeliest answers, found by hand: every start, and every end from there on."""
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder))
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(str(folder)).eval()
    found = []
    for row in rows:
        options = {"return_offsets_mapping": True, "return_token_type_ids": True, "return_tensors": "pt"}
        encoded = tokenizer(row["question"], row["context"], **options)
        offsets, parts = encoded.pop("offset_mapping")[0].tolist(), encoded.sequence_ids(0)
        with torch.no_grad():
            output = model(**encoded)
        places = [place for place, part in enumerate(parts) if part == 1]
        scores = {
            (one, other): float(output.start_logits[0, one] + output.end_logits[0, other])
            for one in places
            for other in places
            if other >= one
        }
        one, other = max(scores, key=scores.__getitem__)
        found.append(row["context"][offsets[one][0] : offsets[other][1]])
    return found


def test_a_model_that_answers_goes_the_whole_way(work) -> None:
    succeed("graft", work / "model", "-o", work / "grafted", "--trp", "dropout", "--replicas", "2", "--rate", "0.1")
    found = trained(work, "run", model="grafted").document
    assert {"answer_f1", "exact_match", "loss", "samples"} <= found["best"].keys()
    assert (found["best"]["metric"], found["best"]["samples"]) == ("answer_f1", 20)
    epoch = json.loads((work / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert sum(map(sum, epoch["accepted_by_class"])) == 40  # a question has one episode, whatever its length
    stripped = succeed("strip", "--json", work / "run", "-o", work / "better").document
    assert stripped["proof"]["from_pretrained_equal"]
    data = ("--data", "questions", "--data-path", work / "data", "--split", "dev")
    scores = [succeed("eval", "--json", work / "better", *data, "--batch-size", size).document for size in ("3", "20")]
    assert scores[0]["answer_f1"] == pytest.approx(found["best"]["answer_f1"])
    assert scores[0]["loss"] == pytest.approx(scores[1]["loss"], rel=1e-5)  # whatever a batch fills up with
    rows = questions(20, seed=1)
    right = [normalized(row["answers"]["text"][0]) for row in rows]
    made = [normalized(text) for text in answers_of_transformers(work / "better", rows)]
    pairs = list(zip(made, right, strict=True))
    assert scores[0]["exact_match"] == pytest.approx(100 * sum(one == other for one, other in pairs) / 20)
    assert scores[0]["answer_f1"] == pytest.approx(100 * sum(answer_f1(*pair) for pair in pairs) / 20)


def test_the_recipe_for_squad_trains_a_model_that_answers(work) -> None:
    """All of it but the number of tokens, which this model can't take."""
    overrides = (f"data.path={work / 'data'}", "data.max_length=null", "training.epochs=1", "data.workers=0")
    found = succeed("train", "--json", work / "model", "--recipe", "squad", "-o", work / "run", *overrides).document
    assert (found["best"]["metric"], found["best"]["samples"]) == ("answer_f1", 20)


def test_answers_that_are_cut_away_teach_nothing_and_are_wrong(work) -> None:
    rows = questions(20, seed=1)
    for row in rows[:5]:
        row["context"] = "film " * 30 + row["context"]
        row["answers"]["answer_start"][0] += len("film " * 30)
    json_lines(work / "data", train=rows, dev=rows)
    found = trained(work, "run", "training.epochs=30", "training.optimizer.lr=0.02", "trp.kind=none").document
    assert found["best"]["exact_match"] <= 75
    lost = [note for note in found["notes"] if "teach nothing" in note]
    scored = succeed("eval", "--json", work / "run", "--data", work / "data", "--split", "dev").document
    assert any("5 of the 20" in note and "wrong when scored" in note for note in [*scored["notes"], *lost])
    epoch = json.loads((work / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert sum(map(sum, epoch["accepted_by_class"])) == 15


def test_when_no_answer_is_read_there_is_no_score(work) -> None:
    rows = questions(4)
    for row in rows:
        row["context"] = "it was " + row["context"]
        row["answers"]["answer_start"][0] += len("it was ")
    json_lines(work / "data", dev=rows)
    data = ("--data", work / "data", "--split", "dev")
    outcome = spgsurgeon("eval", "--json", work / "model", *data, "--max-length", "8")
    assert (outcome.code, outcome.document["error"]["code"]) == (2, "answers-cut")


@pytest.mark.slow
def test_a_run_resumes_to_the_same_weights(work) -> None:
    check_resuming(work)


@pytest.mark.slow
def test_steps_are_measured(work) -> None:
    options = ("--recipe", work / RECIPE, "--data", "recipe", "--blocks", "20", "--steps", "1")
    found = succeed("bench", "--json", work / "model", *options).document
    assert 10 < found["settings"]["length"] <= 24
    assert succeed("bench", work / "model", *options).out


@pytest.mark.slow
def test_a_report_and_a_comparison_are_made(work) -> None:
    trained(work, "run", "data.eval=holdout", "data.holdout=0.3", "data.limit=20")
    succeed("report", work / "run", "-o", work / "report")
    options = ("--recipe", work / RECIPE, "-o", work / "compared", "--learning-rates", "1", "--seeds", "1")
    changes = ("data.holdout=0.3", "training.epochs=1", "training.metric=exact_match")
    compared = succeed("compare", "--json", work / "model", "--arms", "plain,r-drop", *options, *changes).document
    assert compared["metric"] == "exact_match"


@pytest.mark.parametrize(
    ("spoil", "code", "kind"),
    [
        ("texts", 2, "usage"),
        ("too long", 1, "data"),
        ("a question too long", 1, "data"),
        ("no answer", 1, "unfit-answer"),
        ("another start", 1, "unfit-answer"),
        ("column", 2, "unknown-column"),
    ],
)
def test_what_does_not_fit_is_said(work, spoil, code, kind) -> None:
    overrides, rows = [], questions(20)
    if spoil == "texts":
        overrides = ["data.source=texts", "data.columns={text: question, label: id}"]
    elif spoil == "too long":
        overrides = ["data.max_length=8", "data.too_long=stop"]
    elif spoil == "a question too long":
        overrides = ["data.max_length=4"]
    elif spoil == "no answer":
        rows[3]["answers"] = {"text": [], "answer_start": []}
    elif spoil == "another start":
        rows[3]["answers"]["answer_start"][0] += 1
    else:
        overrides = ["data.columns={question: ask, context: context}"]
    json_lines(work / "data", train=rows)
    outcome = spgsurgeon("train", "--json", work / "model", "--recipe", work / RECIPE, "-o", work / "run", *overrides)
    assert (outcome.code, outcome.document["error"]["code"]) == (code, kind), outcome.document
    assert not (work / "run").exists()
