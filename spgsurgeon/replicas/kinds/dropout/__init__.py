"""Dropout-TRP (arXiv 2506.15051, eq. 1-4): each replica drops a little more of what the head reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from spgsurgeon.replicas.kinds.dropout.dropping import Dropping

if TYPE_CHECKING:
    from torch import nn


class Dropout(Dropping):
    """Replicas that add up dropout."""

    kind: Literal["dropout"] = "dropout"
    """`dropout`: each replica drops a little more of what the head reads."""

    accepts: ClassVar[str | None] = "dropout rate"

    def dropout(self) -> nn.Module:
        """See `Dropping`: every element by itself."""
        from torch import nn

        return nn.Dropout(self.rate)
