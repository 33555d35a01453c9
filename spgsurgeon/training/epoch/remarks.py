"""What the images and masks that a run reads give reason to say."""

from __future__ import annotations

import math
from typing import Any

import torch

from spgsurgeon.data import EvaluationBatches, Source, TrainingBatches, over_processes, said_of_masks, said_of_traits
from spgsurgeon.recipe import TrainingSection
from spgsurgeon.runtime import Processes
from spgsurgeon.tasks import Metric
from spgsurgeon.training.epoch.safekeeping import Safekeeping
from spgsurgeon.training.state import Counters
from spgsurgeon.training.weights.head_start import said_of

_FAR = 1.25  # from the loss of guessing


class Remarks:
    """Collects them in `said`. Each method is called by all processes alike."""

    def __init__(
        self, training: TrainingBatches, evaluation: EvaluationBatches, processes: Processes, keeping: Safekeeping
    ) -> None:
        self._training, self._evaluation = training, evaluation
        self._processes, self._keeping = processes, keeping
        self.said: list[str] = []

    def new_head(self, loss: float, untrained: str | None) -> None:
        """Remark on an original whose new head is not as likely to say one class as another."""
        chance = math.log(max(len(self._training.source.classes), 1))
        if untrained == "head" and chance and loss > _FAR * chance:
            self.say(f"the new head starts with a loss of {loss:.2f}, and guessing has {chance:.2f}")

    def head_start(self, loss: float) -> None:
        """Remark on a head start that ended with this loss, if little came of it."""
        if text := said_of(loss, len(self._training.source.classes)):
            self.say(text)

    def after_head_start(self, before: float, now: float) -> None:
        """Remark on a first epoch of the training proper that undid much of the head start, which ended at `before`.

        Both are the mean cross entropy of what the base predicts, in a model whose batch norms follow the batches.
        """
        if now > _FAR * before:
            self.say(
                f"the loss rose from {before:.2f} at the end of the head start to {now:.2f} in the first epoch of the "
                "whole model, whose batch norms follow the batches: training.batch_norm=freeze keeps the features that "
                "the head has learned to read"
            )

    def stopped_early(self, epochs: int, settings: TrainingSection, metric: Metric, *, before: bool) -> None:
        """Remark on a run that ends after so many epochs, as its score does not get better.

        `before` says whether it had ended so when it resumed: more epochs don't change what it would have done.
        """
        rule = settings.early_stopping
        more = f" by more than {rule.min_delta:g}" if rule.min_delta else ""
        self.say(
            f"{'stays stopped' if before else 'stopped'} after epoch {epochs} of {settings.epochs}: {metric.label} has "
            f"not got better{more} for {rule.patience} epochs (training.early_stopping"
            + ("; another run, with a higher patience or none, goes further)" if before else ")")
        )

    def say(self, text: str) -> None:
        """Remark on what somebody else found."""
        self.said.append(text)
        self._keeping.warn(text)

    def training_masks(self) -> None:
        """Remark on the masks that were trained on so far, if the data has any."""
        drawn: torch.Tensor | None = self._training.drawn
        if drawn is not None:
            self.masks(self._processes.sum(drawn.to(self._processes.device)).tolist(), self._training.source)

    def masks(self, drawn: list[int], source: Source[Any]) -> None:
        """Remark on masks of `source`, of which `drawn` are the pixels of each class, over all processes."""
        said = said_of_masks(drawn, source)
        self.said += said
        for text in said:
            self._keeping.warn(text)

    def traits(self) -> None:
        """Remark on the images that were read, training's and evaluation's; those of one data set only once."""
        for batches in (self._training, self._evaluation):
            traits = over_processes(batches.traits, self._processes)
            self.said += [text for text in said_of_traits(traits, batches.source) if text not in self.said]

    def unreadable(self, counters: Counters) -> None:
        """Count the images that no process can use, and warn of those that are new."""
        found = self._processes.joined({**self._training.unusable, **self._evaluation.unusable})
        if new := found.keys() - counters.unreadable.keys():
            counters.unreadable |= found
            self._keeping.warn(f"{len(new)} images can't be used and were skipped; {min(new)}: {found[min(new)]}")
