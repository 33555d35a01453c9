"""What a model is, told apart from its weights: enough to build the same module again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

    from spgsurgeon.models.sample_preprocessing import SamplePreprocessing


@dataclass(frozen=True)
class Identity:
    """A library, one of its architectures, and how it was built.

    `model_args` are further keyword arguments of the library's own factory; `pretrained_cfg` is timm's description of
    the weights (None: the library's default for that architecture), kept as it was found but for where they come from.
    Both may be from a stranger's file. As modules are built from identities alone, none exists with arguments that
    `arguments` does not list: UnsafeInputError, or DamagedFileError for a value out of bounds.
    """

    library: str
    architecture: str
    num_classes: int
    model_args: dict[str, Any] = field(default_factory=dict)
    pretrained_cfg: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        from spgsurgeon.models.libraries.arguments import (  # pydantic takes its time
            checked_arguments,
            checked_description,
        )

        object.__setattr__(self, "model_args", checked_arguments(self.library, self.model_args))
        object.__setattr__(self, "pretrained_cfg", checked_description(self.pretrained_cfg or {}) or None)

    @property
    def name(self) -> str:
        """The MODEL form of the command line, without a weights tag."""
        return f"{self.library}/{self.architecture}"


Converter = Callable[[dict[str, "Tensor"], "nn.Module"], Mapping[str, "Tensor"]]
"""Takes tensors by their authors' keys, and the model that they are for."""


class Library(Protocol):
    """What this package needs to know of a model library. One implementation a file, listed in `libraries.py`."""

    name: str

    def architectures(self) -> list[str]:
        """Return the names of all image classifiers and segmentation models, sorted."""
        ...

    def task(self, architecture: str) -> str:
        """Return the name of the task that the architecture is for, see `tasks`."""
        ...

    def default_classes(self, architecture: str) -> int:
        """Return the number of classes the library builds without being asked."""
        ...

    def build(self, identity: Identity) -> nn.Module:
        """Return the module with random weights. Raises ArchitectureError if the library can't build it."""
        ...

    def pretrained(self, architecture: str, tag: str | None) -> tuple[nn.Module, Identity]:
        """Return the module with the library's weights (None: its default ones), through the library's own cache."""
        ...

    def hub_id(self, architecture: str, identity: Identity) -> str | None:
        """Return the Hub's name of the weights that `pretrained` gave for `architecture`; None if they aren't there."""
        ...

    def args_from_tensors(self, identity: Identity, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return the factory arguments, beyond the number of classes, that the shapes of a checkpoint call for."""
        ...

    def converters(self, architecture: str) -> Iterable[Converter]:
        """Return what the library itself turns weights of others into its own with, likeliest first."""
        ...

    def preprocessing(
        self, identity: Identity, module: nn.Module, companions: Sequence[Path] = ()
    ) -> SamplePreprocessing:
        """Return how the model wants its samples; `companions` lie beside its weights."""
        ...

    def config(self, identity: Identity, module: nn.Module, label_names: list[str] | None) -> dict[str, Any]:
        """Return the JSON document `config.json` that stands beside the weights."""
        ...

    def builder_arguments(self, identity: Identity, outputs: int) -> dict[str, Any]:
        """Return what the library's own builder must be told, besides the number of classes, for these `outputs`."""
        ...

    def identity_from_config(self, config: Mapping[str, Any]) -> Identity:
        """Return what a `config.json` says. Raises ArchitectureError if it names nothing this library has."""
        ...

    def identity_from_checkpoint(self, architecture: str, model_args: Mapping[str, Any]) -> Identity:
        """Return how a training script built `architecture`, from the arguments that its checkpoint recorded.

        `architecture` may carry the tag of the weights that training started from, whose preprocessing it then kept.
        `model_args` are named as timm's factory names them, any of: num_classes, in_chans, img_size (pixels),
        input_size (channels, height, width), global_pool, mean, std, interpolation, crop_pct, crop_mode, model_kwargs
        (a mapping of further ones, which win).
        """
        ...
