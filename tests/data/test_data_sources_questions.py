"""Questions: what is read of a row, where an answer's tokens are, and rows that don't hold together."""

import json

import pytest
import torch
from tiny_texts import json_lines, questions, reader

from spgsurgeon.data.sources.opening import open_source
from spgsurgeon.data.sources.records.questions import Answers, Asked
from spgsurgeon.data.sources.traits import Traits
from spgsurgeon.data.subsets import hold_out
from spgsurgeon.data.transforms.questions import QuestionTransform
from spgsurgeon.errors import DataError, UsageError
from spgsurgeon.loading.opening import open_model
from spgsurgeon.loading.request import ModelRequest


def test_a_question_is_read_with_its_answers(tmp_path) -> None:
    rows = questions(6)
    source = open_source("questions", json_lines(tmp_path / "data", train=rows), "train")
    first, answers = source.read(1)
    assert first == Asked(rows[1]["question"], rows[1]["context"])
    assert answers == Answers(tuple(rows[1]["answers"]["text"]), tuple(rows[1]["answers"]["answer_start"]))
    assert source.describe(1).endswith("train.jsonl, line 2")
    left, held = hold_out(source, 0.5)
    assert (len(left), len(held)) == (3, 3)


def test_a_saved_data_set_is_read(tmp_path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = questions(4)
    made = datasets.Dataset.from_list(rows)
    datasets.DatasetDict(validation=made).save_to_disk(str(tmp_path / "set"))
    plain = open_source("questions", json_lines(tmp_path / "data", train=rows), "train")
    saved = open_source("questions", tmp_path / "set", "validation")
    assert [saved.read(row) for row in range(4)] == [plain.read(row) for row in range(4)]
    assert list(saved.marks()) == list(plain.marks())


@pytest.mark.parametrize(
    "answers",
    [
        None,
        "fine",
        {"text": "fine", "answer_start": [0]},
        {"text": ["so"], "answer_start": [-2]},
        {"text": ["so"], "answer_start": ["0"]},
        {"text": ["so"], "answer_start": []},
        {"text": [""], "answer_start": [0]},
        {"text": ["so"], "answer_start": [1]},
        {"text": [], "answer_start": []},
    ],
)
def test_answers_that_are_none_are_named_with_their_line(tmp_path, answers) -> None:
    right = {"text": ["so"], "answer_start": [0]}
    rows = [{"question": "was it", "context": "so it was", "answers": one} for one in (right, answers)]
    with pytest.raises(DataError, match="line 2") as caught:
        open_source("questions", json_lines(tmp_path / "data", train=rows), "train")
    assert (caught.value.code, bool(caught.value.hint)) == ("unfit-answer", True)


def test_tables_without_the_columns_are_refused(tmp_path) -> None:
    (tmp_path / "train.tsv").write_text("question\tcontext\na\tb\n")
    with pytest.raises(UsageError) as caught:
        open_source("questions", tmp_path, "train")
    assert caught.value.code == "unknown-column"
    (tmp_path / "train.tsv").write_text('question\tcontext\tanswers\na\tb\t{"text": ["b"], "answer_start": [0]}\n')
    with pytest.raises(DataError) as caught_too:
        open_source("questions", tmp_path, "train")
    assert caught_too.value.code == "unfit-answer"


def test_targets_are_the_tokens_of_the_answer(tmp_path) -> None:
    preprocessing = open_model(ModelRequest(str(reader(tmp_path / "model", "BertForQuestionAnswering")))).preprocessing
    trains, scores = QuestionTransform(preprocessing), QuestionTransform(preprocessing, scores=True)
    for row in questions(12):
        given = json.loads(json.dumps(row["answers"]))
        answers, asked = Answers(tuple(given["text"]), tuple(given["answer_start"])), Asked("was it", row["context"])
        made, full = trains(asked, answers), scores(asked, answers)
        start, end = made.target.tolist()
        words = ["[CLS]", "was", "it", "[SEP]", *row["context"].split(), "[SEP]"]
        assert words[start : end + 1] == given["text"][0].split()
        assert torch.equal(full.target[:, 0], made.target)
        characters = [tuple(pair) for pair in full.target[:, 1:].T.tolist()]
        texts = [row["context"][one:other] for one, other in characters if one >= 0]
        assert texts == row["context"].split()
        assert characters[:4] == [(-1, -1)] * 4
        assert made.traits == Traits(0)


@pytest.mark.parametrize(("most", "found"), [(6, [-100, -100]), (7, [4, 5])])
def test_an_answer_that_is_cut_in_part_is_lost(tmp_path, most, found) -> None:
    folder = reader(tmp_path / "model", "BertForQuestionAnswering")
    preprocessing = open_model(ModelRequest(str(folder))).preprocessing.limited(most)
    asked, answers = Asked("was it", "very fine plot"), Answers(("very fine",), (0,))
    made = QuestionTransform(preprocessing)(asked, answers)
    assert made.inputs["input_ids"].shape == (most,)
    assert made.target.tolist() == found
    assert made.traits == (Traits.CUT if found[0] > 0 else Traits.CUT | Traits.LOST)
