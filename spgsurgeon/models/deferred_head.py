"""Models whose logits are too many to exist at once: what enters the layer that makes them comes out in their place.

Shapes: N samples of L tokens, D = width of a hidden state, V = words of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from spgsurgeon.errors import ArchitectureError
from spgsurgeon.models.sites.transformers_heads import head_of_class


@contextmanager
def head_deferred(model: nn.Module) -> Iterator[Callable[[Tensor], Tensor]]:
    """Have a language model of transformers give hidden states [N, L, D] as its logits inside the block.

    Yields what makes logits [n, V] of n of them, [n, D], inside the block and after it. Hooks on that layer see what
    they saw before, so the hidden states of a grafted model are those of all its steps. Raises ArchitectureError for a
    class that is not in the table of heads.
    """
    head = head_of_class(type(model))
    if head is None:
        raise ArchitectureError(f"which layer of a {type(model).__name__} makes its logits is not known")
    layer = model.get_submodule(head.logits)
    compute: Callable[[Tensor], Tensor] = layer.forward
    layer.forward = _as_it_came  # an attribute of this one layer, before its class's own
    try:
        yield compute
    finally:
        del layer.forward


def _as_it_came(hidden: Tensor) -> Tensor:
    return hidden
