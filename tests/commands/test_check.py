"""`spgsurgeon check` on folders as people have them: what it finds, what it calls an error, and what it opens."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import TINY, make_mask_folder, spgsurgeon, succeed
from messy_folder import BROKEN, clean_folder, messy_folder
from PIL import Image
from tiny_shards import make_shards
from tiny_sounds import tone, written


@pytest.fixture(scope="module")
def messy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return messy_folder(tmp_path_factory.mktemp("messy"))


def test_what_is_wrong_with_a_folder_is_found(messy: Path) -> None:
    outcome = spgsurgeon("check", messy, "--json")
    document, train = outcome.document, outcome.document["splits"]["train"]
    assert outcome.code == document["exit_code"] == 1
    assert document["error"]["code"] == "data-faults"
    assert sorted(train["unreadable"]) == sorted(str(messy / name) for name in BROKEN)
    assert (train["samples"], document["splits"]["val"]["unreadable"]) == (14, {})
    assert train["classes"] == [["cat", 6], ["dog", 6]]  # of those that can be read
    assert train["kinds"] == {"mode": {"RGB": 9, "I;16": 1, "CMYK": 1, "RGBA": 1}}
    assert train["sizes"] == {"width": [20, 20, 40], "height": [16, 16, 16]}
    assert document["duplicates"] == {
        "across_splits": [[str(messy / "train/dog/1.png"), str(messy / "val/dog/copy.png")]],
        "other_classes": [[str(messy / "train/cat/other.png"), str(messy / "train/dog/2.png")]],
        "within_split": {"train": 2},
    }
    for word in ("EXIF orientation", "16 bits of grey", "1 .txt", "sample is in more than one split"):
        assert [note for note in document["notes"] if word in note], word
    assert not [note for note in document["notes"] if "._" in note]


def test_every_file_that_cannot_be_read_is_named_to_people(messy: Path) -> None:
    outcome = spgsurgeon("check", messy)
    assert outcome.code == 1
    assert all(str(messy / name) in outcome.out for name in BROKEN)
    assert "2 of 14 samples" in outcome.err
    assert "copy.png" in outcome.out


def test_a_sound_folder_of_images_has_no_fault(tmp_path: Path) -> None:
    document = succeed("check", clean_folder(tmp_path), "--json").document
    assert document["problems"] == document["notes"] == []
    assert "error" not in document


def test_a_sample_of_the_data_is_said(messy: Path) -> None:
    document = spgsurgeon("check", messy, "--sample", 4, "--split", "val", "--json").document
    assert {name: one["looked_at"] for name, one in document["splits"].items()} == {"val": 4}
    assert [note for note in document["notes"] if "looked at: 4 of 7 of val" in note]


def test_a_folder_without_splits_is_read_whole(messy: Path) -> None:
    assert list(spgsurgeon("check", messy / "val", "--json").document["splits"]) == ["."]


def test_classes_that_only_one_split_has_are_a_fault(tmp_path: Path) -> None:
    folder = clean_folder(tmp_path)
    (folder / "val" / "dog").rename(folder / "val" / "wolf")
    outcome = spgsurgeon("check", folder, "--json")
    assert outcome.code == 1
    assert "'wolf'" in outcome.document["error"]["message"]


def test_rare_and_missing_classes_are_said(tmp_path: Path) -> None:
    for label, count in (("many", 20), ("few", 2)):
        for number in range(count):
            path = tmp_path / "train" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4), (number, len(label), 0)).save(path)
    document = succeed("check", tmp_path, "--json").document
    assert [note for note in document["notes"] if "ten times as many as of 'few'" in note]


def texts(folder: Path) -> Path:
    folder.mkdir()
    (folder / "train.tsv").write_text("text\tlabel\na film\tgood\n \tbad\na plot\tbad\n")
    (folder / "dev.tsv").write_text("text\tlabel\na plot\tgood\nso so\tbad\n")
    return folder


def test_texts(tmp_path: Path) -> None:
    document = succeed("check", texts(tmp_path / "texts"), "--json").document
    train = document["splits"]["train"]
    assert document["source"] == "texts"
    assert train["classes"] == [["bad", 2], ["good", 1]]
    assert train["sizes"]["words"] == [0, 2, 2]
    assert [len(document["duplicates"][kind]) for kind in ("across_splits", "other_classes")] == [1, 1]
    assert [note for note in document["notes"] if "empty text" in note]


def test_sounds(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "train", "val", "val")):
        written(tmp_path / split / ("low", "high")[number % 2] / f"{number}.wav", tone(number % 2, number % 3))
    (tmp_path / "val" / "low" / "none.wav").write_bytes(b"RIFF")
    outcome = spgsurgeon("check", tmp_path, "--json")
    document = outcome.document
    assert (outcome.code, document["source"]) == (1, "sounds")
    assert list(document["splits"]["val"]["unreadable"]) == [str(tmp_path / "val" / "low" / "none.wav")]
    assert document["splits"]["train"]["kinds"] == {"rate": {"16,000 Hz": 2}}
    assert 0.1 < document["splits"]["train"]["sizes"]["seconds"][0] < 1


def test_masks(tmp_path: Path) -> None:
    folder = make_mask_folder(tmp_path / "masks", classes=3, each=2, side=12)
    refused = spgsurgeon("check", folder)
    assert refused.code == 2
    assert "--classes" in refused.err
    document = succeed("check", folder, "--classes", "a,b,c", "--json").document
    counts = np.array([count for _, count in document["splits"]["train"]["classes"]])
    assert (document["source"], counts.sum()) == ("masks", 2 * 12 * 12)
    Image.new("L", (12, 12), 9).save(folder / "val" / "masks" / "0.png")
    broken = spgsurgeon("check", folder, "--classes", 3, "--json")
    assert broken.code == 1
    assert "class id 9" in next(iter(broken.document["splits"]["val"]["unreadable"].values()))


def test_shards_and_digits(tmp_path: Path) -> None:
    document = succeed("check", make_shards(tmp_path / "shards"), "--json").document
    assert (document["source"], list(document["splits"])) == ("wds", ["train", "val"])
    document = succeed("check", "digits", "--sample", 5, "--json").document
    assert list(document["splits"]) == ["train", "val", "test"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere",), "'nowhere' is neither a folder nor"),
        (("digits", "--source", "folder"), "--source"),
        (("{messy}", "--source", "floder"), "folder"),
        (("{messy}", "--split", "vla"), "vla"),
        (("{messy}", "--column", "text=a"), "--column"),
        (("{messy}", "--classes", "3"), "--classes"),
        (("{messy}", "--ignore", "3"), "--ignore is for masks"),
        (("{messy}", "--source", "texts"), "there is no"),
        (("{empty}",), "no form of data fits"),
    ],
)
def test_refusals(arguments: tuple[str, ...], words: str, messy: Path, tmp_path: Path) -> None:
    given = [text.format(messy=messy, empty=tmp_path) for text in arguments]
    outcome = spgsurgeon("check", *given, "--json")
    assert outcome.code == 2
    error = outcome.document["error"]
    assert words in f"{error['message']} {error['hint']}"


def test_a_plan_looks_at_some_samples(messy: Path, tmp_path: Path) -> None:
    settings = ("data.image_size=64", "training.batch_size=6", "data.workers=0", "training.device=cpu")
    data = (f"data={{path: {messy}, unreadable: skip, augment: {{crop: pad}}}}", *settings)
    command = ("train", *TINY, "--recipe", "digits-dropout", *data, "-o", tmp_path / "run", "--dry-run")
    document = succeed(*command, "--json").document
    assert document["looked_at"]["train"]["looked_at"] == 14
    assert len(document["looked_at"]["train"]["unreadable"]) == 2
    assert [note for note in document["notes"] if "2 of 14 samples" in note and "spgsurgeon check" in note]
    assert "mode RGB (9)" in " ".join(succeed(*command).out.split())
    json.dumps(document)
