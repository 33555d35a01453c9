"""`spgsurgeon compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from spgsurgeon.cli.terminal.comparison import comparison_tables
from spgsurgeon.cli.terminal.completion import listed_after_commas, model_names, one_of, recipe_names
from spgsurgeon.cli.terminal.console import emit, stage
from spgsurgeon.cli.terminal.options import (
    Arch,
    Force,
    MapKeys,
    NumClasses,
    RandomWeights,
    Task,
    Weights,
    check_weights,
)
from spgsurgeon.cli.terminal.text import columns, gigabytes, pairs
from spgsurgeon.cli.train import split_arguments
from spgsurgeon.comparing import BUILT_IN, PLAIN

_Arms = Annotated[
    str | None,
    typer.Option(
        "--arms",
        metavar="A,B,...",
        help=f"What to compare with plain: {', '.join(name for name in BUILT_IN if name != PLAIN)}, or the recipe's "
        "own (compare.arms).  [default: plain,spg]",
        autocompletion=listed_after_commas(*BUILT_IN),
    ),
]
_Seeds = Annotated[
    int | None,
    typer.Option("--seeds", help="How many; with 1 the interval is over images.  [default: 5]"),
]
_LearningRates = Annotated[
    str | None,
    typer.Option(
        "--learning-rates",
        metavar="A,B,...|auto",
        help="Multiples of the recipe's learning rate.  [default: 0.3,1,3]",
    ),
]
_Budget = Annotated[
    str | None,
    typer.Option(
        "--budget",
        metavar="epochs|seconds",
        help="What all arms have as much of.  [default: epochs]",
        autocompletion=one_of("epochs", "seconds"),
    ),
]
_ChoosingSeeds = Annotated[
    int | None,
    typer.Option(
        "--choosing-seeds",
        help="How many of the seeds choose learning rates (left out: all); the others train with the chosen ones.",
    ),
]
_Jobs = Annotated[int | None, typer.Option("--jobs", help="Runs at a time (default: one a GPU, else one a core).")]
_Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on with a comparison: what is left out is as it was started; only the grid may be wider, or auto.",
    ),
]

_DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check that all arms can be trained, print what would be done, write nothing.")
]


def command(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL|KEY=VALUE",
            help="What all arms start from (left out: the recipe's), and overrides of the recipe.",
            show_default=False,
            autocompletion=model_names,
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", help="A recipe file, or a shipped recipe's name.", autocompletion=recipe_names),
    ] = None,
    arms: _Arms = None,
    seeds: _Seeds = None,
    learning_rates: _LearningRates = None,
    budget: _Budget = None,
    choosing_seeds: _ChoosingSeeds = None,
    jobs: _Jobs = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where runs and results go.")] = Path("comparison"),
    resume: _Resume = False,
    random_weights: RandomWeights = False,
    num_classes: NumClasses = None,
    task: Task = None,
    arch: Arch = None,
    map_keys: MapKeys = None,
    weights: Weights = None,
    dry_run: _DryRun = False,
    force: Force = False,
) -> None:
    """Compare ways to train a model on your own data, at the same cost.

    Each arm starts from the same weights and has the same seeds, batches, steps and learning rates, chosen on a part of
    the training split (data.holdout, a fifth by default) that no run trains on; the chosen runs are scored on
    data.eval. Says gain, loss or no difference shown, with 95 % intervals.

    Example: `spgsurgeon compare base/ --recipe my.yaml --arms plain,spg,dropout -o comparison/`

    After any interruption: `spgsurgeon compare --resume -o comparison/`
    """
    from spgsurgeon.cli.terminal.progress import ComparisonProgress
    from spgsurgeon.commands.compare import compare

    check_weights(weights)
    model, overrides = split_arguments(arguments or [])
    with ComparisonProgress(output):
        document, costs = compare(
            model,
            recipe=recipe,
            overrides=overrides,
            arms=None if arms is None else [name.strip() for name in arms.split(",")],
            seeds=seeds,
            learning_rates=_grid(learning_rates),
            budget=budget,
            choosing_seeds=choosing_seeds,
            jobs=jobs,
            output=output,
            resume=resume,
            dry_run=dry_run,
            force=force,
            random_weights=random_weights,
            num_classes=num_classes,
            weights=weights,
            arch=arch,
            task=task,
            map_keys=map_keys,
            say=stage,
        )
    emit(document, _render_plan if dry_run else lambda found: _render(found, costs, output))


def _grid(text: str | None) -> list[float] | Literal["auto"] | None:
    if text is None:
        return None
    if text == "auto":
        return "auto"
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        hint = "'--learning-rates'"
        raise typer.BadParameter(f"{text!r} is neither auto nor numbers with commas between", param_hint=hint) from None


def _render(document: dict[str, Any], costs: dict[str, Any], output: Path) -> Any:
    from rich.console import Group

    from spgsurgeon.comparing import COST_HEAD, COSTS, DOCUMENT, FIGURES, TABLE, cost_rows, remarks

    return Group(
        *comparison_tables(document),
        "",
        pairs(remarks(document)),
        "",
        columns(COST_HEAD, cost_rows(costs)),
        "",
        pairs([("files", f"{output / TABLE}, {DOCUMENT}, {COSTS}, {FIGURES}/")]),
    )


_CACHES = {
    "none": "none: each run decodes its images in each epoch",
    "memory": "memory: images stay decoded, once for all runs",
    "device": "device: images stay decoded on it, once for each run",
}
_OUTPUTS = {
    "new": "which is new",
    "resumed": "which is resumed",
    "replaced": "which is replaced",
    "in the way": "which exists: resume with --resume if it is a comparison, --force to replace it, or give another -o",
}


def _render_plan(document: dict[str, Any]) -> Any:
    from spgsurgeon.comparing import of_the_base

    arms, rates = document["arms"], document["learning_rates"]
    steps = [f"{name} {arm['steps']:,}" for name, arm in arms.items() if arm["steps"] is not None]
    memory = [arm["estimated_memory_bytes"] for arm in arms.values() if arm["steps"] is not None]
    return pairs(
        [
            ("model", document["model"]),
            *(("base", text) for text in of_the_base(document["base_seen"])),
            ("learning rates", ", ".join(f"{rate:g}" for rate in rates) + " and more" * (document["grid"] == "auto")),
            ("seeds", ", ".join(map(str, document["seeds"])) + _choosers(document)),
            ("epochs", ", ".join(f"{name} {arm['epochs']}" for name, arm in arms.items())),
            *([("steps", f"of a run: {', '.join(steps)}")] if steps else []),
            ("runs", f"{document['runs']}, of which {document['done']} are done, {_at_a_time(document)}"),
            *([("memory", f"about {gigabytes(max(memory))} for the largest of them")] if memory else []),
            ("chosen by", document["chosen_on"]),
            ("scored on", document["scored_on"]),
            ("cache", _CACHES[document["cache"]]),
            ("into", f"{document['output']}, {_OUTPUTS[document['output_is']]}"),
        ]
    )


def _choosers(document: dict[str, Any]) -> str:
    choosing = document["choosing_seeds"]
    return "" if choosing == document["seeds"] else f"; learning rates are chosen by {', '.join(map(str, choosing))}"


def _at_a_time(document: dict[str, Any]) -> str:
    return f"{document['jobs']} at a time on {', '.join(document['devices'])}"
