"""From a question and the text that answers it to a model's numbers, and to the tokens at which the answer lies.

Shapes: L tokens of question and context together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spgsurgeon.data.loading.samples import Prepared
from spgsurgeon.data.sources.records.questions import Answers, Asked
from spgsurgeon.data.sources.traits import Traits
from spgsurgeon.data.transforms.texts import Encoder
from spgsurgeon.models import TextPreprocessing

if TYPE_CHECKING:
    from tokenizers import Encoding

_NOWHERE = -100


class QuestionTransform:
    """Makes the inputs of a question and its context, of which the end is cut if both are too long.

    The target is int64 [2], the tokens at which the first answer starts and ends, or -100 twice if it was cut away.
    With `scores` it is [2, 1 + L]: behind these the characters of the context at which each token starts and ends, -1
    for a token that is not of the context.
    """

    def __init__(self, preprocessing: TextPreprocessing, *, scores: bool = False) -> None:
        self._encoder, self._scores = Encoder(preprocessing, "only_second"), scores

    def __call__(self, asked: Asked, answers: Answers) -> Prepared:
        """Return the inputs, each int64 [L], and the target."""
        encoding, traits = self._encoder.encode(*asked)
        offsets = _offsets(encoding)
        start, end = answers.starts[0], answers.starts[0] + len(answers.texts[0])
        target = _tokens(offsets, start, end, cut=bool(traits & Traits.CUT))
        if int(target[0]) == _NOWHERE:
            traits |= Traits.LOST
        target = torch.cat([target[:, None], offsets], dim=1) if self._scores else target
        return Prepared(self._encoder.inputs(encoding), target, traits)


def _offsets(encoding: Encoding) -> Tensor:
    """Return the characters of the context at which tokens start and end, int64 [2, L]; -1 for other tokens."""
    pairs = [
        pair if part == 1 else (-1, -1) for pair, part in zip(encoding.offsets, encoding.sequence_ids, strict=True)
    ]
    return torch.tensor(pairs).T


def _tokens(offsets: Tensor, start: int, end: int, *, cut: bool) -> Tensor:
    """Return the first and the last token of the characters from `start` to before `end`, int64 [2].

    A token of several characters may hold more than the answer. Characters without a token don't count, unless the
    text was `cut`: then they may have been cut away.
    """
    places = ((offsets[1] > start) & (offsets[0] < end) & (offsets[0] < offsets[1])).nonzero()
    if not len(places) or (cut and int(offsets[1].max()) < end):
        return torch.tensor([_NOWHERE, _NOWHERE])
    return torch.cat([places[0], places[-1]])
