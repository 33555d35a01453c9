"""Texts joined to one row of tokens and cut into blocks, which are the samples of a language model.

Shapes: L tokens of a block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spgsurgeon.data.sources.records.corpus import UNIT
from spgsurgeon.data.sources.source import Source, short_hash
from spgsurgeon.errors import DataError, UsageError, first_line
from spgsurgeon.models import TextPreprocessing

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_AT_ONCE = 1024  # texts
_FEWEST = 2  # tokens of a block: one to predict, and one to predict it from


class Block(NamedTuple):
    """What the model reads: tokens, int64 [L], and which of them are around texts, not of them, bool [L]."""

    tokens: NDArray[np.int64]
    around: NDArray[np.bool_]


class Frame(NamedTuple):
    """Tokens that are `before` and `after` each block, and `behind` each text."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    behind: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Blocks:
    """See `Source`: its samples are a `Block` each, and have no label. The last one may be shorter."""

    name: str
    tokens: NDArray[np.int32]
    room: int
    """How many of the tokens are in a block, those before and after it not counted."""
    frame: Frame
    notes: tuple[str, ...] = ()

    classes = (UNIT,)

    def __len__(self) -> int:
        whole, rest = divmod(len(self.tokens), self.room)
        return whole + (rest >= _FEWEST)

    def read(self, index: int) -> tuple[Any, int]:
        """See `Source`."""
        own = self.tokens[index * self.room : (index + 1) * self.room]
        tokens = np.concatenate([self.frame.before, own, self.frame.after]).astype(np.int64)
        return Block(tokens, np.isin(tokens, [number for part in self.frame for number in part])), 0

    def labels(self) -> NDArray[np.int64]:
        """See `ImageSource`: a block has no class."""
        return np.zeros(len(self), dtype=np.int64)

    def describe(self, index: int) -> str:
        """See `Source`."""
        return f"{self.name}, block {index}"

    def file_paths(self) -> Iterable[str]:
        """See `Source`: what was read is in memory."""
        return ()

    def marks(self) -> Iterable[str]:
        """See `Source`."""
        return [short_hash(self.tokens.tobytes())]

    def fingerprint(self) -> Iterable[str]:
        """See `ImageSource`."""
        return self.marks()


def blocks_of(source: Source[Any], preprocessing: TextPreprocessing, *, framed: bool) -> Source[Any]:
    """Return the blocks of a source of texts, of as many tokens as the model reads; blocks stay as they are.

    Each text is followed by what the tokenizer puts behind one, else by the token that ends a text for the model. What
    it puts before one is before each block, and with `framed` what it puts behind one is after each block, too. Raises
    DataError if there is no token, or one that the model does not know, UsageError for blocks too short for two tokens.
    """
    if isinstance(source, Blocks):
        return source
    tokenizer = preprocessing.tokenizer()
    texts: list[Any] = [source.read(index)[0] for index in range(len(source))]
    frame = _frame(tokenizer, texts[0], preprocessing.end, framed)
    room = preprocessing.max_length - len(frame.before) - len(frame.after)
    if room < _FEWEST:
        raise UsageError(
            f"a block of {preprocessing.max_length} tokens has room for {max(room, 0)} of the texts'",
            hint="data.max_length (eval: --max-length) says how long a block is",
            code="too-short",
        )
    tokens = np.fromiter(_joined(tokenizer, texts, frame.behind), dtype=np.int32)
    if len(tokens) < _FEWEST + len(frame.behind):
        raise DataError(f"the texts of {source.name} have no two tokens", code="no-text")
    preprocessing.check_known(int(tokens.max()))
    found = Blocks(source.name, tokens, room, frame)
    return Blocks(source.name, tokens, room, frame, (*source.notes, _said(found, len(texts), preprocessing)))


def _frame(tokenizer: Tokenizer, text: str, end: int | None, framed: bool) -> Frame:
    """Return the frame by what the tokenizer adds to a text; `end` is the token that ends one for the model."""
    (encoding,) = _encoded(tokenizer, [text], add_special_tokens=True)
    added = encoding.special_tokens_mask
    first = len(list(takewhile(bool, added)))
    last = len(added) - len(list(takewhile(bool, reversed(added[first:]))))
    before, after = tuple(encoding.ids[:first]), tuple(encoding.ids[last:])
    ends = () if end is None else (end,)
    return Frame(before, after if framed else (), after or ends)


def _joined(tokenizer: Tokenizer, texts: Sequence[str], behind: tuple[int, ...]) -> Iterator[int]:
    for first in range(0, len(texts), _AT_ONCE):  # what the library keeps of a text takes much more than its tokens
        for encoding in _encoded(tokenizer, texts[first : first + _AT_ONCE], add_special_tokens=False):
            yield from encoding.ids
            yield from behind


def _encoded(tokenizer: Tokenizer, texts: Sequence[str], *, add_special_tokens: bool) -> list[Any]:
    try:
        found: list[Any] = tokenizer.encode_batch(list(texts), add_special_tokens=add_special_tokens)
    except Exception as error:  # whatever a text, or a damaged tokenizer, trips in it
        raise DataError(f"the tokenizer can't read the texts: {first_line(error)}", code="unreadable-text") from error
    return found


def _said(blocks: Blocks, texts: int, preprocessing: TextPreprocessing) -> str:
    rest = len(blocks.tokens) % blocks.room
    shorter = f", the last one shorter ({rest} of the texts')" if rest >= _FEWEST else ""
    return (
        f"the {texts} texts of {blocks.name} have {len(blocks.tokens)} tokens, and make {len(blocks)} blocks of "
        f"{preprocessing.max_length}{shorter} (data.max_length; eval: --max-length)"
    )
