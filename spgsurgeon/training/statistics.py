"""What an epoch's episodes looked like, summed on the device and read once at its end.

Shapes: N images, C classes, T replicas; every sum has T+1 entries, one a step. `units` as in `objective`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from spgsurgeon.checkpoint import MalformedError
from spgsurgeon.data import Batch, Source, sample_within
from spgsurgeon.errors import UsageError
from spgsurgeon.objective import SPGLoss
from spgsurgeon.runtime import Processes, sum_dtype
from spgsurgeon.training.epoch.lengths import LengthsBySample

EXTREMES = 12
"""How many images with the shortest episodes are remembered, and how many with the longest."""
LENGTHS = "lengths"
_WORST_KEY = {"shortest": math.inf, "longest": -math.inf}
_COLUMNS = ("key", "sample", "label", "length", "cross_entropy", "predicted")
_UNKNOWN = -1.0
"""What was predicted, where that is not known; an earlier version's rows end before it."""

Totals = dict[str, list[list[float]]]
"""Sums and tables over all processes; plain data, which a checkpoint keeps."""


_MOST_WAITING = 2**14  # units whose episodes wait on the device to be counted together


class _Waiting(NamedTuple):
    """What is counted of a batch: float32 [] and [T+1], twice; bool []; of each unit; of each image, if it counts."""

    loss: Tensor
    sizes: Tensor
    step_losses: Tensor
    skipped: Tensor
    units: tuple[Tensor, ...]
    pictures: tuple[Tensor, ...] | None


class EpisodeStatistics:
    """Sums over the batches of an epoch; `saved` is what `totals` returned. Adding does not wait for the device.

    Of the first `recorded` samples, which are all or none, it also remembers how long each one's episode was.

    Many batches' episodes are counted together, so that a step has little to do for it; the outcome does not depend on
    which are.
    """

    def __init__(
        self,
        steps: int,
        classes: int,
        processes: Processes,
        saved: Totals | None = None,
        *,
        recorded: int = 0,
    ) -> None:
        self._processes, self._steps, self._dtype = processes, steps, sum_dtype(processes.device)
        # The loss and the number of batches; units valid at each step; their summed cross entropy.
        sums = torch.zeros(2 + 2 * steps, dtype=self._dtype)
        by_class = torch.zeros(1 + classes * steps, dtype=torch.int64)  # the first is for units that don't count
        extremes = {
            name: torch.tensor([[worst, *[0.0] * (len(_COLUMNS) - 1)]] * EXTREMES, dtype=self._dtype)
            for name, worst in _WORST_KEY.items()
        }
        if saved is not None and processes.leads:  # totals are of all processes, so one goes on from them
            loss, valid, entropy = saved["sums"]
            sums = torch.tensor([*loss[:2], *valid[:steps], *entropy[:steps]], dtype=self._dtype)
            by_class[1:] = torch.tensor(saved["by_class"]).flatten()
            for name, table in extremes.items():
                rows = [[*row, _UNKNOWN][: len(_COLUMNS)] for row in saved[name]]
                table[: len(rows)] = torch.tensor(rows, dtype=self._dtype).view(-1, len(_COLUMNS))
        self._sums, self._by_class = sums.to(processes.device), by_class.to(processes.device)
        self._extremes = {name: table.to(processes.device) for name, table in extremes.items()}
        saved_lengths = saved[LENGTHS][0] if saved and recorded else None
        self._lengths = LengthsBySample(recorded, processes, saved_lengths) if recorded else None
        self._waiting: list[_Waiting] = []
        self._units_waiting = 0

    def add(self, result: SPGLoss, batch: Batch, skipped: Tensor, own: Tensor | None = None) -> None:
        """Count one batch, whose targets may be soft, unless `skipped` (bool []).

        `own` are its targets before they were mixed, by which images are remembered.
        """
        lengths, counted = result.episode.lengths, result.episode.counted.masked_fill(skipped, False)
        columns = (_label_of_each_unit(batch.targets, lengths), lengths, counted)
        pictures = None
        if self._steps > 1 and _one_a_sample(batch.targets):  # of several outputs the first one's episodes
            label = columns[0] if own is None else _label_of_each_unit(own, lengths)
            predicted = torch.full_like(lengths, int(_UNKNOWN)) if result.predicted is None else result.predicted
            each = (label, lengths, counted, result.cross_entropy[0], predicted)
            first = (c if c.dim() == 1 else c[:, 0] for c in each)
            pictures = (batch.samples, *first)
        elif self._lengths is not None:
            raise UsageError(
                "training.record_episodes is for samples with one label each, and these have several",
                hint="leave it out",
                code="no-episode-a-sample",
            )
        units = tuple(column.flatten() for column in columns)
        losses = (result.loss.detach(), result.step_sizes, result.step_losses.detach())
        self._waiting.append(_Waiting(*losses, skipped, units, pictures))
        self._units_waiting += lengths.numel()
        if self._units_waiting >= _MOST_WAITING:
            self._count()

    def totals(self) -> Totals:
        """Return sums and tables over all processes, each of which must call it; waits for the device."""
        self._count()
        tables = {name: torch.cat(self._processes.gather(table)) for name, table in self._extremes.items()}
        best = {name: _best(table, name).tolist() for name, table in tables.items()}
        sums = self._processes.sum(self._sums).tolist()
        return {
            "sums": [sums[:2], sums[2 : 2 + self._steps], sums[2 + self._steps :]],
            "by_class": self._processes.sum(self._by_class)[1:].view(-1, self._steps).tolist(),
            **{name: [row for row in rows if math.isfinite(row[0])] for name, rows in best.items()},
            **({LENGTHS: [self._lengths.total()]} if self._lengths else {}),
        }

    def _count(self) -> None:
        """Count what waits. Sums are taken batch by batch, so that they don't depend on what waits together."""
        waiting, self._waiting, self._units_waiting = self._waiting, [], 0
        if not waiting:
            return
        loss, sizes, step_losses, skipped = map(torch.stack, zip(*(batch[:4] for batch in waiting), strict=True))
        rows = torch.cat([loss[:, None], torch.ones_like(loss)[:, None], sizes, step_losses * sizes], dim=1)
        for row in rows.masked_fill_(skipped[:, None], 0):
            self._sums += row
        labels, lengths, counted = map(torch.cat, zip(*(batch.units for batch in waiting), strict=True))
        cells = torch.where(counted, labels * self._steps + lengths, 0)
        self._by_class.index_add_(0, cells, torch.ones_like(cells))
        if pictures := [batch.pictures for batch in waiting if batch.pictures is not None]:
            self._add_pictures(*map(torch.cat, zip(*pictures, strict=True)))

    def _add_pictures(
        self,
        samples: Tensor,
        labels: Tensor,
        lengths: Tensor,
        counted: Tensor,
        entropy: Tensor,
        predicted: Tensor,
    ) -> None:
        """Remember the images whose episodes are shortest and longest; of equal ones the surer count as longer."""
        if self._lengths is not None:
            self._lengths.add(samples, lengths, counted)
        key = lengths + 1 / (1 + entropy)
        columns = [column.to(self._dtype) for column in (samples, labels, lengths, entropy, predicted)]
        for name, worst in _WORST_KEY.items():
            rows = torch.stack([torch.where(counted, key, worst).to(self._dtype), *columns], dim=1)
            self._extremes[name] = _best(torch.cat([self._extremes[name], rows]), name)


def check_totals(totals: Totals, steps: int, classes: int, samples: int) -> None:
    """Raise MalformedError if totals are not those of `steps` (T+1), `classes` and `samples`."""
    loss, valid, entropy = totals["sums"]
    by_class = totals["by_class"]
    if len(loss) < 2 or min(len(valid), len(entropy)) < steps:
        raise MalformedError(f"counters.statistics.sums are not of {steps} steps")
    if len(by_class) != classes or any(len(row) != steps for row in by_class):
        raise MalformedError(f"counters.statistics.by_class is not of {classes} classes and {steps} steps")
    sizes = (len(_COLUMNS) - 1, len(_COLUMNS))
    for name in _WORST_KEY:
        rows = totals[name]
        if len(rows) > EXTREMES or any(len(row) not in sizes or not 0 <= row[1] < samples for row in rows):
            raise MalformedError(f"counters.statistics.{name} are not images of {samples}")
    if any(len(row) != samples or max(row, default=0) > steps for row in totals.get(LENGTHS, [])):
        raise MalformedError(f"counters.statistics.{LENGTHS} are not of {samples} samples and {steps} steps")


def _best(rows: Tensor, name: str) -> Tensor:
    """Return the rows of the best keys, of equal ones those of the first samples."""
    for column, descending in ((_COLUMNS.index("sample"), False), (0, name == "longest")):
        rows = rows[rows[:, column].sort(stable=True, descending=descending).indices]
    return rows[:EXTREMES]


def extremes(totals: Totals, source: Source[Any], root: str | None = None) -> dict[str, list[dict[str, Any]]]:
    """Return the `shortest` and the `longest` episodes' samples, by what is recorded of each.

    Number, name (within the data's folder `root`), label, length, cross entropy, and the class that the base predicted;
    None if that is not known.
    """
    return {
        name: [
            {
                "sample": int(sample),
                "name": sample_within(source.describe(int(sample)), root),
                "label": int(label),
                "length": int(length),
                "cross_entropy": entropy,
                "predicted": None if predicted < 0 else int(predicted),
            }
            for _, sample, label, length, entropy, predicted in totals[name]
        ]
        for name in _WORST_KEY
    }


def summarize(totals: Totals, steps: Sequence[str], lengths: Sequence[str] | None = None) -> dict[str, Any]:
    """Return an epoch's means. `steps` names each step by what it stands for, a cumulative dropout rate or a depth.

    `lengths` names what an episode of 1 to T+1 valid steps has accepted: that of its last step, if it is left out, as
    in a chain. `valid_share` and `step_cross_entropy` have one entry a step; `accepted_units` counts, for each label of
    a length, the units of such episodes, `accepted_by_class` [C][T+1] the same by class and length. Where steps have
    other labels than lengths, `steps` is them. Means are over the steps that were not skipped.
    """
    labels = lengths or steps
    loss, batches = totals["sums"][0][:2]
    valid, entropy = (totals["sums"][part][: len(steps)] for part in (1, 2))
    units = valid[0] or 1.0
    accepted = dict.fromkeys(labels, 0)  # steps may share one, as where the rate is 0
    for label, *of_classes in zip(labels, *totals["by_class"], strict=True):
        accepted[label] += round(sum(of_classes))
    return {
        "loss": loss / (batches or 1.0),
        "step_cross_entropy": [e / v if v else None for e, v in zip(entropy, valid, strict=True)],
        "valid_share": [v / units for v in valid],
        "mean_episode_length": sum(valid) / units,
        "accepted_units": accepted,
        "accepted_by_class": totals["by_class"],
        **({} if labels == steps else {"steps": list(steps)}),
    }


def _one_a_sample(targets: Tensor) -> bool:
    """Return whether each sample has one label, [N] or softly [N, C], not one for each of its units."""
    return targets.dim() - targets.is_floating_point() == 1


def _label_of_each_unit(targets: Tensor, units: Tensor) -> Tensor:
    """Return the label of each unit, whatever the number of outputs; of soft targets the arg-max."""
    labels = targets.argmax(1) if targets.is_floating_point() else targets
    return labels.reshape(*labels.shape, *[1] * (units.dim() - labels.dim())).expand_as(units)
