"""WebDataset shards as a data set that is read in any order: where each image lies is indexed once.

A shard is an uncompressed tar file, and the files of a sample lie next to each other in it: KEY.jpg, or another kind of
image, and KEY.cls with the label as decimal digits. A key is a file's name up to the first dot after its folder.
Nothing is extracted. Sizes and places are in bytes.
"""

from __future__ import annotations

import io
import itertools
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spgsurgeon.data.sources.class_names import CLASS_NAMES, Classes, class_names
from spgsurgeon.data.sources.file_states import file_states
from spgsurgeon.data.sources.image_decoding import AS_IS, ENDINGS, Decoding, decode
from spgsurgeon.data.sources.reading import Reading
from spgsurgeon.data.sources.shard_files import Shards, find_shards, refuse_remote
from spgsurgeon.data.sources.source import ImageSource, existing_folder, listing, short_hash
from spgsurgeon.data.sources.tar_members import Member, members
from spgsurgeon.errors import DataError, UsageError

PICTURES = tuple(ending.removeprefix(".") for ending in ENDINGS)
LABEL = "cls"
_SAMPLE = np.dtype([("shard", "i4"), ("label", "i4"), ("offset", "i8"), ("size", "i8")])
_MOST_CLASSES = 2**20
_LONGEST_LABEL = 32
_BUFFER = 2**14  # holds the headers between two images, and small images with them
_THREADS = 16  # they wait for the disk more than they compute
_KEPT_OPEN = 128  # shards, in each process


def open_wds(source: str, path: str | Path | None, split: str, reading: Reading) -> ImageSource:
    """See `open_shards`."""
    return open_shards(path, split, classes=reading.classes, decoding=reading.decoding)


def open_shards(
    path: str | Path | None, split: str, *, classes: Classes = None, decoding: Decoding = AS_IS
) -> ImageSource:
    """Index the shards of one split in the folder `path`; `find_shards` says what a split may be.

    `classes` are names by label, or how many there are. None: the lines of `path/classes.txt`, else `class_names` of
    `_info.json`, else "0", "1", ... up to the highest label. Raises UsageError for what is not there or can't be read
    at random, DamagedFileError for a damaged shard, DataError for a sample without image or label, or with a label
    that is none of the classes.
    """
    refuse_remote(path)
    root = existing_folder(path, "wds")
    shards = find_shards(root, split)
    name = f"{root} ({split})"
    index = _index(name, shards)
    given = class_names(root, classes) if classes is not None or (root / CLASS_NAMES).is_file() else shards.class_names
    highest = int(index["label"].max())
    named = class_names(root, given if given is not None else highest + 1)
    source = _ShardSource(name, named, shards.paths, index, given is None, _OpenShards(), decoding)
    if highest >= len(named):
        first = int(np.argmax(index["label"] >= len(named)))
        raise DataError(
            f"{source.describe(first)} has the label {index['label'][first]}, which is none of the {len(named)} classes"
        )
    return source


@dataclass(frozen=True, eq=False)
class _ShardSource:
    """The samples of a split's shards: shard by shard, in each by their place.

    `index` has a row for each sample: its shard's number, its label, and where its image lies. `counted` says that
    the data names no classes, so that there are as many as the highest label asks for.
    """

    name: str
    classes: tuple[str, ...]
    paths: tuple[Path, ...]
    index: NDArray[np.void]
    counted: bool
    files: _OpenShards
    decoding: Decoding = AS_IS
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.index)

    def read(self, index: int) -> tuple[Image.Image, int]:
        sample = self.index[index]
        data = self.files.read(self.paths[sample["shard"]], int(sample["offset"]), int(sample["size"]))
        return decode(io.BytesIO(data), self.decoding), int(sample["label"])

    def labels(self) -> NDArray[np.int64]:
        return self.index["label"].astype(np.int64)

    def file_paths(self) -> Iterable[Path]:
        return self.paths

    def marks(self) -> Iterable[str]:
        return [short_hash(self.index.tobytes())]

    def fingerprint(self) -> Iterator[str]:
        return itertools.chain([self.index.tobytes().hex(), repr(self.decoding)], file_states(self.paths))

    def describe(self, index: int) -> str:
        sample = self.index[index]
        path, offset = self.paths[sample["shard"]], int(sample["offset"])
        try:  # names would fill the memory, and are asked for when something is wrong
            with open(path, "rb", buffering=_BUFFER) as file:
                name = next(member.name for member in members(file, path) if member.offset == offset)
        except Exception:  # the shard has changed, or is gone
            name = f"the image at byte {offset}"
        return f"{name} in {path}"


class _OpenShards:
    """Reads places in files, the last used of which stay open in this process.

    Reading moves no position that others share, so forked processes may go on with the same files; what is pickled
    starts with none.
    """

    def __init__(self) -> None:
        self._open: OrderedDict[Path, _Descriptor] = OrderedDict()

    def __reduce__(self) -> tuple[type[_OpenShards], tuple[()]]:
        return _OpenShards, ()

    def read(self, path: Path, offset: int, size: int) -> bytes:
        descriptor = self._open.pop(path, None) or _Descriptor(path)
        self._open[path] = descriptor
        if len(self._open) > _KEPT_OPEN:
            self._open.popitem(last=False)  # closed once no other thread reads from it
        parts: list[bytes] = []
        while size:
            part = os.pread(descriptor.number, size, offset)
            if not part:
                raise OSError("the shard has become shorter since it was indexed")
            parts, offset, size = [*parts, part], offset + len(part), size - len(part)
        return b"".join(parts)


class _Descriptor:
    """An open file; closed with the last reference to it."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


def _index(name: str, shards: Shards) -> NDArray[np.void]:
    """Return the samples of all shards in their order, and check them against what is said of the shards."""
    with ThreadPoolExecutor(min(_THREADS, len(shards.paths))) as pool:
        parts = list(pool.map(_index_shard, shards.paths))
    for number, (path, part) in enumerate(zip(shards.paths, parts, strict=True)):
        part["shard"] = number
        if shards.lengths is not None and len(part) != shards.lengths[number]:
            raise DataError(f"{path} holds {len(part)} samples, and is said to hold {shards.lengths[number]}")
    index = np.concatenate(parts)
    if shards.total is not None and len(index) != shards.total:
        raise DataError(f"the shards of {name} hold {len(index)} samples, and are said to hold {shards.total}")
    if not len(index):
        raise UsageError(f"the shards of {name} hold no sample")
    return index


def _index_shard(path: Path) -> NDArray[np.void]:
    try:
        with open(path, "rb", buffering=_BUFFER) as file:
            rows = [(0, *row) for row in _samples(file, path)]
    except OSError as error:
        raise DataError(f"can't read {path}: {error.strerror or error}") from error
    return np.array(rows, dtype=_SAMPLE)


class _File(NamedTuple):
    """A file of a sample; `text` is what a label's file holds."""

    key: str
    ending: str
    member: Member
    text: bytes


def _samples(file: BinaryIO, path: Path) -> Iterator[tuple[int, int, int]]:
    """Return label, offset and size of each sample's image."""
    seen: set[str] = set()
    for key, group in itertools.groupby(_files(file, path), key=lambda found: found.key):
        files: dict[str, _File] = {}
        for found in group:
            if found.ending in files:
                raise DataError(f"{path}: the sample {key!r} has two files {found.ending!r}")
            files[found.ending] = found
        if key in seen:
            raise DataError(f"{path}: the sample {key!r} is there twice, or its files are apart", hint=_TOGETHER)
        seen.add(key)
        picture = _picture(path, key, files).member
        yield _label(path, key, files), picture.offset, picture.size


_TOGETHER = "the files of a sample lie next to each other: sort by name when packing (GNU tar: --sort=name)"


def _files(file: BinaryIO, path: Path) -> Iterator[_File]:
    """Return the files that belong to samples; names without an ending, or that start with a dot, do not."""
    for member in members(file, path):
        folder, slash, base = member.name.rpartition("/")
        stem, _, ending = base.partition(".")
        if stem and ending:
            ending = ending.lower()
            text = file.read(min(member.size, _LONGEST_LABEL)) if ending == LABEL else b""
            yield _File(folder + slash + stem, ending, member, text)


def _picture(path: Path, key: str, files: dict[str, _File]) -> _File:
    pictures = [files[ending] for ending in files if ending in PICTURES]
    if len(pictures) == 1:
        return pictures[0]
    if not pictures:
        raise DataError(
            f"{path}: the sample {key!r} has no image, only {listing(list(files))}",
            hint=f"a key ends at the first dot, and one of these follows: {', '.join(PICTURES)}; {_TOGETHER}",
        )
    raise DataError(f"{path}: the sample {key!r} has several images: {listing([found.ending for found in pictures])}")


def _label(path: Path, key: str, files: dict[str, _File]) -> int:
    if LABEL not in files:
        raise DataError(
            f"{path}: the sample {key!r} has no label, only {listing(list(files))}",
            hint=f"labels are read from KEY.{LABEL}: a class number as text; {_TOGETHER}",
        )
    text = files[LABEL].text.strip()
    if not text.isdigit():
        raise DataError(
            f"{path}: the label of the sample {key!r} is {text.decode('utf-8', 'backslashreplace')!r}, no class number",
            hint="class numbers count from 0",
        )
    if files[LABEL].member.size > _LONGEST_LABEL or int(text) >= _MOST_CLASSES:
        raise DataError(f"{path}: the label of the sample {key!r} is beyond {_MOST_CLASSES:,} classes")
    return int(text)
