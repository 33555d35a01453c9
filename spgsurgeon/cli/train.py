"""`spgsurgeon train`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spgsurgeon.cli.terminal.completion import model_names, recipe_names
from spgsurgeon.cli.terminal.console import emit
from spgsurgeon.cli.terminal.options import Arch, Force, MapKeys, RandomWeights, Task, Weights, check_weights
from spgsurgeon.cli.terminal.text import (
    BAD,
    GOOD,
    OPEN,
    coloured,
    columns,
    duration,
    facts,
    gigabytes,
    image_size,
    millions,
    pairs,
)
from spgsurgeon.replicas.kinds import CONTROLS, PLAIN, replicas_from

if TYPE_CHECKING:
    from spgsurgeon.runs import Basis
    from spgsurgeon.tasks import Metric


def command(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL|KEY=VALUE",
            help="What to retrain (a base or a grafted folder; left out: the recipe's), and overrides of the recipe.",
            show_default=False,
            autocompletion=model_names,
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", help="A recipe file, or a shipped recipe's name.", autocompletion=recipe_names),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Run folder (default: runs/RECIPE).")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint of the run folder.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check recipe, model and data, take one batch through, print the plan.")
    ] = False,
    random_weights: RandomWeights = False,
    num_classes: Annotated[
        int | None, typer.Option("--num-classes", min=1, help="Give the base a new, untrained head.")
    ] = None,
    task: Task = None,
    arch: Arch = None,
    map_keys: MapKeys = None,
    weights: Weights = None,
    force: Force = False,
) -> None:
    """Retrain a model by a recipe.

    The original is scored first, by the same code; the best and the last checkpoint are kept.

    Example: `spgsurgeon train grafted/ --recipe digits-dropout training.epochs=5 -o runs/digits`

    On several GPUs: `torchrun --nproc-per-node 4 -m spgsurgeon train ...`
    """
    from spgsurgeon.cli.terminal.progress import RunProgress
    from spgsurgeon.training import train

    check_weights(weights)
    model, overrides = split_arguments(arguments or [])
    with RunProgress() as progress:
        document = train(
            model,
            recipe=recipe,
            overrides=overrides,
            output=output,
            resume=resume,
            dry_run=dry_run,
            random_weights=random_weights,
            weights=weights,
            arch=arch,
            num_classes=num_classes,
            task=task,
            map_keys=map_keys,
            force=force,
            progress=progress,
        )
    emit(document, _render_plan if dry_run else _render)


def split_arguments(arguments: list[str]) -> tuple[str | None, list[str]]:
    """Return MODEL, if there is one, and the overrides. Raises for two models."""
    overrides = [a for a in arguments if "=" in a and not os.path.exists(a)]  # False for a name too long, too
    models = [a for a in arguments if a not in overrides]
    if len(models) > 1:
        raise typer.BadParameter(
            f"one MODEL at most, not {' and '.join(models)}; overrides are KEY=VALUE, in quotes if they hold spaces"
        )
    return (models[0] if models else None), overrides


def _render(document: dict[str, Any]) -> Any:
    from rich.console import Group

    from spgsurgeon.runs import basis_of
    from spgsurgeon.tasks import task_of

    task = task_of(document["original"])
    assert task is not None, "a run has the scores of its task"
    rows = [
        (when.replace("_", " "), *(metric.number(scores[metric.name]) for metric in task.metrics))
        for when in ("original", "head_start", "best", "last")
        if (scores := document[when])
    ]
    basis = basis_of(document["original"], document["head_start"], document["untrained"])
    found, style = _compared(document["best"], basis, task.primary)
    verdict = "; ".join(filter(None, (basis.said, found)))
    caution = "one run; the best checkpoint was chosen by these scores."
    if document["trp"]["kind"] not in CONTROLS:
        caution += f" The control: the same command with trp.kind={PLAIN} and another -o"
    summary = pairs([("result", coloured(verdict, style)), ("", caution), ("run", document["run"])])
    return Group(columns(("", *(metric.title for metric in task.metrics)), rows), summary)


def _compared(best: dict[str, Any], basis: Basis, metric: Metric) -> tuple[str | None, str]:
    """Return how the best score compares with what it is measured against, and in which style to say so."""
    if basis.scores is None:
        return None, OPEN
    one, other = best[metric.name], basis.scores[metric.name]
    change = f"{metric.number(abs(one - other))} {metric.difference}"
    if metric.better(other, one):
        keep = "keep the original, or " if basis.said is None else ""
        return f"worse than {basis.name} by {change}: {keep}try another learning rate", BAD
    if metric.better(one, other):
        return f"better than {basis.name} by {change}", GOOD
    return f"no gain over {basis.name}", OPEN


def _replicas(trp: dict[str, Any], passes: int) -> str:
    return replicas_from(trp).words() + (f", {passes} passes of the model a step" if passes > 1 else "")


def _split(data: dict[str, Any], samples: str) -> str:
    return f"{data['samples']} {samples} of {data['name']}{image_size(data)}"


def _looked_at(parts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what the samples that were looked at are, a row for each split."""
    found = [f"{one['looked_at']} of {name}: {'; '.join(facts(one))}" for name, one in parts.items()]
    return list(zip(("looked at", ""), found, strict=False))


def _time(document: dict[str, Any]) -> list[tuple[str, str]]:
    """Return how long the steps take, if a few were timed."""
    each = document["seconds_per_step"]
    if each is None:
        return []
    return [
        ("time", f"about {duration(each * document['steps'])} of steps, {each:.2g} s each here; scoring comes on top")
    ]


def _head_start(document: dict[str, Any]) -> str:
    if not document["head_start_steps"]:
        return "none"
    most = "at most " if document["head_start"]["until"] else ""
    what = "of the head alone" if document["head_start"]["freeze"] == "body" else "of the whole model"
    return f"{most}{document['head_start_steps']} of them: plain epochs {what}, before the episodes begin"


def _render_plan(document: dict[str, Any]) -> Any:
    from spgsurgeon.tasks import task_named

    task = task_named(document["task"])
    rates = document["learning_rates"]
    shown = [f"{rate:.3g}" for rate in rates]
    curve = " ".join(shown if len(shown) <= 12 else [*shown[:6], "...", *shown[-5:]])
    memory, data = document["estimated_memory_bytes"], document["data"]
    frozen = f"; {millions(count)} of the model's are frozen" if (count := document["frozen_parameters"]) else ""
    train, scored = (_split(data[part], task.trained_on) for part in ("train", "eval"))
    classes = f"; {data['classes']} classes" if task.has_classes else ""
    return pairs(
        [
            ("model", document["model"]),
            ("replicas", _replicas(document["trp"], document["passes"])),
            ("data", f"{train}; scored on {scored}{classes}"),
            *_looked_at(document["looked_at"]),
            ("on", f"{document['device']}, {document['precision']}, into {document['output']}"),
            ("steps", f"{document['steps']}, {document['steps_per_epoch']} an epoch"),
            *_time(document),
            ("head start", _head_start(document)),
            (
                "cold start",
                f"at most {cold} of them, which fill the optimizer's moments and move no weight"
                if (cold := document["cold_start_steps"])
                else "none",
            ),
            ("learning rate", f"at each epoch's start, those before the training left out: {curve}"),
            (
                "parameters",
                f"{millions(document['parameters'])} + {millions(document['temporary_parameters'])} temporary{frozen}",
            ),
            (
                "memory",
                f"about {gigabytes(memory['total'])} a process: {gigabytes(memory['activations'])} activations, "
                f"{gigabytes(memory['weights_gradients_moments'])} weights, gradients and moments",
            ),
        ]
    )
