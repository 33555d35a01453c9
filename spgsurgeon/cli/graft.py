"""`spgsurgeon graft`."""

from __future__ import annotations

from shlex import quote
from typing import Annotated, Any

import typer

from spgsurgeon.cli.terminal.completion import one_of
from spgsurgeon.cli.terminal.console import emit, working
from spgsurgeon.cli.terminal.options import (
    Arch,
    Force,
    ImageSize,
    MapKeys,
    Model,
    NumClasses,
    Output,
    RandomWeights,
    Task,
    Weights,
    check_weights,
    height_and_width,
)
from spgsurgeon.cli.terminal.text import millions, pairs, proof_lines
from spgsurgeon.replicas.kinds import DEFAULT, REPLICAS, replicas_from

Trp = Annotated[
    str, typer.Option("--trp", help=f"Kind of replicas: {', '.join(REPLICAS)}.", autocompletion=one_of(*REPLICAS))
]
Replicas = Annotated[
    int | None, typer.Option("--replicas", help="How many, T; an episode has T + 1 steps.  [default: 3]")
]
Rate = Annotated[float | None, typer.Option("--rate", help="Dropout rate of each step, 0 <= rate < 1.  [default: 0.2]")]
Blocks = Annotated[
    int | None, typer.Option("--blocks", help="Blocks of each replica that adds some; left out, by architecture.")
]
Block = Annotated[
    str | None,
    typer.Option("--block", help="What blocks: bottleneck or inverted-residual, for maps; left out, by architecture."),
]
Init = Annotated[str | None, typer.Option("--init", help="How blocks start: identity, all-zero.  [default: identity]")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any setting of the kind, by its key in a recipe: rate=0.1."),
]


def command(
    model: Model,
    output: Output,
    trp: Trp = DEFAULT,
    replicas: Replicas = None,
    rate: Rate = None,
    blocks: Blocks = None,
    block: Block = None,
    init: Init = None,
    settings: Settings = None,
    num_classes: NumClasses = None,
    task: Task = None,
    arch: Arch = None,
    map_keys: MapKeys = None,
    weights: Weights = None,
    random_weights: RandomWeights = False,
    image_size: ImageSize = None,
    force: Force = False,
) -> None:
    """Add temporary replicas to a base.

    Nothing is written before it is proven that outputs and weights are the base's, bit for bit.

    Example: `spgsurgeon graft timm/resnet50.a1_in1k -o grafted/`

    Deeper: `spgsurgeon graft torchvision/resnet18 --trp depth -o grafted/`
    """
    from spgsurgeon.commands.graft import graft_folder
    from spgsurgeon.recipe import read_settings, replicas_of

    check_weights(weights)
    given = {"replicas": replicas, "rate": rate, "blocks": blocks, "block": block, "init": init}
    asked = replicas_of(trp, given | read_settings("trp", settings or []))
    with working("grafting, proving, writing"):
        document = graft_folder(
            model,
            output,
            replicas=asked,
            num_classes=num_classes,
            weights=weights,
            arch=arch,
            random_seed=0 if random_weights else None,
            task=task,
            image_size=height_and_width(image_size),
            map_keys=map_keys,
            force=force,
        )
    emit(document, _render)


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
    replicas = replicas_from(document["trp"])
    return f"{replicas.words()}, {replicas.site_in_words(document['site'])}"
