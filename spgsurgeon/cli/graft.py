"""`spgsurgeon graft`."""

from __future__ import annotations

from shlex import quote
from typing import Annotated, Any

import typer

from spgsurgeon.cli.console import emit, millions, pairs, proof_lines, several, working
from spgsurgeon.cli.options import Arch, Force, Model, Output, RandomWeights, Weights, check_weights


def command(
    model: Model,
    output: Output,
    trp: Annotated[str, typer.Option("--trp", help="Kind of replica: dropout.")] = "dropout",
    replicas: Annotated[int, typer.Option("--replicas", help="How many, T; an episode has T + 1 steps.")] = 3,
    rate: Annotated[float, typer.Option("--rate", help="Dropout rate of each replica, 0 <= rate < 1.")] = 0.2,
    num_classes: Annotated[
        int | None, typer.Option("--num-classes", min=1, help="Give the model a new, untrained head.")
    ] = None,
    arch: Arch = None,
    weights: Weights = None,
    random_weights: RandomWeights = False,
    force: Force = False,
) -> None:
    """Add temporary replicas to a base.

    Nothing is written before it is proven that outputs and weights are the base's, bit for bit.

    Example: `spgsurgeon graft timm/resnet50.a1_in1k -o grafted/`
    """
    from spgsurgeon.workflows.graft import graft_folder

    check_weights(weights)
    if not 0 <= rate < 1:
        raise typer.BadParameter(f"rate {rate} is outside [0, 1)", param_hint="'--rate'")
    if replicas < 1:
        raise typer.BadParameter(f"{replicas} replicas: at least one is needed", param_hint="'--replicas'")
    if trp != "dropout":
        raise typer.BadParameter(f"{trp!r} is not a kind of replica; there is dropout", param_hint="'--trp'")
    with working("grafting, proving, writing"):
        document = graft_folder(
            model,
            output,
            trp=trp,
            replicas=replicas,
            rate=rate,
            num_classes=num_classes,
            weights=weights,
            arch=arch,
            random_seed=0 if random_weights else None,
            force=force,
        )
    emit(document, _render)


def _render(document: dict[str, Any]) -> Any:
    trp, base = document["trp"], document["base"]
    site = several(base["head"]["module"])
    return pairs(
        [
            ("base", f"{base['library']}/{base['architecture']}, {millions(base['parameters'])} parameters"),
            (
                "grafted",
                f"{trp['replicas']} {trp['kind']} replicas, rate {trp['rate']}, before {site}",
            ),
            ("temporary", f"{millions(document['temporary_parameters'])} parameters"),
            ("proof", proof_lines(document["proof"])),
            ("written to", document["output"]),
            ("next", f"spgsurgeon train {quote(document['output'])} --recipe RECIPE -o RUN/"),
        ]
    )
