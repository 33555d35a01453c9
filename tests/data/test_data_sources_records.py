"""Tables: which file is a split, which column is what, and rows that can't be read."""

import json
from pathlib import Path

import numpy as np
import pytest

from spgsurgeon.data.sources.class_names import with_classes
from spgsurgeon.data.sources.opening import open_source
from spgsurgeon.errors import DataError, SurgeonError, UsageError

ROWS = [("a b", "c", 1), ("d", "", 0), ("e 'f\"", "g", 2)]


def written(folder: Path, ending: str, header=("text", "pair", "label"), rows=ROWS) -> Path:
    lines = {
        ".tsv": ["\t".join(header), *("\t".join(map(str, row)) for row in rows)],
        ".csv": [",".join(header), *(",".join('"' + str(v).replace('"', '""') + '"' for v in row) for row in rows)],
        ".jsonl": [json.dumps(dict(zip(header, row, strict=True))) for row in rows],
    }[ending]
    (folder / f"train{ending}").write_text("\n".join(lines) + "\n", encoding="utf-8-sig" if ending == ".csv" else None)
    return folder


@pytest.mark.parametrize("ending", [".tsv", ".csv", ".jsonl"])
def test_a_table_is_read_whatever_its_form(tmp_path, ending) -> None:
    source = open_source("texts", written(tmp_path, ending), "train")
    assert [source.read(row) for row in range(3)] == [((text, pair), label) for text, pair, label in ROWS]
    assert source.classes == ("0", "1", "2")
    assert source.labels().dtype == np.int64
    assert source.describe(1) == f"{tmp_path / f'train{ending}'}, line {2 if ending == '.jsonl' else 3}"
    assert list(source.file_paths()) == [tmp_path / f"train{ending}"]
    assert open_source("texts", tmp_path, f"train{ending}").name.endswith(f"(train{ending})")


def test_a_saved_data_set_is_read_with_its_names(tmp_path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(sentence=datasets.Value("string"), label=datasets.ClassLabel(names=["no", "yes"]))
    rows = {"sentence": ["a", "b", "c"], "label": [1, 0, 1]}
    datasets.DatasetDict(train=datasets.Dataset.from_dict(rows, features)).save_to_disk(str(tmp_path / "set"))
    source = open_source("texts", tmp_path / "set", "train")
    assert (source.classes, source.read(2)) == (("no", "yes"), (("c",), 1))
    assert all(path.suffix == ".arrow" for path in source.file_paths())


def test_rows_are_at_their_own_lines_although_texts_have_several(tmp_path) -> None:
    (tmp_path / "train.csv").write_text('text,label\n"one\ntwo",0\n"three",1\n')
    source = open_source("texts", tmp_path, "train")
    assert source.read(0) == (("one\ntwo",), 0)
    assert [source.describe(row).rpartition(" ")[2] for row in (0, 1)] == ["2", "4"]


@pytest.mark.parametrize(
    ("header", "said", "read"),
    [
        (("sentence", "label"), {}, ("x",)),
        (("question", "sentence", "label"), {}, ("x", "y")),
        (("premise", "hypothesis", "label"), {}, ("x", "y")),
        (("idx", "sentence1", "sentence2", "label"), {}, ("y", "z")),
        (("note", "sentence", "label"), {"text": "note"}, ("x",)),  # who says one column means that one alone
        (("note", "sentence", "label"), {"text": "sentence", "pair": "note"}, ("y", "x")),
    ],
)
def test_columns_are_known_by_name_or_said(tmp_path, header, said, read) -> None:
    written(tmp_path, ".tsv", header, [[*"xyz"[: len(header) - 1], "0"], [*"xyz"[: len(header) - 1], "1"]])
    source = open_source("texts", tmp_path, "train", columns=said)
    assert source.read(0) == (read, 0)
    assert all(f"'{name}'" in source.notes[0] for name in ("label",))


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (("body", "label"), {}),  # none that is known
        (("sentence", "class"), {}),
        (("sentence", "label"), {"text": "sentences"}),
        (("sentence", "label"), {"txet": "sentence"}),
        (("sentence", "label"), {"pair": "sentence"}),  # a second text without a first
    ],
)
def test_what_no_column_can_be_is_asked_for(tmp_path, header, said) -> None:
    written(tmp_path, ".tsv", header, [("x", "0"), ("y", "1")])
    with pytest.raises(UsageError) as caught:
        open_source("texts", tmp_path, "train", columns=said)
    assert caught.value.code == "unknown-column"
    assert caught.value.hint


@pytest.mark.parametrize(
    ("labels", "classes", "found", "names"),
    [
        (["0", "2"], None, [0, 2], ("0", "1", "2")),
        (["0", "1"], 3, [0, 1], ("0", "1", "2")),
        (["1", "0"], ("no", "yes"), [1, 0], ("no", "yes")),
        (["yes", "no"], None, [1, 0], ("no", "yes")),
        (["yes", "no"], ("yes", "no"), [0, 1], ("yes", "no")),
    ],
)
def test_labels_are_numbers_or_names(tmp_path, labels, classes, found, names) -> None:
    written(tmp_path, ".tsv", ("text", "label"), [("x", label) for label in labels])
    source = open_source("texts", tmp_path, "train", classes=classes)
    assert (source.labels().tolist(), source.classes) == (found, names)
    wider = with_classes(source, 5)
    assert len(wider.classes) == (5 if classes is None and labels[0] == "0" else len(names))


@pytest.mark.parametrize(
    ("labels", "classes"), [(["0", "-1"], None), (["0", "2"], 2), (["0", "x"], None), (["no", "on"], ("no", "yes"))]
)
def test_a_label_that_is_no_class_is_named_with_its_line(tmp_path, labels, classes) -> None:
    rows = [("x", label) for label in labels]
    written(tmp_path, ".tsv", ("text", "label"), rows)
    if labels == ["0", "x"]:  # numbers and words together are names
        assert open_source("texts", tmp_path, "train").classes == ("0", "x")
        return
    with pytest.raises(DataError, match="line 3") as caught:
        open_source("texts", tmp_path, "train", classes=classes)
    assert caught.value.code == "unknown-label"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train.tsv", b"text\tlabel\na\t0\tb\n"),
        ("train.tsv", b"text\ttext\na\tb\n"),
        ("train.csv", b'text,label\n"a,0\n'),
        ("train.tsv", b"text\tlabel\n\xff\t0\n"),
        ("train.jsonl", b'{"text": "a", "label": 0}\n[1]\n'),
        ("train.jsonl", b'{"text": "a", "label": 0}\n{"text": \n'),
        ("train.jsonl", b'{"text": 5, "label": 0}\n'),
        ("train.jsonl", b'{"label": 0}\n{"text": "a", "label": 1}\n'),
    ],
)
def test_what_can_not_be_read_is_refused_by_its_line(tmp_path, name, content) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}"):
        open_source("texts", tmp_path, "train")


def test_a_split_is_one_file(tmp_path) -> None:
    written(tmp_path, ".tsv")
    written(tmp_path, ".csv")
    for split, name in (("train", "train.tsv"), ("trian", "train")):
        with pytest.raises(UsageError) as caught:
            open_source("texts", tmp_path, split)
        assert name in str(caught.value.hint)
    (tmp_path / "train.csv").unlink()
    (tmp_path / "train.tsv").write_text("text\tlabel\n")
    with pytest.raises(SurgeonError, match="no row"):
        open_source("texts", tmp_path, "train")


@pytest.mark.parametrize("broken", [b"{", b"[1]", b"\xff"])
def test_a_line_is_named_by_its_number_although_lines_before_it_are_empty(tmp_path, broken) -> None:
    (tmp_path / "train.jsonl").write_bytes(b'{"text": "a", "label": 0}\n\n\n' + broken + b"\n")
    with pytest.raises(DataError, match="line 4"):
        open_source("texts", tmp_path, "train")


@pytest.mark.parametrize("ending", [".tsv", ".csv"])
def test_a_line_that_is_not_utf_8_is_named_by_its_number(tmp_path, ending) -> None:
    separator = b"\t" if ending == ".tsv" else b","
    lines = [separator.join(parts) for parts in ([b"text", b"label"], [b"a", b"0"], [b"\xff", b"1"])]
    (tmp_path / f"train{ending}").write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(DataError, match="line 3: not UTF-8"):
        open_source("texts", tmp_path, "train")
