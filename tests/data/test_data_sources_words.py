"""Words and choices: what is read of a row, which classes there are, and the tokens that get a label."""

import pytest
import torch
from tiny_texts import chosen, json_lines, reader, tagged

from spgsurgeon.data.renumbering import renumbered
from spgsurgeon.data.sources.class_names import with_classes
from spgsurgeon.data.sources.opening import open_source
from spgsurgeon.data.sources.records.choices import Choices
from spgsurgeon.data.sources.records.words import with_common_names, with_names
from spgsurgeon.data.sources.traits import Traits
from spgsurgeon.data.transforms.choices import ChoiceTransform
from spgsurgeon.data.transforms.words import WordTransform
from spgsurgeon.errors import DataError, UsageError
from spgsurgeon.loading.opening import open_model
from spgsurgeon.loading.request import ModelRequest


def preprocessing_of(tmp_path, name="BertForTokenClassification"):
    return open_model(ModelRequest(str(reader(tmp_path / "model", name)))).preprocessing


def rows_of(*labels, column="ner_tags"):
    return [{"tokens": [f"w{n}" for n in range(len(own))], column: list(own)} for own in labels]


# Words


@pytest.mark.parametrize("column", ["ner_tags", "tags", "labels"])
def test_names_of_labels_are_sorted_and_common_to_splits(tmp_path, column) -> None:
    json_lines(tmp_path, train=rows_of("OXY", "OO", column=column), dev=rows_of("ZO", column=column))
    train, dev = (open_source("words", tmp_path, split) for split in ("train", "dev"))
    words, labels = train.read(0)
    assert (words, labels.tolist(), train.classes) == (("w0", "w1", "w2"), [0, 1, 2], ("O", "X", "Y"))
    train, dev = with_common_names(train, dev)
    assert train.classes == dev.classes == ("O", "X", "Y", "Z")
    assert dev.read(0)[1].tolist() == [3, 0]
    assert with_names(dev, ("O", "X")) is dev
    again = renumbered(train, ["Z", "Y", "X", "O"], [3, 2, 1, 0])
    assert again.read(0)[1].tolist() == [3, 2, 1]


def test_names_that_are_given_stay(tmp_path) -> None:
    json_lines(tmp_path, train=rows_of("OX"), dev=rows_of("O"))
    train, dev = (open_source("words", tmp_path, split, classes=("X", "O")) for split in ("train", "dev"))
    assert train.read(0)[1].tolist() == [1, 0]
    assert [part.classes for part in with_common_names(train, dev)] == [("X", "O")] * 2
    with pytest.raises(DataError) as caught:
        open_source("words", tmp_path, "train", classes=("X", "Y"))
    assert caught.value.code == "unknown-label"


def test_labels_that_are_numbers_are_counted(tmp_path) -> None:
    source = open_source("words", json_lines(tmp_path, train=rows_of([0, 3], [1])), "train")
    assert source.classes == ("0", "1", "2", "3")
    assert len(with_classes(source, 6).classes) == 6
    with pytest.raises(DataError, match="line 2"):
        open_source("words", json_lines(tmp_path, train=rows_of([0, 3], [1, -1])), "train")


def test_a_saved_data_set_brings_its_names(tmp_path) -> None:
    datasets = pytest.importorskip("datasets")
    tags = datasets.List(datasets.ClassLabel(names=["O", "B-X"]))
    features = datasets.Features(tokens=datasets.List(datasets.Value("string")), ner_tags=tags)
    rows = {"tokens": [["a", "b"], ["c"]], "ner_tags": [[0, 1], [0]]}
    datasets.DatasetDict(train=datasets.Dataset.from_dict(rows, features)).save_to_disk(str(tmp_path / "set"))
    source = open_source("words", tmp_path / "set", "train")
    assert (source.classes, source.read(0)[1].tolist()) == (("O", "B-X"), [0, 1])


def test_a_table_without_lists_is_refused(tmp_path) -> None:
    (tmp_path / "train.tsv").write_text("tokens\ttags\na b\tO O\n")
    with pytest.raises(DataError) as caught:
        open_source("words", tmp_path, "train")
    assert (caught.value.code, bool(caught.value.hint)) == ("unfit-words", True)


def test_a_word_has_its_label_at_its_first_token(tmp_path) -> None:
    source = open_source("words", json_lines(tmp_path, train=tagged(12)), "train")
    transform = WordTransform(preprocessing_of(tmp_path))
    for words, labels in map(source.read, range(12)):
        made = transform(words, labels)
        expected = [label for word, label in zip(words, labels.tolist(), strict=True) for label in (
            [label] if "-" not in word else [label, -100, -100]
        )]  # fmt: skip
        assert made.target.tolist() == [-100, *expected, -100]
    cut = WordTransform(preprocessing_of(tmp_path / "cut").limited(5))(("it", "was", "so", "fine"), labels[:4] * 0)
    assert (cut.target.tolist(), cut.traits) == ([-100, 0, 0, 0, -100], Traits.CUT)


def test_a_word_without_a_token_is_said(tmp_path) -> None:
    made = WordTransform(preprocessing_of(tmp_path))(("it", " ", "was"), torch.tensor([1, 2, 3]).numpy())
    assert (made.target.tolist(), made.traits) == ([-100, 1, 3, -100], Traits.EMPTY)


def test_words_have_the_tokens_that_they_have_in_a_text(tmp_path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    folder = reader(tmp_path / "model", "RobertaForTokenClassification")
    pieces = {"<pad>": 1, "<unk>": 0, "a": 2, "b": 3, "\u0120a": 4, "\u0120b": 5}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(pieces, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.save(str(folder / "tokenizer.json"))
    transform = WordTransform(open_model(ModelRequest(str(folder))).preprocessing)
    assert transform(("b", "a"), torch.zeros(2).long().numpy()).inputs["input_ids"].tolist() == [5, 4]


# Choices


@pytest.mark.parametrize(
    ("row", "read", "label"),
    [
        ({"context": "c", "endings": ["x", "y"], "label": 1}, Choices("c", ("x", "y")), 1),
        ({"sent1": "c", "sent2": "s", "ending0": "x", "ending1": "y", "label": "0"}, Choices("c", ("s x", "s y")), 0),
        (
            {"question": "q", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "B"},
            Choices("q", ("x", "y")),
            1,
        ),
    ],
)
def test_choices_are_read_as_data_sets_have_them(tmp_path, row, read, label) -> None:
    source = open_source("choices", json_lines(tmp_path, train=[row, row]), "train")
    assert source.read(0) == (read, label)
    assert source.classes == ("0", "1")


@pytest.mark.parametrize(
    ("second", "code"),
    [
        ({"context": "c", "endings": ["x", "y", "z"], "label": 1}, "unfit-choices"),
        ({"context": "c", "endings": "x", "label": 1}, "unfit-choices"),
        ({"context": "c", "endings": {"text": ["x", "y"], "label": ["A"]}, "label": "A"}, "unfit-choices"),
        ({"context": "c", "endings": ["x", "y"], "label": 2}, "unknown-label"),
        ({"context": "c", "endings": ["x", "y"], "label": None}, "unknown-label"),
    ],
)
def test_choices_that_are_none_are_named_with_their_line(tmp_path, second, code) -> None:
    rows = [{"context": "c", "endings": ["x", "y"], "label": 1}, second]
    with pytest.raises(DataError, match="line 2") as caught:
        open_source("choices", json_lines(tmp_path, train=rows), "train")
    assert caught.value.code == code


def test_one_choice_is_none_and_a_missing_column_is_asked_for(tmp_path) -> None:
    with pytest.raises(DataError) as caught:
        open_source("choices", json_lines(tmp_path, train=[{"context": "c", "endings": ["x"], "label": 0}]), "train")
    assert caught.value.code == "unfit-choices"
    with pytest.raises(UsageError) as asked:
        open_source("choices", json_lines(tmp_path, train=[{"context": "c", "label": 0}]), "train")
    assert asked.value.code == "unknown-column"


def test_each_choice_is_a_row_of_its_own(tmp_path) -> None:
    source = open_source("choices", json_lines(tmp_path, train=chosen(3)), "train")
    transform = ChoiceTransform(preprocessing_of(tmp_path, "BertForMultipleChoice"))
    made = transform(source.read(0)[0])
    lengths = [5 + 1 + len(choice.split()) for choice in source.read(0)[0].choices]
    assert made.inputs["input_ids"].shape == (3, max(lengths))
    assert made.inputs["attention_mask"].sum(1).tolist() == lengths
    assert made.target is None
