"""Which tar files a split of WebDataset shards consists of: by `_info.json`, by folder, by prefix, or by a pattern."""

from __future__ import annotations

import glob
import itertools
import json
import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from spgsurgeon.data.sources.source import listing
from spgsurgeon.data.sources.tar_members import compressed
from spgsurgeon.errors import UsageError, did_you_mean

_INFO = ("_info.json", "info.json")
_REMOTE = re.compile(r"(?:^|::)\s*(?:pipe:|[A-Za-z][\w+.-]+:/)")
_COUNT = re.compile(r"(?<!:)[|:](\d+)$")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,18})\.\.(\d{1,18})")
_COMPRESSED = re.compile(r"\.(?:tgz|tar\.\w+)$")
_MOST_SHARDS = 1_000_000


@dataclass(frozen=True)
class Shards:
    """The tar files of a split in their order, and what is said of them: samples in each, in all, names of classes."""

    paths: tuple[Path, ...]
    lengths: tuple[int, ...] | None = None
    total: int | None = None
    class_names: tuple[str, ...] | None = None


def refuse_remote(place: str | Path | None) -> None:
    """Raise UsageError for a path or a split that names a URL or a command: these can't be read at random."""
    if place is not None and _REMOTE.search(str(place)):
        raise UsageError(
            f"{str(place)!r:.200} is a stream, which can't be read at random, so training could not resume exactly",
            hint="copy the shards into a folder, or mount the bucket as one, and give that as data.path",
        )


def find_shards(root: Path, split: str) -> Shards:
    """Return the shards in `root` that the split means, the first of these that is there.

    A split of `_info.json` or `info.json`; the tar files of the folder `root/split`; those named `split-*.tar`. Or a
    pattern: names with `{0000..0123}`, `{a,b}`, `*` and `?`, several of them joined by `::`, and with `|N` at the end,
    or `:N`, the number of samples in all. Raises UsageError if nothing is found, a shard is missing or compressed,
    or one is named twice.
    """
    refuse_remote(split)
    info = _read_info(root)
    splits: dict[str, Any] = info["splits"] if isinstance(info.get("splits"), dict) else {}
    if split in splits:
        shards = _by_info(root, split, splits[split])
    elif re.search(r"[{}*?]|::|\.tar\b|\.tgz\b", split):
        shards = _by_pattern(root, split)
    else:
        shards = Shards(_by_name(root, split, list(splits)))
    if twice := [str(path) for path, count in Counter(shards.paths).items() if count > 1]:
        raise UsageError(f"the split {split!r} names shards twice: {listing(twice)}")
    for path in shards.paths:
        if ending := _COMPRESSED.search(path.name):
            raise compressed(path, ending[0])
    return Shards(shards.paths, shards.lengths, shards.total, _class_names(info))


def _read_info(root: Path) -> dict[str, Any]:
    path = next((root / name for name in _INFO if (root / name).is_file()), None)
    if path is None:
        return {}
    try:
        info = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON: {error!s:.120}") from error
    return info if isinstance(info, dict) else {}


def _class_names(info: dict[str, Any]) -> tuple[str, ...] | None:
    names = info.get("class_names")
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _by_info(root: Path, split: str, said: Any) -> Shards:
    said = said if isinstance(said, dict) else {}
    names, lengths, total = (said.get(key) for key in ("filenames", "shard_lengths", "num_samples"))
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise UsageError(f"{_INFO[0]} in {root} has no filenames for its split {split!r}")
    refuse_remote("::".join(names))
    if outside := [name for name in names if PurePath(name).is_absolute() or ".." in PurePath(name).parts]:
        raise UsageError(
            f"{_INFO[0]} in {root} names shards outside that folder: {listing(outside)}",
            hint="link them into the folder, or give a pattern as the split",
        )
    if lengths is not None and (not _counts(lengths) or len(lengths) != len(names)):
        raise UsageError(f"{_INFO[0]} in {root} does not say a length for each shard of its split {split!r}")
    if total is not None and not _counts([total]):
        raise UsageError(f"{_INFO[0]} in {root} says {total!r} samples for its split {split!r}")
    return Shards(_existing(root, split, names), tuple(lengths) if lengths else None, total)


def _counts(numbers: Any) -> bool:
    return isinstance(numbers, list) and all(type(number) is int and number >= 0 for number in numbers)


def _by_pattern(root: Path, split: str) -> Shards:
    count = _COUNT.search(split)
    names: list[str] = []
    for pattern in split[: count.start() if count else None].split("::"):
        for name in _expanded(pattern, split):
            names += _matching(root, name) if re.search(r"[*?]", name) else [name]
    return Shards(_existing(root, split, names), total=int(count[1]) if count else None)


def _expanded(pattern: str, split: str) -> list[str]:
    """Return the names that a pattern with braces stands for."""
    fixed, braces = _BRACES.split(pattern)[::2], _BRACES.findall(pattern)
    if any("{" in part or "}" in part for part in fixed):
        raise UsageError(f"the braces in {split!r} don't match", hint="such as train-{0000..0123}.tar")
    choices = [_choices(brace, split) for brace in braces]
    if math.prod(len(alternatives) for alternatives in choices) > _MOST_SHARDS:
        raise UsageError(f"{split!r} stands for more than {_MOST_SHARDS:,} shards")
    return [
        fixed[0] + "".join(chosen + part for chosen, part in zip(combination, fixed[1:], strict=True))
        for combination in itertools.product(*choices)
    ]


def _choices(brace: str, split: str) -> Sequence[str]:
    if numbers := _RANGE.fullmatch(brace):
        first, last = int(numbers[1]), int(numbers[2])
        padded = any(text.startswith("0") and len(text) > 1 for text in numbers.groups())
        width = max(len(text) for text in numbers.groups()) if padded else 0
        if 0 <= last - first < _MOST_SHARDS:
            return [f"{number:0{width}}" for number in range(first, last + 1)]
        raise UsageError(f"the range {{{brace}}} in {split!r} has to go up, to at most {_MOST_SHARDS:,} shards")
    if "," in brace:
        return brace.split(",")
    raise UsageError(f"{{{brace}}} in {split!r} is neither a range nor a list", hint="such as {0000..0123} or {a,b}")


def _matching(root: Path, pattern: str) -> list[str]:
    found = sorted(path for path in glob.glob(os.path.join(glob.escape(str(root)), pattern)) if os.path.isfile(path))
    if not found:
        raise UsageError(f"no file matches {pattern!r} in {root}", hint=_what_is_there(root, pattern, []))
    return found


def _existing(root: Path, split: str, names: list[str]) -> tuple[Path, ...]:
    paths = tuple(root / name for name in names)
    if missing := [path for path in paths if not path.is_file()]:
        first = missing[0]
        present = _archives(first.parent) if first.parent.is_dir() else []
        there = f"{len(present)} tar files there: {listing([path.name for path in present])}" if present else None
        raise UsageError(
            f"{len(missing)} of the {len(paths)} shards of the split {split!r} are missing: "
            f"{listing([str(path) for path in missing], 3)}",
            hint=did_you_mean(first.name, [path.name for path in present]) or there or f"no tar file in {first.parent}",
        )
    return paths


def _by_name(root: Path, split: str, splits: list[str]) -> tuple[Path, ...]:
    folder = root / split
    paths = _archives(folder) if folder.is_dir() else []
    paths = paths or [path for path in _archives(root) if path.name.startswith(f"{split}-")]
    if not paths:
        raise UsageError(
            f"no shards for the split {split!r} in {root}: no {folder}/*.tar and no {split}-*.tar",
            hint=_what_is_there(root, split, splits),
        )
    return tuple(paths)


def _archives(folder: Path) -> list[Path]:
    """Return the tar files in a folder, compressed ones too: leaving these out without a word would be wrong."""
    paths = (path for path in folder.iterdir() if path.suffix == ".tar" or _COMPRESSED.search(path.name))
    return sorted(path for path in paths if not path.name.startswith(".") and path.is_file())


def _what_is_there(root: Path, split: str, splits: list[str]) -> str:
    """Return a hint naming the splits in `root` that the one asked for may be a slip for, else those that there are."""
    archives = _archives(root)
    names = {*splits, *(path.name.rpartition("-")[0] for path in archives if "-" in path.name)}
    names |= {entry.name for entry in root.iterdir() if entry.is_dir() and _archives(entry)}
    if names:
        return did_you_mean(split, names) or f"splits there: {listing(sorted(names), 10)}"
    if archives:
        return f"tar files there: {listing([path.name for path in archives])}; a pattern such as '*.tar' is a split too"
    return f"there is no tar file in {root}"
