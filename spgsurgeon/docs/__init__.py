"""The guides: Markdown that ships with the package, shown by `spgsurgeon docs` and rendered by GitHub.

A guide is one file `TOPIC.md` in this folder. It begins with a title, and its first sentence says what it is about: the
list of topics shows that line. Nothing here imports more than the standard library.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files

from spgsurgeon.errors import UsageError, did_you_mean

__all__ = ["Guide", "guide", "guides"]

_SUFFIX = ".md"


@dataclass(frozen=True)
class Guide:
    """One guide: its topic, its first sentence, and the whole text as Markdown."""

    topic: str
    summary: str
    text: str


def guides() -> list[Guide]:
    """Return all guides by topic."""
    names = sorted(entry.name for entry in files(__name__).iterdir() if entry.name.endswith(_SUFFIX))
    return [_read(name.removesuffix(_SUFFIX)) for name in names]


def guide(topic: str) -> Guide:
    """Return the guide on `topic`, with or without `.md`. Raises UsageError for a topic that has none."""
    known = {found.topic: found for found in guides()}
    name = topic.lower().removesuffix(_SUFFIX)
    if name not in known:
        listed = f"topics: {', '.join(known)}"
        raise UsageError(f"there is no guide on {topic!r}", hint=did_you_mean(name, known) or listed)
    return known[name]


def _read(topic: str) -> Guide:
    text = (files(__name__) / f"{topic}{_SUFFIX}").read_text(encoding="utf-8")
    return Guide(topic, _first_sentence(text), text)


def _first_sentence(text: str) -> str:
    """Return the first sentence of the first paragraph under the title, on one line."""
    paragraph = text.split("\n\n")[1].replace("\n", " ")
    return re.split(r"(?<=[.?!]) ", paragraph.strip(), maxsplit=1)[0]
