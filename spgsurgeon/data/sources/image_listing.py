"""Which files of a folder are taken for images, and how those that are not come to be said."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from spgsurgeon.data.sources.source import printable

_MOST_ENDINGS = 5
_PACKED_BY_MACOS = "__MACOSX"  # the folder of such files in archives


def is_hidden(name: str) -> bool:
    """Return whether a file or a folder is hidden: so are macOS's `._NAME`, notebooks' checkpoints, `.DS_Store`."""
    return name.startswith(".") or name == _PACKED_BY_MACOS


class LeftOut:
    """Tells which files below `root` are images (or another `kind`) by their `endings`, lower case, and counts others.

    Hidden files are left out as well, but only counted if they look like images: `._NAME`, which macOS writes beside
    NAME, does not.
    """

    def __init__(self, endings: Sequence[str], root: str | Path, kind: str = "image") -> None:
        self._kind = kind
        self._endings, self._root, self._start = frozenset(endings), str(root), len(str(root)) + 1
        self._others: Counter[str] = Counter()
        self._hidden = 0

    def takes(self, path: str | Path) -> bool:
        """Return whether a file is taken for one."""
        inside = str(path)[self._start :]
        ending = os.path.splitext(inside)[1].lower()
        if inside[0] == "." or f"{os.sep}." in inside or _PACKED_BY_MACOS in inside:  # cheap: data sets have millions
            self._hidden += ending in self._endings and "._" not in inside and _PACKED_BY_MACOS not in inside
            return False
        if ending in self._endings:
            return True
        self._others[ending or "without an ending"] += 1
        return False

    def notes(self) -> list[str]:
        """Return what to say of the files that were left out, if there are any."""
        said, where = [], printable(self._root)
        if self._others:
            kinds = [f"{count} {ending}" for ending, count in self._others.most_common(_MOST_ENDINGS)]
            rest = sum(self._others.values()) - sum(count for _, count in self._others.most_common(_MOST_ENDINGS))
            kinds += [f"{rest} with other endings"] if rest else []
            said.append(
                f"files in {where} that were left out, going by their endings: {printable(', '.join(kinds))} (read: "
                f"{', '.join(sorted(self._endings))})"
            )
        if self._hidden:
            kind, count = self._kind, self._hidden
            said.append(f"files in {where} that look like {kind}s and were left out, as they are hidden: {count}")
        return said
