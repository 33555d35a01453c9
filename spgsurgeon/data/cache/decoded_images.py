"""Images that stay decoded: uint8 RGB in one memory-mapped file, which loader workers and other processes share.

N samples have a row each in the index, int64 [N, 5]: the place of their first byte (-1 where they could not be decoded:
those are read from their source as ever), height, width, label and traits.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import PIL
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from spgsurgeon.checkpoint import atomic_folder, write_failures
from spgsurgeon.data.loading.feed import Feed
from spgsurgeon.data.loading.samples import Part
from spgsurgeon.data.sources.image_decoding import set_traits, traits_of
from spgsurgeon.data.sources.source import ImageSource
from spgsurgeon.data.sources.traits import Traits
from spgsurgeon.data.transforms.augmentation import StagedTransform
from spgsurgeon.errors import SurgeonError
from spgsurgeon.runtime import locking

_PIXELS, _INDEX = "pixels", "index.npy"
_COLUMNS = 5
_AT_ONCE = 64  # images that a loader worker decodes for one message
_LOOKED_AT = 16  # images that are decoded for an estimate


class DecodedPictures:
    """Images in the file `path`, by the rows of `index`. What is pickled maps the file anew.

    `owner` is kept as long as these are: what the file goes with.
    """

    def __init__(self, path: str, index: NDArray[np.int64], owner: object = None) -> None:
        self.index = index
        self._path, self._owner = path, owner
        self._pixels = _mapped(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return DecodedPictures, (self._path, self.index)

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """All bytes, uint8 [size], not to be written to."""
        return self._pixels

    def read(self, number: int) -> tuple[Image.Image, int] | None:
        """Return the image and its label; None if it could not be decoded."""
        start, height, width, label, traits = self.index[number].tolist()
        if start < 0:
            return None
        image = Image.fromarray(self._pixels[start : start + 3 * height * width].reshape(height, width, 3))
        if traits:
            set_traits(image, Traits(traits))
        return image, label


class Estimate(NamedTuple):
    """What decoded images come to, by a few of them: bytes in all, and the sizes met, (height, width)."""

    size: int
    shapes: set[tuple[int, int]]


def estimate(source: ImageSource, transform: StagedTransform) -> Estimate:
    """Decode a few images, evenly spread, and return what all of them come to."""
    shapes = []
    for number in np.linspace(0, len(source) - 1, min(_LOOKED_AT, len(source)), dtype=int).tolist():
        with suppress(Exception):  # decoders raise much more than OSError on damaged files
            image = transform.fixed(source.read(number)[0])
            shapes.append((image.height, image.width))
    mean = sum(3 * height * width for height, width in shapes) / max(1, len(shapes))
    return Estimate(round(mean * len(source)), set(shapes))


def decode(
    source: ImageSource,
    transform: StagedTransform,
    *,
    workers: int,
    folder: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> DecodedPictures:
    """Return all images of a source as the transform's fixed stage leaves them, decoded by so many processes.

    In a `folder` they are looked for first, and left for others: who comes while one decodes waits for it. What lies
    there is known by its source's files, their sizes and times of change, and by what was done to the images; it is
    there whole or not at all. Without a folder the file has no name, and ends with the processes that use it. `say` is
    told where decoding begins. Raises SurgeonError if the folder can't be written, or the disk is full.
    """

    def write(file: BinaryIO) -> NDArray[np.int64]:
        say(f"decoding {len(source):,} images of {source.name}, once")
        return _write(file, _Decoding(source, transform), workers)

    if folder is None:
        return _decode_privately(write)
    name = _digest(source, transform)
    place = folder / name
    with _alone(folder, f"{name}.lock"):
        found = _open(place)
        if found is not None:
            return found
        shutil.rmtree(place, ignore_errors=True)  # it is damaged; we alone write here
        with atomic_folder(place) as temporary:
            with (temporary / _PIXELS).open("wb") as file:
                index = write(file)
            np.save(temporary / _INDEX, index, allow_pickle=False)
    return DecodedPictures(str(place / _PIXELS), index)


class _Chunk(NamedTuple):
    """Decoded images on their way from a worker: uint8 [size], and int64 [B, 6], their number and their row."""

    pixels: Tensor
    rows: Tensor


_Item = tuple[int, NDArray[np.uint8] | None, int, int]  # number, pixels, label, traits


class _Decoding(Dataset[Any]):
    """Reads images for the first and last time."""

    def __init__(self, source: ImageSource, transform: StagedTransform) -> None:
        self.source = source
        self._fixed = transform.fixed

    def open(self) -> None:
        """Nothing is to be done before workers start."""

    def __getitem__(self, number: int) -> _Item:
        try:
            image, label = self.source.read(number)
        except Exception:  # it comes again, and is told, where the image is asked for
            return number, None, 0, 0
        traits = int(traits_of(image))
        return number, np.asarray(self._fixed(image)), label, traits

    def collate(self, items: list[_Item]) -> Part[_Chunk]:
        """Return the images as one."""
        rows, there, end = [], [], 0
        for number, pixels, label, traits in items:
            if pixels is None:
                rows.append((number, -1, 0, 0, label, traits))
                continue
            rows.append((number, end, *pixels.shape[:2], label, traits))
            there.append(pixels.reshape(-1))
            end += pixels.size
        together = np.concatenate(there) if there else np.empty(0, np.uint8)
        return Part([_Chunk(torch.from_numpy(together), torch.tensor(rows))], [], 0.0)


def _write(file: BinaryIO, decoding: _Decoding, workers: int) -> NDArray[np.int64]:
    """Write all images one after the other; return their index."""
    numbers = range(len(decoding.source))
    index = np.full((len(numbers), _COLUMNS), -1, dtype=np.int64)
    feed: Feed[int, _Chunk] = Feed(decoding, workers, pin_memory=False)
    end = 0
    try:
        for chunks in feed.run(list(numbers[first : first + _AT_ONCE]) for first in numbers[::_AT_ONCE]):
            for pixels, rows in chunks:
                row = rows[:, 1:].numpy()
                row[row[:, 0] >= 0, 0] += end
                index[rows[:, 0].numpy()] = row
                file.write(pixels.numpy().data)
                end += len(pixels)
    finally:
        feed.close()
    return index


class _Nameless:
    """A file in memory, which goes with the last process that maps it; without Linux one on the disk, gone with this.

    `path` opens it as long as this is kept, in other processes of this machine too.
    """

    def __init__(self) -> None:
        self._temporary = not hasattr(os, "memfd_create")
        if self._temporary:
            self.number, self.path = tempfile.mkstemp()
        else:
            self.number = os.memfd_create("decoded images")
            self.path = f"/proc/{os.getpid()}/fd/{self.number}"

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)
            if self._temporary:
                os.unlink(self.path)


def _decode_privately(write: Callable[[BinaryIO], NDArray[np.int64]]) -> DecodedPictures:
    nameless = _Nameless()
    with write_failures(Path(nameless.path)), os.fdopen(nameless.number, "wb", closefd=False) as file:
        index = write(file)
    return DecodedPictures(nameless.path, index, owner=nameless)


def _mapped(path: str) -> NDArray[np.uint8]:
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        # copied where it is written to, which nothing here does: torch refuses memory that is only to be read
        mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY) if size else bytearray()
    return np.frombuffer(mapped, dtype=np.uint8)


def _open(place: Path) -> DecodedPictures | None:
    """Return what lies in the folder, None if there is nothing that is whole."""
    try:
        index = np.load(place / _INDEX, allow_pickle=False)
        size = int((3 * index[:, 1] * index[:, 2])[index[:, 0] >= 0].sum())
        if index.shape[1] == _COLUMNS and (place / _PIXELS).stat().st_size == size:
            return DecodedPictures(str(place / _PIXELS), index)
    except (OSError, EOFError, ValueError, IndexError):
        pass
    return None


def _digest(source: ImageSource, transform: StagedTransform) -> str:
    """Return a name for what is decoded: of the source, of what is done to it, and of the packages that do it."""
    digest = hashlib.blake2b(digest_size=16)
    for line in (transform.fixed_key(), PIL.__version__, torchvision.__version__, *source.fingerprint()):
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


@contextmanager
def _alone(folder: Path, lock: str) -> Iterator[None]:
    """Let one process at a time write into the folder; the lock goes with a process that is killed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / lock, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise SurgeonError(
            f"decoded images can't be kept in {folder}: {error.strerror or error}",
            hint="name another folder, or none: then each run decodes for itself",
        ) from error
    try:
        locking.lock(descriptor, wait=True)
        yield
    finally:
        locking.unlock(descriptor)
