"""Where replicas attach: to what enters a module of the base, or to what leaves it.

D = width of the hidden state there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Place:
    """What enters (`side` "input") or leaves ("output") the submodule `module` of a base: the hidden state.

    Of several maps that enter by name, `key` is the name of this one. `width` is D where the hidden state is a map
    [N, D, H, W]; it may be left out where the module is the layer that makes the logits, whose own width it is.
    `normalisations` are the batch norms after an output; those inside a module that is entered are found.

    `again`: replicas of an output run the module again, each its own way, so they get what entered it beside. Of the
    module's `calls` in one pass it is the one of number `call`. `beside`: they get what else entered the module, such
    as a mask.

    `axis`: of a mesh, the axis whose replicas are here. Axis 0 acts last, on what the others have stacked.
    """

    module: str
    side: Literal["input", "output"] = "input"
    key: str | None = None
    width: int | None = None
    normalisations: tuple[str, ...] = ()
    again: bool = False
    call: int = 0
    calls: int = 1
    axis: int = 0
    beside: bool = False

    @property
    def name(self) -> str:
        """What to call it: `fc`, `classifier[low]`, or `fc (axis 2)`."""
        name = self.module if self.key is None else f"{self.module}[{self.key}]"
        return f"{name} (axis {self.axis + 1})" if self.axis else name
