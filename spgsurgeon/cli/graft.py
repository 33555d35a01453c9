"""`spgsurgeon graft`."""

from __future__ import annotations

from shlex import quote
from typing import Annotated, Any

import typer

from spgsurgeon.cli.terminal.console import emit, millions, pairs, proof_lines, several, working
from spgsurgeon.cli.terminal.options import (
    Arch,
    Force,
    Model,
    NumClasses,
    Output,
    RandomWeights,
    Weights,
    check_weights,
)
from spgsurgeon.errors import did_you_mean

_KINDS: dict[str, tuple[str, ...]] = {"dropout": ("rate",), "depth": ("blocks", "block", "init")}


def command(
    model: Model,
    output: Output,
    trp: Annotated[str, typer.Option("--trp", help="Kind of replica: dropout (at the head), depth.")] = "dropout",
    replicas: Annotated[int, typer.Option("--replicas", help="How many, T; an episode has T + 1 steps.")] = 3,
    rate: Annotated[
        float | None, typer.Option("--rate", help="Dropout: rate of each replica, 0 <= rate < 1.  [default: 0.2]")
    ] = None,
    blocks: Annotated[
        int | None, typer.Option("--blocks", help="Depth: blocks of each replica; by the architecture if left out.")
    ] = None,
    block: Annotated[
        str | None,
        typer.Option(
            "--block", help="Depth: bottleneck or inverted-residual, for maps; by the architecture if left out."
        ),
    ] = None,
    init: Annotated[
        str | None, typer.Option("--init", help="Depth: how blocks start: identity, all-zero.  [default: identity]")
    ] = None,
    num_classes: NumClasses = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            help="Models of transformers: what for, where the model has another head or none: text-classification, "
            "token-classification, question-answering, ...",
        ),
    ] = None,
    arch: Arch = None,
    weights: Weights = None,
    random_weights: RandomWeights = False,
    force: Force = False,
) -> None:
    """Add temporary replicas to a base.

    Nothing is written before it is proven that outputs and weights are the base's, bit for bit.

    Example: `spgsurgeon graft timm/resnet50.a1_in1k -o grafted/`

    Deeper: `spgsurgeon graft torchvision/resnet18 --trp depth -o grafted/`
    """
    from spgsurgeon.commands.graft import graft_folder
    from spgsurgeon.surgery.attaching import Replicas

    check_weights(weights)
    settings = _settings(trp, replicas, rate=rate, blocks=blocks, block=block, init=init)
    with working("grafting, proving, writing"):
        document = graft_folder(
            model,
            output,
            replicas=Replicas(trp, replicas, **settings),
            num_classes=num_classes,
            weights=weights,
            arch=arch,
            random_seed=0 if random_weights else None,
            task=task,
            force=force,
        )
    emit(document, _render)


def _settings(trp: str, replicas: int, **given: Any) -> dict[str, Any]:
    """Return the settings of the replicas that are given. Raises for those of another kind, or out of range."""
    if trp not in _KINDS:
        near = did_you_mean(trp, _KINDS) or f"there are {' and '.join(_KINDS)}"
        raise typer.BadParameter(f"{trp!r} is not a kind of replica; {near}", param_hint="'--trp'")
    settings = {key: value for key, value in given.items() if value is not None}
    if foreign := [f"--{key}" for key in settings if key not in _KINDS[trp]]:
        raise typer.BadParameter(f"not a setting of {trp} replicas", param_hint=f"'{foreign[0]}'")
    rate, blocks = settings.get("rate", 0), settings.get("blocks", 1)
    if not 0 <= rate < 1:
        raise typer.BadParameter(f"rate {rate} is outside [0, 1)", param_hint="'--rate'")
    if replicas < 1:
        raise typer.BadParameter(f"{replicas} replicas: at least one is needed", param_hint="'--replicas'")
    if blocks < 1:
        raise typer.BadParameter(f"{blocks} blocks: a replica has at least one", param_hint="'--blocks'")
    return settings


def _render(document: dict[str, Any]) -> Any:
    base = document["base"]
    return pairs(
        [
            ("base", f"{base['library']}/{base['architecture']}, {millions(base['parameters'])} parameters"),
            ("grafted", _replicas(document)),
            ("temporary", f"{millions(document['temporary_parameters'])} parameters"),
            ("proof", proof_lines(document["proof"])),
            ("written to", document["output"]),
            ("next", f"spgsurgeon train {quote(document['output'])} --recipe RECIPE -o RUN/"),
        ]
    )


def _replicas(document: dict[str, Any]) -> str:
    trp, base = document["trp"], document["base"]
    if trp["kind"] == "dropout":
        modules = base["head"]["module"]
        head = several(list(dict.fromkeys(modules)) if isinstance(modules, list) else modules)
        return f"{trp['replicas']} dropout replicas, rate {trp['rate']}, before {head}"
    site = base["sites"]["depth"]
    blocks = f"{trp['blocks']} {trp['block']} block{'s' if trp['blocks'] > 1 else ''}"
    return f"{trp['replicas']} depth replicas, {blocks} each, after {site['module']}"
