"""Which shards a split means: by _info.json, by folder, by prefix, by pattern; and what each of them refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_shards import write_tar

from spgsurgeon.data.sources.shard_files import Shards, find_shards, refuse_remote
from spgsurgeon.errors import UsageError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a folder with shards under several names; nothing here looks into them."""
    for name in ("train-000", "train-001", "train-010", "val-0", "fine/a", "fine/b", "train/inner"):
        write_tar(tmp_path / "data [1]" / f"{name}.tar", [])
    (tmp_path / "data [1]" / "._train-000.tar").touch()
    (tmp_path / "data [1]" / "train-000.idx").touch()
    (tmp_path / "data [1]" / "empty").mkdir()
    return tmp_path / "data [1]"


def names(root: Path, split: str) -> list[str]:
    return [str(path.relative_to(root)) for path in find_shards(root, split).paths]


def refusal(root: Path, split: str) -> tuple[str, str]:
    with pytest.raises(UsageError) as caught:
        find_shards(root, split)
    return caught.value.message, str(caught.value.hint)


def write_info(root: Path, name: str = "_info.json", **splits: Any) -> None:
    (root / name).write_text(json.dumps({"splits": splits}))


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("fine", ["fine/a.tar", "fine/b.tar"]),
        ("train", ["train/inner.tar"]),
        ("val", ["val-0.tar"]),
        ("", ["train-000.tar", "train-001.tar", "train-010.tar", "val-0.tar"]),
        (".", ["train-000.tar", "train-001.tar", "train-010.tar", "val-0.tar"]),
        ("train-{000..001}.tar", ["train-000.tar", "train-001.tar"]),
        ("train-0{00..01}.tar", ["train-000.tar", "train-001.tar"]),
        ("val-{0..0}.tar", ["val-0.tar"]),
        ("fine/{b,a}.tar", ["fine/b.tar", "fine/a.tar"]),
        ("{train,val}-{000,0}.tar::fine/a.tar", None),
        ("train-0*.tar", ["train-000.tar", "train-001.tar", "train-010.tar"]),
        ("train-00?.tar", ["train-000.tar", "train-001.tar"]),
        ("*/[ab].tar", ["fine/a.tar", "fine/b.tar"]),
        ("val-0.tar::fine/{a,b}.tar", ["val-0.tar", "fine/a.tar", "fine/b.tar"]),
        ("val-0.tar", ["val-0.tar"]),
    ],
)
def test_what_a_split_means(root: Path, split: str, expected: list[str] | None) -> None:
    if expected is None:
        assert "2 of the 5 shards" in refusal(root, split)[0]  # train-0.tar and val-000.tar
    else:
        assert names(root, split) == expected


@pytest.mark.parametrize("suffix", ["|12", ":12"])
def test_the_number_of_samples_may_follow(root: Path, suffix: str) -> None:
    shards = find_shards(root, f"train-00?.tar::val-0.tar{suffix}")
    assert ([path.name for path in shards.paths], shards.total) == (["train-000.tar", "train-001.tar", "val-0.tar"], 12)


@pytest.mark.parametrize("file", ["_info.json", "info.json"])
def test_info_says_it_first(root: Path, file: str) -> None:
    train = {"filenames": ["val-0.tar", "fine/a.tar"], "shard_lengths": [3, 4], "num_samples": 7}
    write_info(root, file, train=train, test={"filenames": ["train-010.tar"]})
    assert find_shards(root, "train") == Shards((root / "val-0.tar", root / "fine/a.tar"), (3, 4), 7)
    assert find_shards(root, "test") == Shards((root / "train-010.tar",))
    assert names(root, "fine") == ["fine/a.tar", "fine/b.tar"]  # which it does not name


def test_info_may_name_the_classes(root: Path) -> None:
    (root / "_info.json").write_text(json.dumps({"class_names": ["cat", "dog"]}))
    assert find_shards(root, "val").class_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"filenames": []}, "has no filenames for its split 'train'"),
        ({"filenames": ["a.tar", 3]}, "has no filenames for its split 'train'"),
        (["a.tar"], "has no filenames for its split 'train'"),
        ({"filenames": ["../a.tar"]}, "outside that folder: '../a.tar'"),
        ({"filenames": ["/a.tar"]}, "outside that folder: '/a.tar'"),
        ({"filenames": ["s3://bucket/a.tar"]}, "is a stream"),
        ({"filenames": ["val-0.tar"], "shard_lengths": [1, 2]}, "does not say a length for each shard"),
        ({"filenames": ["val-0.tar"], "shard_lengths": ["1"]}, "does not say a length for each shard"),
        ({"filenames": ["val-0.tar"], "num_samples": -1}, "says -1 samples"),
        ({"filenames": ["val-0.tar", "val-0.tar"]}, "names shards twice"),
        ({"filenames": ["val-1.tar"]}, "1 of the 1 shards of the split 'train' are missing"),
    ],
)
def test_info_that_can_not_be(root: Path, said: Any, words: str) -> None:
    write_info(root, train=said)
    assert words in refusal(root, "train")[0]


def test_info_that_is_not_json(root: Path) -> None:
    (root / "_info.json").write_text("{")
    assert f"{root / '_info.json'} is not JSON" in refusal(root, "train")[0]


@pytest.mark.parametrize(
    ("split", "words", "hint"),
    [
        ("vall", "no shards for the split 'vall'", "did you mean 'val'?"),
        ("fnie", "no shards for the split 'fnie'", "did you mean 'fine'?"),
        ("qqqq", "no shards for the split 'qqqq'", "splits there: 'fine', 'train', 'val'"),
        ("empty", "no shards for the split 'empty'", "splits there: "),
        ("train-{000..003}.tar", "2 of the 4 shards of the split", "did you mean 'train-010.tar' or 'train-001.tar'"),
        ("none/{0..3}.tar", "4 of the 4 shards of the split", "no tar file in"),
        ("qqqq*.tar", "no file matches 'qqqq*.tar'", "splits there: "),
        ("train-00*.tar::train-001.tar", "names shards twice", None),
        ("train-{000..003.tar", "the braces in 'train-{000..003.tar' don't match", "{0000..0123}"),
        ("train-{0..3..2}.tar", "is neither a range nor a list", "{a,b}"),
        ("train-{}.tar", "is neither a range nor a list", "{a,b}"),
        ("train-{3..0}.tar", "has to go up", None),
        ("train-{0..99999999999}.tar", "has to go up, to at most 1,000,000 shards", None),
        ("{0..9999}-{0..9999}.tar", "more than 1,000,000 shards", None),
        ("pipe:cat train-000.tar", "is a stream", "into a folder"),
        ("https://host/train-{000..003}.tar", "could not resume exactly", "into a folder"),
        ("val-0.tar::s3://bucket/val-1.tar", "is a stream", "mount the bucket"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(root: Path, split: str, words: str, hint: str | None) -> None:
    message, said = refusal(root, split)
    assert words in message
    assert hint is None or hint in said


def test_shards_without_a_name_for_the_split(tmp_path: Path) -> None:
    assert refusal(tmp_path, "train")[1] == f"there is no tar file in {tmp_path}"
    write_tar(tmp_path / "0001.tar", [])
    assert refusal(tmp_path, "train")[1] == "tar files there: '0001.tar'; a pattern such as '*.tar' is a split too"


@pytest.mark.parametrize("name", ["train-011.tar.gz", "train-011.tgz", "train-011.tar.zst"])
def test_a_compressed_shard_is_not_left_out_without_a_word(root: Path, name: str) -> None:
    (root / "train").rename(root / "other")
    (root / name).touch()
    message, hint = refusal(root, "train")
    assert f"{root / name} is compressed (.{name.partition('.')[2]})" in message
    assert "could not resume exactly" in message
    assert "decompress" in hint
    assert "is compressed" in refusal(root, name)[0]


def test_links_lead_to_other_disks(root: Path, tmp_path: Path) -> None:
    disk = write_tar(tmp_path / "disk" / "x.tar", []).parent
    (root / "linked").symlink_to(disk)
    (root / "fine" / "c.tar").symlink_to(disk / "x.tar")
    assert names(root, "linked") == ["linked/x.tar"]
    assert names(root, "fine") == ["fine/a.tar", "fine/b.tar", "fine/c.tar"]
    assert [str(path) for path in find_shards(root, f"val-0.tar::{disk}/*.tar").paths[1:]] == [str(disk / "x.tar")]


@pytest.mark.parametrize("path", ["s3://bucket/x", Path("s3://bucket/x"), "https://host/x", "pipe:cat", "gs://b"])
def test_a_path_that_is_an_address(path: Any) -> None:
    with pytest.raises(UsageError, match="is a stream") as caught:
        refuse_remote(path)
    assert caught.value.hint


@pytest.mark.parametrize("path", [None, "/data/x", "data:x", "C:/data"])
def test_a_path_that_is_none(path: Any) -> None:
    refuse_remote(path)
