"""From texts to a model's numbers, and to batches whose shorter samples are filled up.

Shapes: B samples in a batch, L = the most tokens of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from spgsurgeon.data.loading.samples import Batch, Collate, Inputs, Loaded, Prepared
from spgsurgeon.data.sources.traits import Traits
from spgsurgeon.errors import DataError, first_line
from spgsurgeon.models import TextPreprocessing

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

Padding = Mapping[str, float]
"""What fills up the inputs of a name."""
_IDS, _MASK, _SEGMENTS = "input_ids", "attention_mask", "token_type_ids"
_LONGER = "data.max_length says how many are read"
_STRATEGIES = ("longest_first", "only_first", "only_second")


class Encoder:
    """Turns texts into tokens, at most as many as the model takes; made anew in each loader worker.

    `cuts` says which of two texts is cut: the longer one first, or only the first or the second. `words` says that
    texts are given in words: they get the tokens that they have after a space, where a tokenizer makes a difference.
    """

    def __init__(self, preprocessing: TextPreprocessing, cuts: str = "longest_first", *, words: bool = False) -> None:
        assert cuts in _STRATEGIES
        self._preprocessing, self._cuts, self._words = preprocessing, cuts, words
        self._tokenizer: Tokenizer | None = None

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_tokenizer": None}

    def encode(self, text: str | Sequence[str], pair: str | None = None) -> tuple[Encoding, Traits]:
        """Return the tokens of one text, or of two that are read together, and what is worth saying of them.

        A text may be given in words. Raises DataError for a longer one if these are refused, and for one without a
        token.
        """
        tokenizer = self._made()
        try:
            found = tokenizer.encode(text, pair, is_pretokenized=not isinstance(text, str))
        except Exception as error:  # of a type of its own, if the part that is not cut leaves no room for the other
            most = self._preprocessing.max_length
            raise DataError(f"it can't be brought to {most} tokens: {first_line(error)}", hint=_LONGER) from error
        cut = bool(found.overflowing)
        if cut and self._preprocessing.stops_at_longer:
            raise DataError(
                f"it has more than {self._preprocessing.max_length} tokens",
                hint="data.too_long=cut reads the first ones, counted and said",
            )
        if not found.ids:
            raise DataError("it has no token: the text is empty")
        parts = [text, *([] if pair is None else [pair])]
        empty = any(not (part.strip() if isinstance(part, str) else part) for part in parts)
        return found, (Traits.CUT if cut else Traits(0)) | (Traits.EMPTY if empty else Traits(0))

    def inputs(self, encoding: Encoding) -> Inputs:
        """Return what the model reads of the tokens, each int64 [L]."""
        self._preprocessing.check_known(max(encoding.ids))
        found = token_inputs(torch.tensor(encoding.ids), segments=self._preprocessing.segments)
        if self._preprocessing.segments:
            found[_SEGMENTS] = torch.tensor(encoding.type_ids)
        return found

    def _made(self) -> Tokenizer:
        if self._tokenizer is None:
            self._tokenizer = self._preprocessing.tokenizer()
            self._tokenizer.enable_truncation(self._preprocessing.max_length, strategy=self._cuts)
            if self._words and hasattr(self._tokenizer.pre_tokenizer, "add_prefix_space"):
                self._tokenizer.pre_tokenizer.add_prefix_space = True
        return self._tokenizer


def token_inputs(tokens: Tensor, *, segments: bool) -> Inputs:
    """Return what a model reads of the tokens of one text, int64 [L], without any padding."""
    found = {_IDS: tokens, _MASK: torch.ones_like(tokens)}
    return found | ({_SEGMENTS: torch.zeros_like(tokens)} if segments else {})


class LabelledTextTransform:
    """Makes the inputs of a text, or of a pair of them."""

    def __init__(self, preprocessing: TextPreprocessing) -> None:
        self._encoder = Encoder(preprocessing)

    def __call__(self, text: Sequence[str]) -> Prepared:
        """Return the inputs, each int64 [L]."""
        encoding, traits = self._encoder.encode(*text)
        return Prepared(self._encoder.inputs(encoding), traits=traits)


def text_padding(preprocessing: TextPreprocessing) -> Padding:
    """Return what fills up the inputs of a model of texts."""
    return {_IDS: preprocessing.pad, _MASK: 0, _SEGMENTS: 0}


def batches_padded(padding: Padding, target: int = -100) -> Collate:
    """Return what makes one batch of samples whose inputs are filled up at their ends to the longest of the batch.

    Targets that are tensors are filled up with `target`, which is not counted.
    """

    def collate(items: list[Loaded]) -> list[Batch]:
        if not items:
            return []
        inputs = {name: stacked([item.inputs[name] for item in items], padding[name]) for name in items[0].inputs}
        targets = [torch.as_tensor(item.target) for item in items]
        samples = torch.tensor([item.index for item in items])
        return [Batch(inputs, stacked(targets, target), samples)]

    return collate


def stacked(tensors: Sequence[Tensor], value: float) -> Tensor:
    """Return tensors [..., L] of several lengths as one, [B, ..., L]."""
    if not tensors[0].dim():
        return torch.stack(list(tensors))
    lengths_first = [tensor.movedim(-1, 0) for tensor in tensors]
    return pad_sequence(lengths_first, batch_first=True, padding_value=value).movedim(1, -1).contiguous()
