"""A comparison in words: the same rows for a terminal and for a Markdown file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spgsurgeon.runs import NO_ORIGINAL
from spgsurgeon.tasks import Metric, task_scored_by

HEAD = ("arm", "learning rate", "chosen by", "score", "against plain", "95 % interval", "bootstrap", "agree", "verdict")
_ENOUGH_FOR_BOOTSTRAP = 20  # seeds
COST_HEAD = ("arm", "runs", "steps", "of them to choose", "training time")


def rows(document: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return a row of `HEAD` for each arm."""
    return [_row(name, arm, len(document["seeds"])) for name, arm in document["arms"].items()]


def cost_rows(costs: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return a row of `COST_HEAD` for each arm: what it took, the choice of its learning rate included."""
    return [
        (name, str(c["runs"]), f"{c['steps']:,}", f"{c['steps_of_choosing']:,}", f"{c['seconds']:.0f} s")
        for name, c in costs["arms"].items()
    ]


def remarks(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what else is to be known of the comparison, each under a word or two."""
    metric, seeds = metric_of(document), document["seeds"]
    over = f"mean of {len(seeds)} seeds" if len(seeds) > 1 else "one seed, intervals over images"
    chosen = "learning rates and epochs were chosen on"
    untrained = document.get("untrained")
    before = f"{metric.written(document['original'], 2)}, before any training"
    said = [
        ("score", f"{metric.title}, {over}, on {document['samples']} samples of {document['scored_on']}"),
        ("chosen by", f"{chosen} {document['chosen_on']}; a learning rate by {_choosers(document)}"),
        ("original", NO_ORIGINAL.get(untrained, before) if untrained else before),
        *(("base", text) for text in of_the_base(document.get("base_seen"))),
    ]
    if 1 < len(seeds) < _ENOUGH_FOR_BOOTSTRAP:
        said.append(("verdict", f"by Student's interval; a bootstrap of {len(seeds)} seeds is too narrow to go by"))
    if (others := len(document["arms"]) - 1) > 1:
        chance = f"{min(100, 5 * others)} % of comparisons"
        said.append(
            ("arms", f"each is judged by itself: of {others} like plain one would seem not to be in up to {chance}")
        )
    if document["budget"] == "seconds":
        each = ", ".join(f"{name} {arm['epochs']}{_time(arm)}" for name, arm in document["arms"].items())
        said.append(("epochs", f"as many as take plain's time, by steps measured here: {each}"))
    if len(seeds) == 1:
        said.append(("verdict", "of this one seed's models: how much training again would change is not in it"))
    said += [
        ("could show", f"{name}: {_detectable(arm, document)}")
        for name, arm in document["arms"].items()
        if arm["difference"]
    ]
    if not untrained and all(metric.better(document["original"], arm["mean"]) for arm in document["arms"].values()):
        said.append(("worse", "every arm ends worse than the original: leave it alone, or try lower learning rates"))
    if edges := [f"{name} ({arm['learning_rate']:g})" for name, arm in document["arms"].items() if arm["at_edge"]]:
        said.append(("grid", f"the best learning rate is at the grid's edge: {', '.join(edges)}; {_beyond(document)}"))
    broken = [f"{name} {arm['broken_off']}" for name, arm in document["arms"].items() if arm["broken_off"]]
    if broken:
        said.append(("broken off", f"runs that met NaN or infinity, which count as worst: {', '.join(broken)}"))
    return said


def _choosers(document: Mapping[str, Any]) -> str:
    """Return which seeds choose learning rates."""
    choosing, seeds = document.get("choosing_seeds") or document["seeds"], document["seeds"]
    if len(choosing) == len(seeds):
        return "the mean over seeds"
    each = ", ".join(map(str, choosing))
    return f"seed {each} alone" if len(choosing) == 1 else f"the mean over seeds {each}"


def metric_of(document: Mapping[str, Any]) -> Metric:
    """Return what a comparison's arms are compared by."""
    return task_scored_by(document["metric"]).primary


def of_the_base(seen: Mapping[str, int] | None) -> list[str]:
    """Return what the base was, where it was trained on images that choices or scores go by."""
    said = []
    if seen and (count := seen["chosen_on"]):
        said.append(
            f"itself trained on {count} of the images that learning rates and epochs are chosen on, which favours "
            "changing it little: train it with the same data.holdout"
        )
    if seen and (count := seen["scored_on"]):
        said.append(f"itself trained on {count} of the images that arms are scored on: on others all may score lower")
    return said


def _detectable(arm: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    """Return which difference to plain could have been shown."""
    points, room = arm["difference"]["detectable"], metric_of(document).room(document["arms"]["plain"]["mean"])
    if not points:
        return "unknown, as all differences are the same"
    if points > room:
        return f"none: it would take {points:.2f} points, and there is room for {room:.2f}"
    return f"{points:.2f} points or more, four times in five"


def _time(arm: Mapping[str, Any]) -> str:
    """Return how an arm's time differs from plain's, where whole epochs come to another one by 5 % or more."""
    share = arm["share_of_plains_time"]
    return f" ({share:.2f} times its time)" if share is not None and abs(share - 1) >= 0.05 else ""


def _beyond(document: Mapping[str, Any]) -> str:
    """Return how to go on where a best learning rate is at the grid's edge."""
    if document["grid"] == "auto":
        return "auto looked no further: give another training.optimizer.lr"
    multiples = document["multiples"]
    chosen = {arm["multiple"] for arm in document["arms"].values() if arm["at_edge"]}
    lower = [float(f"{multiples[0] / part:.2g}") for part in (10, 3) if multiples[0] in chosen]
    higher = [float(f"{multiples[-1] * part:.2g}") for part in (3, 10) if multiples[-1] in chosen]
    wider = ",".join(f"{multiple:g}" for multiple in (*lower, *multiples, *higher))
    return f"resume with --resume and --learning-rates {wider}, or auto"


def markdown(document: Mapping[str, Any], costs: Mapping[str, Any]) -> str:
    """Return the comparison as a Markdown document."""
    parts = [_markdown_table(HEAD, rows(document)), "\n".join(f"- {name}: {text}" for name, text in remarks(document))]
    return "\n\n".join(["# Comparison", *parts, _markdown_table(COST_HEAD, cost_rows(costs))]) + "\n"


def _row(name: str, arm: Mapping[str, Any], seeds: int) -> tuple[str, ...]:
    scored = (name, f"{arm['learning_rate']:g}", f"{arm['validation']:.2f}", f"{arm['mean']:.2f}")
    difference = arm["difference"]
    if difference is None:
        return (*scored, *[""] * 5)
    return (
        *scored,
        f"{difference['mean']:+.2f}",
        f"{difference['low']:+.2f} to {difference['high']:+.2f}",
        f"{difference['bootstrap_low']:+.2f} to {difference['bootstrap_high']:+.2f}",
        f"{difference['agree']} of {seeds}",
        arm["verdict"],
    )


def _markdown_table(head: tuple[str, ...], body: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *body]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
