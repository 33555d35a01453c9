"""A model as somebody asks for it, in one piece from the command line to where it is opened."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class ModelRequest:
    """The MODEL of a command (contract: "Naming a model"), and what is said of it beside its name."""

    model: str
    """A model by name, a weights file, or a folder."""
    weights: str | None = None
    """`ema`, `raw`, or the name of one set of several in a file; None: the moving average if there is one, said."""
    arch: str | None = None
    """The architecture of weights that don't say it and whose keys and shapes leave a choice: `timm/resnet50`."""
    num_classes: int | None = None
    """If it is not the model's own number, the model gets a new, untrained head."""
    random_seed: int | None = None
    """Random weights for a model by name, instead of its pretrained ones, drawn by this seed."""
    image_size: tuple[int, int] | None = None
    """Height and width in pixels that the model of a bare file was built for; None: what its weights call for."""
    map_keys: str | None = None
    """`by-order`: the weights of a file have other keys, and are the model's by their order and shapes; None: by keys
    or, if these are others, by a converter of the model's library."""
    task: str | None = None
    """What a model of transformers is for, if its config.json says another task or none: it gets a new head for it."""

    graphs: bool = False
    """Whether an ONNX graph will do, which can only be scored."""

    def for_data_of(self, classes: int, *, new_head: bool = False) -> ModelRequest:
        """Return the request for data of so many classes, unless a number was given.

        Random weights have as many; with `new_head` so has any model, by a new head where it has others.
        """
        if self.num_classes is not None or (self.random_seed is None and not new_head):
            return self
        return replace(self, num_classes=classes)
