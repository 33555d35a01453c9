"""A base model in memory, and what is known about where it came from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from spgsurgeon.checkpoint import GraftManifest
from spgsurgeon.loading.locating import Located
from spgsurgeon.loading.said_of_data import EVERYTHING, IGNORED, MAP, RANGE, VALUES
from spgsurgeon.models import (
    DepthSite,
    Identity,
    InnerSite,
    InnerSites,
    SamplePreprocessing,
    Site,
    depth_site_of,
    inner_sites_of,
    library,
    sites_of,
    with_dtype,
    with_labels,
)
from spgsurgeon.replicas.kinds import CONTROLS
from spgsurgeon.tasks import Task, task_named


@dataclass(frozen=True)
class OpenedModel:
    """A base model in memory (eval mode, CPU) and everything known about where it came from."""

    module: nn.Module
    identity: Identity
    source: str
    format: str
    located: Located | None = None
    label_names: list[str] | None = None
    ignored: tuple[int, ...] = ()
    """Mask values that it was trained without, and that are not scored."""
    mask_values: dict[int, int] = field(default_factory=dict)
    """The class that mask values stood for in training, of those that are not class numbers."""
    value_range: tuple[float, float] | None = None
    """The values that were black and white in images with more than 8 bits of grey, where training said them."""
    class_map: dict[str, str] = field(default_factory=dict)
    """What it calls the classes of the data that it was trained on, where these had other names there."""
    hub_id: str | None = None
    """The Hub's name of the weights that these are, or were but for the head."""
    notes: list[str] = field(default_factory=list)
    """Choices made on the user's behalf, to be said aloud."""
    config_document: dict[str, Any] | None = None
    """The `config.json` that belongs beside these weights, where it is the library's own and not made here."""
    companions: tuple[Path, ...] = ()
    """Files that go with the weights unchanged, such as a tokenizer's."""
    untrained: tuple[str, ...] = ()
    """The parameters that were drawn at random: those of a new head; `*` stands for all of them."""
    prepared: SamplePreprocessing | None = None
    """How it wants its samples, if that is not for its library to say."""

    @property
    def head_is_new(self) -> bool:
        """Whether its head is untrained, so that its classes have no order yet."""
        return bool(self.untrained)

    @property
    def new_head(self) -> bool:
        """Whether a head that has learned nothing stands on a body that has."""
        return bool(self.untrained) and self.untrained != EVERYTHING

    @property
    def manifest(self) -> GraftManifest | None:
        """What was grafted, where the weights come from a grafted folder or a run."""
        return self.located.manifest if self.located else None

    @property
    def folder(self) -> Path | None:
        """The folder that holds the weights and what lies beside them."""
        return self.located.folder if self.located else None

    @property
    def has_replicas(self) -> bool:
        """Whether these weights come with replicas; those of a control do not."""
        return self.manifest is not None and self.manifest.trp["kind"] not in CONTROLS

    @cached_property
    def preprocessing(self) -> SamplePreprocessing:
        """How the model wants its samples."""
        if self.prepared is not None:
            return self.prepared
        return library(self.identity.library).preprocessing(self.identity, self.module, self.companions)

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """Where dropout replicas attach. Raises ArchitectureError for heads that are not supported."""
        return sites_of(self.identity, self.module)

    @cached_property
    def depth_site(self) -> DepthSite:
        """Where replicas of depth attach. Raises ArchitectureError for families that they are not known for."""
        return depth_site_of(self.identity, self.module)

    def inner_site(self, what: str) -> InnerSite:
        """Return where replicas of `what`, such as the last activation, attach. Raises ArchitectureError if nowhere."""
        return self._inner_sites.find(what)

    @cached_property
    def _inner_sites(self) -> InnerSites:
        return inner_sites_of(self.identity, self.module)

    @property
    def task_name(self) -> str:
        """What the model predicts, by its name."""
        return library(self.identity.library).task(self.identity.architecture)

    @property
    def task(self) -> Task:
        """What the model predicts. Raises UsageError for what can't be trained or scored here."""
        return task_named(self.task_name)

    def config(self) -> dict[str, Any]:
        """Return the `config.json` that belongs beside these weights."""
        if self.config_document is not None:
            dtype = str(next(self.module.parameters()).dtype).removeprefix("torch.")
            return with_dtype(with_labels(self.config_document, self.label_names), dtype)
        config = library(self.identity.library).config(self.identity, self.module, self.label_names)
        said = {
            IGNORED: list(self.ignored),
            VALUES: {str(value): label for value, label in self.mask_values.items()},
            RANGE: list(self.value_range or ()),
            MAP: self.class_map,
        }
        return config | {key: value for key, value in said.items() if value}

    def beside(self) -> dict[str, bytes]:
        """Return the companions by their names, as they are."""
        return {path.name: path.read_bytes() for path in self.companions}

    def paths(self) -> list[Path]:
        """Return the input files and folders, which nothing may be written to."""
        return self.located.paths() if self.located else []


def in_float32(opened: OpenedModel, done: str) -> OpenedModel:
    """Return the model with float32 weights, which images are too; a note says what is `done` so.

    Updates of half-precision weights would round to nothing.
    """
    kinds = {str(p.dtype).removeprefix("torch.") for p in opened.module.parameters()} - {"float32"}
    opened.module.float()
    note = f"{', '.join(sorted(kinds))} weights: {done} as float32"
    return replace(opened, notes=[*opened.notes, note]) if kinds else opened
