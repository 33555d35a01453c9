"""Arguments and options that several verbs share."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from spgsurgeon.cli.terminal.completion import model_names
from spgsurgeon.cli.terminal.console import speaks, stdout_for_data_only, verbosity
from spgsurgeon.cli.terminal.first_line import show_first_line

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="timm/NAME[.TAG], torchvision/NAME[.WEIGHTS], transformers/NAME, hf-hub:OWNER/NAME, a weights file, or a "
        "folder (Hub, grafted, run).",
        show_default=False,
        autocompletion=model_names,
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="ema|raw|NAME",
        help="Which weights, where a file has several: a moving average, or a section or attribute by its name.",
    ),
]
Arch = Annotated[
    str | None,
    typer.Option(
        "--arch",
        metavar="LIB/NAME",
        help="Architecture of a file that does not say it: timm/resnet50.",
        autocompletion=model_names,
    ),
]
RandomWeights = Annotated[
    bool, typer.Option("--random-weights", help="Random weights for a model by name, instead of pretrained ones.")
]
NumClasses = Annotated[int | None, typer.Option("--num-classes", min=1, help="Give the model a new, untrained head.")]
ImageSize = Annotated[
    str | None,
    typer.Option(
        "--image-size",
        metavar="N|HxW",
        help="Pixels of the images that the model of a bare file was built for, such as 128x512.",
        show_default="by its weights",
    ),
]
MapKeys = Annotated[
    str | None,
    typer.Option(
        "--map-keys",
        metavar="by-order",
        help="With --arch, for weights under others' keys: tensors of the same shapes in the same order.",
    ),
]
Task = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="Models of transformers: what for, where the model has another head or none: text-classification, "
        "token-classification, question-answering, ...",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing output.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Where to write.", show_default=False)]


def check_weights(weights: str | None) -> None:
    """Raise for an empty --weights; which names there are, only the file says."""
    if weights == "":
        raise typer.BadParameter("it is empty; say ema, raw or a name", param_hint="'--weights'")


def height_and_width(text: str | None) -> tuple[int, int] | None:
    """Return what `320` or `180x240` says."""
    if text is None:
        return None
    found = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is neither N nor HxW, such as 320 or 180x240", param_hint="'--image-size'")
    return int(found[1]), int(found[2] or found[1])


_COMMON = {
    "json": Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")],
    "quiet": Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes.")],
    "verbose": Annotated[
        int,
        typer.Option(
            "--verbose",
            "-v",
            count=True,
            show_default=False,
            help="Show warnings; -vv: a traceback where something fails.",
        ),
    ],
}


def with_common_options(command: Callable[..., None], *, loads: str | None = None) -> Callable[..., None]:
    """Return the command with --json, --quiet and --verbose, which every verb has and none reads itself.

    `loads` is what it imports that takes seconds, which a terminal shows meanwhile.
    """

    @wraps(command)
    def wrapper(*arguments: Any, json: bool, quiet: bool, verbose: int, **options: Any) -> None:
        verbosity.json, verbosity.quiet, verbosity.verbose = json, quiet, verbose
        if loads is not None and loads not in sys.modules and not quiet and speaks():
            show_first_line(f"loading {loads} ...")
        with stdout_for_data_only():
            command(*arguments, **options)

    own = inspect.signature(command, eval_str=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    added = [
        inspect.Parameter(name, keyword, default=0 if name == "verbose" else False, annotation=annotation)
        for name, annotation in _COMMON.items()
    ]
    parameters = [*own.parameters.values(), *added]
    # Typer reads both, and older versions the second one only.
    wrapper.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapper
