"""From a block of tokens to what a language model reads and predicts.

Shapes: L tokens of a block.
"""

from __future__ import annotations

import torch

from spgsurgeon.data.loading.samples import Prepared
from spgsurgeon.data.sources.records.blocks import Block
from spgsurgeon.data.transforms.texts import token_inputs
from spgsurgeon.models import TextPreprocessing
from spgsurgeon.objective import shift_labels

_NO_LABEL = -100
_HIDDEN, _REPLACED = 0.8, 0.1  # of the tokens that are to be predicted, as BERT has it; the rest is as it was


class NextTokenTransform:
    """Makes the inputs of a block, and its target, int64 [L]: at each token the next one, -100 at the last."""

    def __init__(self, preprocessing: TextPreprocessing) -> None:
        self._segments = preprocessing.segments

    def __call__(self, block: Block) -> Prepared:
        """Return the inputs, each int64 [L], and the target."""
        tokens = torch.from_numpy(block.tokens)
        return Prepared(token_inputs(tokens, segments=self._segments), shift_labels(tokens, _NO_LABEL))


class MaskedTokenTransform:
    """Makes the inputs of a block of which some tokens are hidden, and its target, int64 [L]: -100 at all others.

    Each token of the texts is one of them with the `probability`; 8 of 10 are replaced by the mask and 1 of 10 by any
    token (BERT, arXiv 1810.04805). Random numbers come from torch's CPU generator.
    """

    def __init__(self, preprocessing: TextPreprocessing, probability: float) -> None:
        assert preprocessing.vocabulary is not None
        self._segments, self._vocabulary = preprocessing.segments, preprocessing.vocabulary
        self._mask, self._probability = preprocessing.mask_token(), probability

    def __call__(self, block: Block) -> Prepared:
        """Return the inputs, each int64 [L], and the target."""
        tokens, drawn = torch.from_numpy(block.tokens), torch.rand(2, len(block.tokens))
        chosen = (drawn[0] < self._probability) & ~torch.from_numpy(block.around)
        others = torch.randint(self._vocabulary, tokens.shape)
        seen = torch.where(chosen & (drawn[1] < _HIDDEN), self._mask, tokens)
        seen = torch.where(chosen & (drawn[1] >= 1 - _REPLACED), others, seen)
        return Prepared(token_inputs(seen, segments=self._segments), torch.where(chosen, tokens, _NO_LABEL))
