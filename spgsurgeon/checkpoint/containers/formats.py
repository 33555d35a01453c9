"""Which kind of file this is, from its first bytes; a suffix only says what it was meant to be."""

from __future__ import annotations

import codecs
import io
import re
from pathlib import Path
from typing import Literal

from spgsurgeon.checkpoint.containers.headers import HEADER_LIMIT
from spgsurgeon.checkpoint.pickle.pickles import read_pickle
from spgsurgeon.errors import DamagedFileError, SurgeonError, UnsafeInputError, UsageError

Format = Literal["safetensors", "torch-zip", "torch-legacy"]

WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".tar")

# torch.save before 1.6 begins with its magic number, pickled: PROTO n, from protocol 4 on a frame and its length in
# eight bytes, LONG1 of ten bytes.
_LEGACY_MAGIC = re.compile(rb"\x80.(\x95.{8})?\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\.", re.DOTALL)
_ZERO_NAME = "zero_pp_rank_"
_PICKLE_SUFFIXES = (*WEIGHT_SUFFIXES, ".pkl", ".pickle", "")
_SCANNED = 16 * 2**20  # bytes of an unknown file that are looked at as a pickle
_OTHER_KINDS = {
    b"\x89HDF\r\n\x1a\n": ("an HDF5 file (Keras)", "convert it to a torch state dict first"),
    b"\x1f\x8b": ("gzip-compressed", "unpack it with gunzip first"),
    b"BZh": ("bzip2-compressed", "unpack it with bunzip2 first"),
    b"\xfd7zXZ\x00": ("xz-compressed", "unpack it with unxz first"),
    b"7z\xbc\xaf\x27\x1c": ("a 7-zip archive", "unpack it first"),
    b"\x93NUMPY": ("a NumPy array", "give the torch or safetensors weights"),
    b"GGUF": ("a GGUF file", "give the torch or safetensors weights"),
}


def format_of(path: Path) -> Format:
    """Return the format of the weights file, by content.

    Raises UsageError where there is no file or it is of another kind, DamagedFileError where it is empty, cut off
    before it can be recognised, or the leftover of a failed download, UnsafeInputError where it is a pickle that
    asks for more than weights need.
    """
    head = _first_bytes(path, 512)
    if _ZERO_NAME in path.name:
        raise zero_share(path)
    if head.startswith(b"PK\x03\x04"):
        return "torch-zip"
    if _LEGACY_MAGIC.match(head):
        return "torch-legacy"
    header_length = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and 0 < header_length <= HEADER_LIMIT:
        return "safetensors"
    raise _refusal(path, head)


def zero_share(path: Path) -> UsageError:
    """Return the refusal of what one process of a DeepSpeed ZeRO training wrote: slices of the weights, joined flat."""
    return UsageError(
        f"{path} is one process's share of a DeepSpeed ZeRO training, not whole weights",
        hint="join them first: python zero_to_fp32.py . OUTPUT, in the folder above, where DeepSpeed wrote the script",
    )


def _first_bytes(path: Path, count: int) -> bytes:
    if path.is_dir():
        raise UsageError(f"{path} is a folder, not a weights file")
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is a pipe or a device, not a file", hint="write it to a file first")
    try:
        with path.open("rb") as file:
            return file.read(count)
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}", hint="check the path") from None
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from error


def _refusal(path: Path, head: bytes) -> SurgeonError:
    if not head:
        return DamagedFileError(f"{path} is empty", hint="copy or download it again")
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        return DamagedFileError(
            f"{path} is a Git LFS pointer, not the weights", hint="run `git lfs pull` where it lies"
        )
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return DamagedFileError(f"{path} is a web page: a download failed", hint="download it again")
    if head[257:262] == b"ustar":
        return UsageError(
            f"{path} is a tar archive, not weights",
            hint="unpack it; if torch below 0.2 wrote it, load and save it anew",
        )
    for magic, (kind, hint) in _OTHER_KINDS.items():
        if head.startswith(magic):
            return UsageError(f"{path} is {kind}, not weights that can be read here", hint=hint)
    if path.suffix.lower() not in _PICKLE_SUFFIXES and _is_text(head):  # its letters can read like old instructions
        return _no_weights(path)
    return _unknown(path)


def _unknown(path: Path) -> SurgeonError:
    """Return the refusal of what may be a pickle, a damaged file or anything."""
    try:
        read_pickle(path, io.BytesIO(_first_bytes(path, _SCANNED)))
    except DamagedFileError:
        if path.suffix in WEIGHT_SUFFIXES:
            return DamagedFileError(
                f"{path} is damaged or no weights file: it does not begin like one",
                hint="copy or download it again",
            )
        return _no_weights(path)
    except UnsafeInputError as error:
        no_names = all(name.startswith("<instruction ") for name in error.details.get("unsafe", []))
        if no_names and path.suffix not in WEIGHT_SUFFIXES:  # a picture, say, whose bytes look like odd instructions
            return _no_weights(path)
        raise
    return UsageError(
        f"{path} is a plain pickle, not written by torch.save",
        hint="save the state dict with torch.save or safetensors",
    )


def _no_weights(path: Path) -> UsageError:
    return UsageError(f"{path} is no weights file", hint=f"known are {' '.join(WEIGHT_SUFFIXES)}")


def _is_text(head: bytes) -> bool:
    """Whether the first bytes of a file are printable; the last character may be cut off."""
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\t\n\r\f" for character in text)
