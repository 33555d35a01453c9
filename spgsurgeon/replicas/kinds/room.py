"""Whether the weights of replicas fit in memory, which is asked first: those of a wide head can outgrow the base."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from spgsurgeon.errors import SurgeonError
from spgsurgeon.runtime import free_on

if TYPE_CHECKING:
    from spgsurgeon.replicas.kinds.kind import HeadReplicas
    from spgsurgeon.replicas.places import Place


def check_room(replicas: HeadReplicas, head: nn.Module, place: Place) -> None:
    """Raise SurgeonError, with the bytes, if replicas of what enters `head` take more than its device has left."""
    width = place.width or getattr(head, "in_features", None) or getattr(head, "in_channels", None)
    if width is None:
        return  # the kind says what it can't attach to
    parameter = next(head.parameters())
    needed = replicas.length * replicas.parameters_of_one(width) * parameter.element_size()
    free = free_on(parameter.device)
    if free is not None and needed > free:
        raise SurgeonError(
            f"{replicas.length} {replicas.kind} replicas of what {place.module!r} reads, which is {width:,} wide, have "
            f"weights of {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free ({parameter.device})",
            hint="without projections (trp.projection=false; graft --set projection=false) they have none; "
            "or fewer replicas",
            code="no-room",
        )
