"""Sound files: which are read, what they hold, and what can't be used."""

import json
import os

import numpy as np
import pytest
from tiny_sounds import RATE, tone, tones_table, written

from spgsurgeon.data.sources.class_names import with_classes
from spgsurgeon.data.sources.opening import open_source
from spgsurgeon.data.sources.sounds.recording import Recording
from spgsurgeon.errors import DataError, SurgeonError, UsageError


@pytest.mark.parametrize(("ending", "tolerance"), [(".wav", 1e-4), (".flac", 1e-4)])
def test_class_folders_are_read(tmp_path, ending, tolerance) -> None:
    for label, name in enumerate(("high", "low")):
        for number in range(2):
            written(tmp_path / "train" / name / f"{number}{ending}", tone(label, number))
    (tmp_path / "train" / "low" / "notes.txt").write_text("x")
    (tmp_path / "train" / "low" / ".hidden.wav").write_text("x")
    source = open_source("sounds", tmp_path, "train")
    assert (source.classes, len(source), source.labels().tolist()) == (("high", "low"), 4, [0, 0, 1, 1])
    recording, label = source.read(3)
    sound = recording.read(9)
    assert (label, sound.rate, sound.goes_on) == (1, RATE, False)
    assert np.abs(sound.samples - tone(1, 1)).max() < tolerance
    assert source.describe(3).endswith(f"1{ending}")
    assert len(list(source.file_paths())) == 4
    assert any("1 .txt" in note for note in source.notes)


def test_a_table_of_paths_is_read(tmp_path) -> None:
    source = open_source("sounds", tones_table(tmp_path / "data", 4, 2), "train")
    assert (source.classes, source.labels().tolist()) == (("high", "low"), [1, 0, 1, 0])
    assert source.read(1)[0] == Recording(tmp_path / "data" / "recordings" / "train1.wav")
    assert source.notes
    assert next(iter(source.file_paths())) == tmp_path / "data" / "train.tsv"
    said = open_source("sounds", tmp_path / "data", "train", classes=("low", "high", "none"))
    assert (said.classes, said.labels().tolist()) == (("low", "high", "none"), [0, 1, 0, 1])


def test_columns_and_numbers_of_a_table(tmp_path) -> None:
    rows = [{"clip": "a.wav", "word": 2}, {"clip": "b.wav", "word": 0}]
    (tmp_path / "dev.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = open_source("sounds", tmp_path, "dev", columns={"file": "clip", "label": "word"})
    assert (source.classes, with_classes(source, 4).classes) == (("0", "1", "2"), ("0", "1", "2", "3"))
    with pytest.raises(UsageError) as caught:
        open_source("sounds", tmp_path, "dev")
    assert caught.value.code == "unknown-column"


@pytest.mark.parametrize("name", ["/etc/passwd", "../x.wav", "a/../../x.wav", ""])
def test_paths_stay_in_the_datas_folder(tmp_path, name) -> None:
    (tmp_path / "train.tsv").write_text(f"file\tlabel\n{name}\t0\n")
    with pytest.raises(DataError) as caught:
        open_source("sounds", tmp_path, "train")
    assert caught.value.code == "path-outside"


def test_a_folder_and_a_table_are_not_confused(tmp_path) -> None:
    tones_table(tmp_path, 4, 2)
    written(tmp_path / "train" / "a" / "x.wav", tone(0, 0))
    with pytest.raises(UsageError, match="which of them"):
        open_source("sounds", tmp_path, "train")
    assert len(open_source("sounds", tmp_path, "train.tsv")) == 4
    with pytest.raises(UsageError):
        open_source("sounds", tmp_path, "nothing")


def test_channels_become_one_and_only_what_is_asked_for_is_read(tmp_path) -> None:
    both = np.stack([np.full(4000, 0.5), np.full(4000, -0.25)], axis=1)
    sound = Recording(written(tmp_path / "a.wav", both, subtype="FLOAT")).read(0.1)
    assert (sound.samples.shape, sound.goes_on) == ((1600,), True)
    assert np.allclose(sound.samples, 0.125)
    assert Recording(tmp_path / "a.wav").read(0.25).goes_on is False


@pytest.mark.parametrize("spoil", ["missing", "empty", "text", "no samples", "cut", "pipe", "folder", "format", "rate"])
def test_what_can_not_be_used_is_said_shortly(tmp_path, spoil) -> None:
    path = written(tmp_path / "a.wav", tone(0, 0))
    content = path.read_bytes()
    path.unlink()
    if spoil in ("empty", "text", "cut"):
        path.write_bytes({"empty": b"", "text": b"no sound at all", "cut": content[:20]}[spoil])
    elif spoil == "no samples":
        written(path, np.zeros(0, dtype=np.float32))
    elif spoil == "pipe":
        os.mkfifo(path)
    elif spoil == "folder":
        path.mkdir()
    elif spoil == "format":
        written(path, tone(0, 0), format="AIFF")
    elif spoil == "rate":
        written(path, tone(0, 0), 10)
    with pytest.raises(DataError) as caught:
        Recording(path).read(1.0)
    assert len(caught.value.message) < 100
    assert str(tmp_path) not in caught.value.message


def test_without_soundfile_it_is_said_what_to_install(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SurgeonError) as caught:
        open_source("sounds", tmp_path, "train")
    assert caught.value.code == "missing-package"
