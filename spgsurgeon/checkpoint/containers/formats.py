"""Which kind of file this is, from its first bytes; a suffix only says what it was meant to be."""

from __future__ import annotations

import codecs
import io
import re
from pathlib import PurePath
from typing import BinaryIO, Literal

from spgsurgeon.checkpoint.containers.headers import HEADER_LIMIT
from spgsurgeon.checkpoint.pickle.pickles import read_pickle
from spgsurgeon.checkpoint.refusals import MalformedError, UnreadableError, UnsafeError
from spgsurgeon.errors import SurgeonError

Format = Literal["safetensors", "torch-zip", "torch-legacy"]

WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".tar")

# torch.save before 1.6 begins with its magic number, pickled: PROTO n, from protocol 4 on a frame and its length in
# eight bytes, LONG1 of ten bytes.
_LEGACY_MAGIC = re.compile(rb"\x80.(\x95.{8})?\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\.", re.DOTALL)
_ZERO_NAME = "zero_pp_rank_"
_PICKLE_SUFFIXES = (*WEIGHT_SUFFIXES, ".pkl", ".pickle", "")
_HEAD = 512  # bytes that tell the kinds apart
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


def format_of(file: BinaryIO, name: str) -> Format:
    """Return the format of the weights in an open file, by content; its name only helps to refuse it in fitting words.

    Raises UnreadableError if it is of another kind, MalformedError where it is empty, cut off before it can be
    recognised, or the leftover of a failed download, UnsafeError where it is a pickle that asks for more than weights
    need.
    """
    if _ZERO_NAME in name:
        raise zero_share()
    head = file.read(_HEAD)
    if head.startswith(b"PK\x03\x04"):
        return "torch-zip"
    if _LEGACY_MAGIC.match(head):
        return "torch-legacy"
    header_length = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and 0 < header_length <= HEADER_LIMIT:
        return "safetensors"
    raise _refusal(head) or _unknown(head + file.read(_SCANNED), PurePath(name).suffix)


def zero_share() -> UnreadableError:
    """Return the refusal of what one process of a DeepSpeed ZeRO training wrote: slices of the weights, joined flat."""
    return UnreadableError(
        "is one process's share of a DeepSpeed ZeRO training, not whole weights",
        hint="join them first: python zero_to_fp32.py . OUTPUT, in the folder above, where DeepSpeed wrote the script",
        code="partial-weights",
    )


def _refusal(head: bytes) -> SurgeonError | None:
    """Return what to say of a file that certainly is of another kind, by its first bytes."""
    if not head:
        return MalformedError("it is empty", code="empty-file")
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        return MalformedError("it is a Git LFS pointer", hint="run `git lfs pull` where it lies", code="lfs-pointer")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return MalformedError("it holds a web page, so a download failed", hint="download it again", code="web-page")
    if head[257:262] == b"ustar":
        return UnreadableError(
            "is a tar archive, not weights", hint="unpack it; if torch below 0.2 wrote it, load and save it anew"
        )
    for magic, (kind, hint) in _OTHER_KINDS.items():
        if head.startswith(magic):
            return UnreadableError(f"is {kind}, not weights that can be read here", hint=hint)
    return None


def _unknown(content: bytes, suffix: str) -> SurgeonError:
    """Return what to say of a file that may be a pickle, damaged or anything."""
    no_weights = UnreadableError("is not a weights file", hint=f"known are {' '.join(WEIGHT_SUFFIXES)}")
    if suffix.lower() not in _PICKLE_SUFFIXES and _is_text(content[:_HEAD]):  # letters can read like old instructions
        return no_weights
    try:
        read_pickle(io.BytesIO(content))
    except MalformedError:
        known = suffix in WEIGHT_SUFFIXES
        return MalformedError("it does not begin like a weights file, and may not be one") if known else no_weights
    except UnsafeError as error:
        no_names = all(name.startswith("<instruction ") for name in error.details.get("unsafe", []))
        # an image, say, whose bytes look like odd instructions
        return no_weights if no_names and suffix not in WEIGHT_SUFFIXES else error
    return UnreadableError(
        "is a plain pickle, not written by torch.save", hint="save the state dict with torch.save or safetensors"
    )


def _is_text(head: bytes) -> bool:
    """Whether the first bytes of a file are printable; the last character may be cut off."""
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head)
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\t\n\r\f" for character in text)
