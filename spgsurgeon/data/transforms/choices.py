"""From a question with choices to a model's numbers. Shapes: K choices, L = the most tokens of one."""

from __future__ import annotations

from functools import reduce
from operator import or_

from spgsurgeon.data.loading.samples import Prepared
from spgsurgeon.data.sources.records.choices import Choices
from spgsurgeon.data.transforms.texts import Encoder, stacked, text_padding
from spgsurgeon.models import TextPreprocessing


class ChoiceTransform:
    """Makes the inputs of a context with each of its choices."""

    def __init__(self, preprocessing: TextPreprocessing) -> None:
        self._encoder, self._padding = Encoder(preprocessing), text_padding(preprocessing)

    def __call__(self, asked: Choices) -> Prepared:
        """Return the inputs, each int64 [K, L]: shorter choices are filled up."""
        encoded = [self._encoder.encode(asked.context, choice) for choice in asked.choices]
        each = [self._encoder.inputs(encoding) for encoding, _ in encoded]
        inputs = {name: stacked([one[name] for one in each], self._padding[name]) for name in each[0]}
        return Prepared(inputs, traits=reduce(or_, (traits for _, traits in encoded)))
