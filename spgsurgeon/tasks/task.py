"""What a task is, and how its predictions are scored: counted on the device, read once at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray
from torch import Tensor, nn

from spgsurgeon.data import AnyTransform, Augmentation, Collate, Source, batches_by_size, described, listed
from spgsurgeon.errors import UsageError, did_you_mean
from spgsurgeon.models import GraphInputs, graph_inputs_of
from spgsurgeon.objective import Readout
from spgsurgeon.replicas import main_output
from spgsurgeon.runtime import Processes
from spgsurgeon.tasks.confusion import Confusions
from spgsurgeon.tasks.metrics import Metric

Scores = dict[str, Any]
"""Numbers, or lists with one a class; plain data."""
METRIC = "metric"
"""Among scores of a task that can be judged by several: the name of the one that comes first."""


class Tally(Protocol):
    """Counts of one evaluation. Adding does not wait for the device; whole numbers stay exact, however many."""

    def add(self, logits: Any, target: Any) -> None:
        """Count a batch: its targets, or what `Task.scored_by_samples` makes of them."""

    def scores(self) -> Scores:
        """Return the scores over all processes, each of which must call it.

        Raises UsageError if there was nothing to score.
        """

    def confusions(self) -> Confusions | None:
        """Return the units over all processes by true and by predicted class; None if units have no classes."""

    def drawn(self) -> list[int] | None:
        """Return the units over all processes by true class, those ignored last; None for what is not counted so."""


class Measure(NamedTuple):
    """How a score comes from samples: what each of N adds to it by logits and targets, [N, ...], and [R] by their sums.

    Without the second it is the percentage that [N] of them make.
    """

    counts: Callable[[Tensor, Any], Tensor]
    from_counts: Callable[[NDArray[Any]], NDArray[Any]] | None = None


@dataclass(frozen=True)
class Task:
    """What a model predicts, and all that follows from it; see `TASKS`.

    Shapes: N samples, R resamples of them.
    """

    name: str
    unit: str
    """What gets a prediction of its own."""
    predicts: str
    """What a model of it is said to predict, as "a class for each image"."""
    samples: str
    """What the samples of its data are, see `data.sources.forms`."""
    source: str
    """The `data.source` that a folder's path stands for."""
    training_transform: Callable[[Any, Augmentation], AnyTransform]
    """Makes the transform of training by how the model wants its samples (see `models.Preprocessing` and others)."""
    evaluation_transform: Callable[[Any], AnyTransform]
    size: Callable[[Any], dict[str, Any]]
    """What a document says of the size that samples are scored at."""
    metrics: tuple[Metric, ...]
    """Its scores. By the first one the best checkpoint is chosen and runs are compared."""
    tally: Callable[[Processes], Tally]
    """Makes the counts of an evaluation, whose scores have these metrics, and `samples`."""
    counts: Callable[[Any, Any], Tensor]
    """What each sample adds to the first score, [N, ...], by logits and what `Tally.add` takes."""
    from_counts: Callable[[NDArray[Any]], NDArray[Any]] | None = None
    """The first score, [R], of sums [R, ...] of such counts; None: it is the percentage that [N] of them make."""
    arranged: Callable[[Source[Any], Any], Source[Any]] = lambda source, preprocessing: source
    """Makes samples of what a source has, by how the model wants them, if these are others: blocks of tokens."""
    made: str | None = None
    """What those are; None: the data's own."""
    collation: Callable[[Any], Collate] = lambda preprocessing: batches_by_size
    """Makes what makes batches of samples."""
    readout: Callable[[Tensor], Tensor] = lambda logits: logits
    """Turns a model's logits into [rows, C, ...], the classes in second place and units after them."""
    output: Callable[[Any], Tensor] = main_output
    """Takes the logits out of what the model gives when it is scored."""
    deferred: bool = False
    """Whether its logits are too many to exist at once: `read`, `counts` and the tally take `DeferredLogits` then."""
    read: Callable[[Any, Tensor, int, float], Readout] | None = None
    """Reads stacked logits by targets, for so many steps and with that label smoothing; None: each unit has one label
    among C classes (`objective.spg_loss`)."""
    targets_of_labels: Callable[[Tensor], Tensor] = lambda labels: labels
    """Makes targets of labels as the models of transformers take them for their own loss."""
    labels_of_targets: Callable[[Tensor], Tensor] = lambda targets: targets
    """Makes such labels of targets."""
    episode_classes: Callable[[Tensor], Tensor] = lambda targets: targets
    """The class of each unit by the targets, as an epoch's episodes are counted."""
    scored_by_samples: Callable[[Tensor, Sequence[Any]], Any] | None = None
    """Makes what `Tally.add` takes of targets and the samples themselves, for scores that go by more than numbers."""
    alternatives: Mapping[str, Measure] = field(default_factory=dict)
    """Others of its scores that a recipe can have in first place, by their names."""
    by_class: tuple[Metric, ...] = ()
    """Scores with an entry a class, None for one that has none."""

    graph_inputs: Callable[[nn.Module, Sequence[int] | None], GraphInputs] = graph_inputs_of
    """What the exported graph of a model takes, by (channels, height, width) if these are images."""
    mixes: bool = False
    """Whether samples can be mixed, as mixup and cutmix do: where one label is the whole target."""
    largest_side: int | None = None
    """Pixels: laws are proven on images of no more a side. The model must take images of any size then."""
    pipeline_tag: str | None = None
    """What the Hub calls it."""
    usage: str = ""
    """Lines of Python for the model card, after the model was made."""

    @property
    def primary(self) -> Metric:
        """The score that the best checkpoint is chosen by, and that runs are compared by."""
        return self.metrics[0]

    @property
    def trained_on(self) -> str:
        """What the samples are that a model reads."""
        return self.made or self.samples

    @property
    def has_classes(self) -> bool:
        """Whether the outputs of a head stand for classes, of which model and data must have the same."""
        return all(form.classed != "nothing" for form in listed(self.samples))

    def scored_by(self, metric: str | None) -> Task:
        """Return the task with another of its scores in first place; None keeps it as it is. Raises UsageError."""
        if metric in (None, self.primary.name):
            return self
        if metric not in self.alternatives:
            known = [self.primary.name, *self.alternatives]
            raise UsageError(
                f"{metric!r} can't choose a checkpoint of a model that predicts {self.predicts}; there are "
                f"{', '.join(known)}",
                hint=did_you_mean(metric or "", known),
                code="unknown-metric",
            )
        first = {self.primary.name: Measure(self.counts, self.from_counts)}
        return replace(
            self,
            metrics=tuple(sorted(self.metrics, key=lambda one: one.name != metric)),
            counts=self.alternatives[metric].counts,
            from_counts=self.alternatives[metric].from_counts,
            alternatives=first | dict(self.alternatives),
        )

    def check_samples(self, samples: str, model: str) -> None:
        """Raise UsageError if the data has other samples (see `data.sources.forms`) than it needs."""
        if samples != self.samples:
            raise UsageError(
                f"{model} predicts {self.predicts}, and the data has {samples}",
                hint=f"give {self.samples}: {described(listed(self.samples))}; or another model",
            )
