"""Classes of data and model: by name if both have names, by number only if one has none, which is said."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest
import timm
import torch
from command_line import spgsurgeon, succeed
from PIL import Image
from timm.data import create_dataset
from timm.models._hub import save_for_hf

from spgsurgeon.data.class_map import read_class_map, renamed
from spgsurgeon.data.classes import with_labels_of
from spgsurgeon.data.sources.opening import open_source
from spgsurgeon.data.sources.source import ImageSource
from spgsurgeon.data.transforms.masks import IGNORED
from spgsurgeon.errors import UsageError

NAMES = ("1", "2", "10", "a", "B")


def folder(root: Path, *names: str) -> Path:
    """Make a split `val` in which the class at place n has n + 1 images; return the data's path."""
    for place, name in enumerate(names):
        (root / "val" / name).mkdir(parents=True)
        for number in range(place + 1):
            Image.new("RGB", (8, 8), (place * 40, 0, 0)).save(root / "val" / name / f"{number}.png")
    return root


def source(root: Path) -> ImageSource:
    return open_source("folder", root, "val")


def names_of(found: ImageSource) -> list[str]:
    """Return the class of each sample by its label, and see that reading gives the same."""
    labels = found.labels().tolist()
    assert labels == [found.read(index)[1] for index in range(len(found))]
    return [found.classes[label] for label in labels]


def test_the_same_names_in_another_order_go_by_name(tmp_path: Path) -> None:
    data = source(folder(tmp_path, "ant", "bee", "cow"))
    found, said = with_labels_of(data, ["cow", "ant", "bee"], "model")
    assert found.labels().tolist() == [1, 2, 2, 0, 0, 0]
    assert names_of(found) == names_of(data)
    assert len(said) == 1
    assert "by name" in said[0]
    assert with_labels_of(data, ["ant", "bee", "cow"], "model") == (data, [])


def test_names_in_part_the_same_are_refused_or_scored_when_asked(tmp_path: Path) -> None:
    data = source(folder(tmp_path, "ant", "bee", "fox"))
    with pytest.raises(UsageError) as refused:
        with_labels_of(data, ["bee", "ant", "cow"], "model")
    assert refused.value.code == "other-classes"
    assert refused.value.details == {"only_in_model": ["cow"], "only_in_data": ["fox"]}
    found, said = with_labels_of(data, ["bee", "ant", "cow"], "model", common=True)
    assert names_of(found) == ["ant", "bee", "bee"]
    assert found.classes == ("bee", "ant", "cow")
    assert said


def test_names_that_have_nothing_in_common_or_are_not_there_go_by_number_which_is_said(tmp_path: Path) -> None:
    data = source(folder(tmp_path, "n01", "n02"))
    for names in (["ant", "bee"], None):
        found, said = with_labels_of(data, names, "model")
        assert found is data
        assert "by number" in said[0]
    with pytest.raises(UsageError, match="no class in common"):
        with_labels_of(data, ["ant", "bee"], "model", common=True)


def test_numbers_are_no_names(tmp_path: Path) -> None:
    data = source(folder(tmp_path, "0", "1", "2"))
    found, said = with_labels_of(data, ["2", "ant", "bee"], "model")
    assert found is data
    assert "by number" in said[0]


def constant(label: int) -> torch.nn.Module:
    """Return a model of five classes that always says `label`."""
    model = timm.create_model("test_resnet", num_classes=5)
    with torch.no_grad():
        model.fc.weight.zero_()
        model.fc.bias.copy_(torch.nn.functional.one_hot(torch.tensor(label), 5))
    return model


def scored(path: Path, data: Path, *options: str) -> tuple[float, list[str]]:
    command = ("eval", path, "--data", data, "--device", "cpu", "--workers", 0, "--json")
    document = succeed(*command, *options).document
    return document["top1"], document["notes"]


def test_weights_of_timms_script_are_scored_in_timms_order(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", *NAMES)
    theirs = create_dataset("", root=str(data), split="val").reader.class_to_idx
    args = Namespace(model="test_resnet", num_classes=5)
    model = constant(theirs["10"])
    document = {"epoch": 1, "arch": "test_resnet", "state_dict": model.state_dict(), "version": 2, "args": args}
    torch.save(document, tmp_path / "last.pth.tar")
    top1, notes = scored(tmp_path / "last.pth.tar", data)
    assert top1 == pytest.approx(100 * 3 / 15)
    assert [note for note in notes if "timm's order" in note]
    by_code_point = sorted(NAMES)[theirs["10"]]
    expected = 100 * (NAMES.index(by_code_point) + 1) / 15
    assert scored(tmp_path / "last.pth.tar", data, "--class-order", "code-point")[0] == pytest.approx(expected)


def test_eval_matches_the_names_that_a_folder_says(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", "ant", "bee", "cow", "dog", "fox")
    names = ["fox", "dog", "cow", "bee", "ant"]
    save_for_hf(constant(0), str(tmp_path / "hub"), model_config={"label_names": names})
    assert scored(tmp_path / "hub", data)[0] == pytest.approx(100 * 5 / 15)
    save_for_hf(constant(0), str(tmp_path / "elk"), model_config={"label_names": [*names[:4], "elk"]})
    command = ("eval", tmp_path / "elk", "--data", data, "--device", "cpu", "--workers", 0, "--json")
    assert spgsurgeon(*command).code == 2
    top1, _ = scored(tmp_path / "elk", data, "--common-classes")
    assert top1 == pytest.approx(100 * 5 / 14)


def test_masks_go_by_name_too_and_what_stands_for_nothing_stays(tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        (tmp_path / "val" / kind).mkdir(parents=True)
    (tmp_path / "classes.txt").write_text("background\ncar\nroad\n")
    Image.new("RGB", (4, 1)).save(tmp_path / "val" / "images" / "0.png")
    mask = Image.new("L", (4, 1))
    mask.putdata([0, 1, 2, 255])
    mask.save(tmp_path / "val" / "masks" / "0.png")
    data = open_source("masks", tmp_path, "val")
    found, said = with_labels_of(data, ["__background__", "road", "car"], "model")
    assert found.read(0)[1].tolist() == [[0, 2, 1, IGNORED]]
    assert found.classes == ("__background__", "road", "car")
    assert "by name" in said[0]
    same, said = with_labels_of(data, ["__background__", "car", "road"], "model")
    assert same.read(0)[1].tolist() == [[0, 1, 2, IGNORED]]
    assert said == []
    with pytest.raises(UsageError) as refused:
        with_labels_of(data, ["background", "road", "tree"], "model")
    assert refused.value.code == "other-classes"


def test_a_table_names_classes_and_may_make_one_of_two(tmp_path: Path) -> None:
    data = source(folder(tmp_path, "n1", "n2", "n3"))
    found = renamed(data, {"n3": "cat", "n1": "dog", "n2": "cat"}, "the table")
    assert found.classes == ("dog", "cat")
    assert names_of(found) == ["dog", *["cat"] * 5]
    assert found.notes
    assert renamed(data, None, "the table") is data
    with pytest.raises(UsageError, match="none of the classes"):
        renamed(data, {"n4": "cat"}, "the table")


@pytest.mark.parametrize("text", ["", "n1 dog\n", "n1\tdog\nn1\tcat\n", "n1\t\n", "a\tb\tc\n"])
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "table.tsv").write_text(text)
    with pytest.raises(UsageError):
        read_class_map(str(tmp_path / "table.tsv"))
    with pytest.raises(UsageError):
        read_class_map(str(tmp_path / "none.tsv"))
    (tmp_path / "table.tsv").write_text("\ufeffn1\tdog\r\n\r\nn2\tgreat white shark\r\n")
    assert read_class_map(str(tmp_path / "table.tsv")) == {"n1": "dog", "n2": "great white shark"}
