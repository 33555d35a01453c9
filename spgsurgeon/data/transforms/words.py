"""From words with labels to a model's numbers: a label at the first token of each word, and none elsewhere.

Shapes: L tokens of a sentence.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from spgsurgeon.data.loading.samples import Prepared
from spgsurgeon.data.sources.traits import Traits
from spgsurgeon.data.transforms.texts import Encoder
from spgsurgeon.models import TextPreprocessing

_NO_LABEL = -100


class WordTransform:
    """Makes the inputs of a sentence in words, and its target, int64 [L]: -100 for tokens without a label."""

    def __init__(self, preprocessing: TextPreprocessing) -> None:
        self._encoder = Encoder(preprocessing, words=True)

    def __call__(self, words: tuple[str, ...], labels: NDArray[np.int64]) -> Prepared:
        """Return the inputs, each int64 [L], and the target."""
        encoding, traits = self._encoder.encode(words)
        owners = encoding.word_ids
        if not traits & Traits.CUT and len({*owners} - {None}) < len(words):
            traits |= Traits.EMPTY
        target = [
            _NO_LABEL if owner is None or owner == before else int(labels[owner])
            for owner, before in zip(owners, [None, *owners], strict=False)
        ]
        return Prepared(self._encoder.inputs(encoding), torch.tensor(target), traits)
