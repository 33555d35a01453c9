"""What a kind of replicas is: its settings, where it attaches, its modules, what its steps mean, and its words.

Shapes: N images, T replicas (steps 1..T; step 0 is the base), D = width of the hidden state.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self

from pydantic import model_validator

from spgsurgeon.models import DepthSite, InnerSite, Site, sites_document
from spgsurgeon.replicas.places import Place
from spgsurgeon.sections import Section, Steps, fault_at

if TYPE_CHECKING:
    from torch import nn

    from spgsurgeon.replicas.grafted import GraftedModel
    from spgsurgeon.replicas.stacking import ReplicaChain


class Sites(Protocol):
    """Where replicas can attach to a base; looked for only when asked, and ArchitectureError if there is none."""

    @property
    def sites(self) -> Sequence[Site]:
        """The inputs of its heads."""

    @property
    def depth_site(self) -> DepthSite:
        """The output of its last stage."""

    def inner_site(self, what: str) -> InnerSite:
        """Return a layer of its body: what its last activation is, or its last residual block."""


class ReplicaKind(Section):
    """A kind of replicas with its settings, its section of the recipe: their docstrings are what `recipes` says.

    By default a kind attaches to what the heads read. A kind with replicas derives from `Replicas` or `HeadReplicas`.
    """

    kind: str = ""

    control: ClassVar[bool] = False
    """Whether there are no replicas (T = 0): plain retraining by the same loop."""
    default_form: ClassVar[str] = "step"
    """`objective.form`, if the recipe leaves it out."""
    accepts: ClassVar[str | None] = None
    """What the label of a step stands for, such as "depth"; None if there is only step 0."""
    retrained: ClassVar[str] = "with SPG"
    """How a checkpoint was retrained, in the title of its card."""
    method: ClassVar[str] = (
        "with Sequential Policy Gradient (arXiv 2506.15051) by spgsurgeon, whose temporary modules are gone"
    )
    """The same in its summary."""
    axis: ClassVar[bool] = False
    """Whether it can be an axis of a mesh: it takes what was stacked before it as further rows."""
    reads_batches: ClassVar[bool] = False
    """Whether its replicas are about statistics of the batch, and do nothing where batch norms are in eval mode."""
    of_the_pass: ClassVar[frozenset[str]] = frozenset()
    """Settings that say how steps are run, not what is grafted."""

    @classmethod
    def leaves_out(cls, key: str) -> bool:
        """Return whether the setting `key` of another kind may stand in the section all the same, and means nothing."""
        return False

    @property
    def length(self) -> int:
        """T."""
        return 0

    @property
    def length_key(self) -> str:
        """Where it is said, for messages."""
        return "trp.replicas"

    @property
    def head_mode(self) -> str:
        """How the steps go through the shared head: the `head_batch` of `attach`."""
        return "stacked"

    def document(self) -> dict[str, Any]:
        """Return the kind and what was grafted, as plain data: what `graft.json` calls `trp`."""
        return self.model_dump(mode="json", exclude=set(self.of_the_pass))

    def settled(self, sites: Sites) -> Self:
        """Return the settings with the defaults of the base's family filled in. Raises UsageError for what can't be."""
        return self

    # Where it attaches

    def heads(self, sites: Sites) -> Sequence[Site]:
        """Return the heads that it attaches to, if it does: all. Raises ArchitectureError if they are not for it."""
        return sites.sites

    def places(self, sites: Sites) -> list[Place]:
        """Return the places of a base: by default the inputs of its heads; layers of logits tell their own width."""
        return [
            Place(site.module, key=site.key, width=None if site.type in ("Linear", "Conv2d") else site.width)
            for site in self.heads(sites)
        ]

    def places_at(self, given: str | Place | Sequence[str | Place]) -> list[Place]:
        """Return the places that a user names. Raises UsageError if this kind has to find its own."""
        listed = [given] if isinstance(given, str | Place) else given
        return [Place(place) if isinstance(place, str) else place for place in listed]

    def site_document(self, sites: Sites) -> dict[str, Any]:
        """Return where the replicas are, as plain data (lists for several heads): what `graft.json` calls `site`."""
        found = self.heads(sites)
        keys = ["module", "width", *(["key"] if any(site.key for site in found) else [])]
        return sites_document(found, *keys) | {"side": found[0].side}

    def site_summary(self, sites: Sites) -> dict[str, Any]:
        """Return what `inspect` says: the site, and what replicas of these settings would cost there."""
        return self.site_document(sites) | {"temporary_parameters": self.temporary_parameters(sites)}

    @classmethod
    def site_in_words(cls, site: Mapping[str, Any]) -> str:
        """Return a site (of either method above) in words: `at the input of fc`."""
        module = site["module"]
        name = module if isinstance(module, str) else ", ".join(dict.fromkeys(module))
        return f"at the {site['side']} of {', '.join(site['key']) + ' of ' if 'key' in site else ''}{name}"

    # What it grafts

    @abstractmethod
    def chain(self, module: nn.Module, place: Place) -> ReplicaChain:
        """Return the chain of replicas for `place`, which enters or leaves `module`, of its device and dtype."""

    def temporary_parameters(self, sites: Sites) -> int:
        """Return how many parameters all replicas have."""
        return 0

    def attach_to(self, base: nn.Module, places: Sequence[Place], head_batch: str = "stacked") -> GraftedModel:
        """Return `base` grafted at `places`; see `attach`. New weights are drawn by torch's own generator."""
        from spgsurgeon.replicas.grafted import attach

        return attach(base, places, self.chain, head_batch=head_batch)

    # What it says

    @abstractmethod
    def step_labels(self, sites: Sites) -> list[str]:
        """Return what an episode that ends at each of the T+1 steps has accepted: a rate, a depth."""

    def length_labels(self, sites: Sites) -> list[str]:
        """Return what an episode of 1 to T+1 valid steps has accepted: in a chain, what its last step stands for."""
        return self.step_labels(sites)

    @abstractmethod
    def words(self) -> str:
        """Return the kind and its settings on one line, for plans, reports and cards."""

    def words_on(self, sites: Sites) -> str:
        """Return the same, with what only the base tells."""
        return self.words()


class Control(ReplicaKind):
    """A kind without replicas."""

    control: ClassVar[bool] = True


class Replicas(ReplicaKind):
    """A kind with T replicas in a chain."""

    replicas: Steps = 3
    """How many replicas, T; an episode has T + 1 steps."""

    @property
    def length(self) -> int:
        """See `ReplicaKind`."""
        return self.replicas

    def words(self) -> str:
        """See `ReplicaKind`: `3 dropout replicas, rate 0.2`."""
        settings = {key: value for key, value in self.document().items() if key not in ("kind", "replicas")}
        said = [f"{key} {value}" for key, value in settings.items() if value is not None]
        return ", ".join([f"{self.replicas} {self.kind} replicas", *said])


class HeadReplicas(Replicas):
    """Replicas of what the heads read. A kind says what one replica is, and what each step's number means."""

    axis: ClassVar[bool] = True
    head_batch: Literal["stacked", "sequential"] = "stacked"
    """Whether all steps go through a segmentation model's heads at once, or one by one, in less memory."""
    rollouts: bool = False
    """Whether each step has a forward pass of the whole model of its own: the naive way, T + 1 times the cost, for
    comparison."""

    of_the_pass: ClassVar[frozenset[str]] = frozenset({"head_batch", "rollouts"})

    @model_validator(mode="after")
    def _one_way_through_the_head(self) -> Self:
        if self.rollouts and self.head_batch != "stacked":
            raise fault_at("rollouts", "rollouts take each step through the heads by itself; leave head_batch out")
        return self

    @property
    def head_mode(self) -> str:
        """See `ReplicaKind`."""
        return "rollouts" if self.rollouts else self.head_batch

    @abstractmethod
    def replica(self, head: nn.Module, place: Place, step: int) -> nn.Module:
        """Return replica `step` (1..T), which makes `h_step` of `h_(step-1)`, for what enters `head` at `place`."""

    @abstractmethod
    def step_values(self) -> list[float]:
        """Return what an episode that ends at each of the T+1 steps has accepted."""

    def parameters_of_one(self, width: int) -> int:
        """Return how many parameters a replica of a hidden state of D = `width` has."""
        return 0

    def chain(self, module: nn.Module, place: Place) -> ReplicaChain:
        """See `ReplicaKind`. Raises SurgeonError if the weights of its replicas don't fit in memory."""
        from spgsurgeon.replicas.kinds.room import check_room
        from spgsurgeon.replicas.stacking import ReplicaChain

        check_room(self, module, place)
        return ReplicaChain(self.replica(module, place, step) for step in range(1, self.replicas + 1))

    def temporary_parameters(self, sites: Sites) -> int:
        """See `ReplicaKind`."""
        return self.replicas * sum(self.parameters_of_one(site.width) for site in self.heads(sites))

    def step_labels(self, sites: Sites) -> list[str]:
        """See `ReplicaKind`."""
        return [f"{value:.4g}" for value in self.step_values()]
