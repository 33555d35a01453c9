"""`spgsurgeon bench`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from spgsurgeon.cli.terminal.completion import data_sources, recipe_names
from spgsurgeon.cli.terminal.console import emit, working
from spgsurgeon.cli.terminal.options import Arch, MapKeys, Model, NumClasses, Task, Weights, check_weights
from spgsurgeon.cli.terminal.text import columns, gigabytes, millions, pairs
from spgsurgeon.data import spelled
from spgsurgeon.errors import UsageError
from spgsurgeon.replicas.kinds import replicas_from
from spgsurgeon.runtime import DEVICES

_Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Overrides of the recipe: trp.replicas=2.", show_default=False),
]
_Recipe = Annotated[
    str | None,
    typer.Option(
        "--recipe", help="A recipe file, or a shipped recipe's name (else the defaults).", autocompletion=recipe_names
    ),
]
_Arms = Annotated[
    str,
    typer.Option(
        "--arms",
        metavar="A,B,...",
        help="What to measure beside plain and grafted: rollouts (a forward pass for each step of an episode), "
        "sequential (trp.head_batch), deterministic (torch's algorithms), timm or trainer (the plain "
        "step of timm's training script or of transformers' Trainer).",
    ),
]
_Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="FOLDER|NAME|recipe",
        help=f"Time the loader, too: on a folder with train/, {spelled()}, or what the recipe says.",
        autocompletion=data_sources,
    ),
]
_BatchSize = Annotated[int | None, typer.Option("--batch-size", min=1, help="Images a step (training.batch_size).")]
_ImageSize = Annotated[int | None, typer.Option("--image-size", min=1, help="Pixels; the model's own if left out.")]
_Precision = Annotated[
    str | None, typer.Option("--precision", help="auto, float32, bfloat16, float16 (training.precision).")
]
_Compiles = Annotated[bool, typer.Option("--compile", help="By torch.compile (training.compile).")]
_Device = Annotated[str | None, typer.Option("--device", help=f"{DEVICES}.")]
_Blocks = Annotated[int, typer.Option("--blocks", help="How many each arm has, 20 at least.")]
_Steps = Annotated[
    int | None, typer.Option("--steps", min=1, help="Steps a block; as many as last a quarter of a second.")
]
_Threads = Annotated[int | None, typer.Option("--threads", min=1, help="torch's threads on the CPU.")]


def command(
    model: Model,
    overrides: _Overrides = None,
    recipe: _Recipe = None,
    arms: _Arms = "plain,grafted",
    data: _Data = None,
    batch_size: _BatchSize = None,
    image_size: _ImageSize = None,
    num_classes: NumClasses = None,
    precision: _Precision = None,
    compiles: _Compiles = False,
    device: _Device = None,
    blocks: _Blocks = 20,
    steps: _Steps = None,
    threads: _Threads = None,
    task: Task = None,
    arch: Arch = None,
    map_keys: MapKeys = None,
    weights: Weights = None,
) -> None:
    """Measure what a training step costs: plain against grafted.

    Both take the steps of `train`, with the same weights and images, in interleaved blocks in one process. Says
    images a second, their ratios with 95 % intervals, memory, operators or CUDA kernels a step. A model by name has
    random weights, and without --data the images are noise: speed depends on neither.

    Example: `spgsurgeon bench timm/resnet50 --batch-size 8 --arms rollouts,timm`
    """
    from spgsurgeon.commands.bench import bench

    check_weights(weights)
    given = {
        "training.batch_size": batch_size,
        "data.image_size": image_size,
        "training.precision": precision,
        "training.compile": compiles or None,
        "training.device": device,
    }
    asked = [f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None]
    _refuse_twice(asked, overrides or [])
    with working("measuring"):
        document = bench(
            model,
            recipe=recipe,
            overrides=[*asked, *(overrides or [])],
            arms=[name.strip() for name in arms.split(",")],
            data=data,
            blocks=blocks,
            steps=steps,
            threads=threads,
            weights=weights,
            arch=arch,
            num_classes=num_classes,
            task=task,
            map_keys=map_keys,
        )
    emit(document, _render)


_ARMS = ("plain", "grafted", "sequential", "rollouts", "deterministic", "timm", "trainer")


def _refuse_twice(asked: list[str], overrides: list[str]) -> None:
    """Raise UsageError if an override says what an option says."""
    keys = [text.partition("=")[0] for text in asked]
    if twice := [text for text in overrides if text.partition("=")[0] in keys]:
        raise UsageError(f"{twice[0]} says again what an option says", hint="give the option or the override")


def _render(document: dict[str, Any]) -> Any:
    from rich.console import Group

    names = [name for name in _ARMS if name in document]
    kernels = document["plain"]["kernels_per_step"] is not None
    head = ("", "samples/s", "memory", "kept for backward", "kernels" if kernels else "operators", "first step")
    rows = [_row(name, document[name], document["plain"], kernels) for name in names]
    return Group(columns(head, rows), "", pairs(_ratios(document)), "", pairs(_circumstances(document)))


def _row(name: str, arm: dict[str, Any], plain: dict[str, Any], kernels: bool) -> tuple[str, ...]:
    return (
        name,
        f"{arm['images_per_second']:.4g}",
        _memory(arm, plain, "peak_memory_bytes"),
        _memory(arm, plain, "kept_for_backward_bytes"),
        f"{arm['kernels_per_step' if kernels else 'operators_per_step']:,}",
        f"{arm['first_step_seconds']:.2f} s",
    )


def _memory(arm: dict[str, Any], plain: dict[str, Any], key: str) -> str:
    if arm[key] is None:
        return "-"
    return gigabytes(arm[key]) + (f" ({arm[key] / plain[key]:.3f} x)" if arm is not plain and plain[key] else "")


def _ratios(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for ratio in document["ratios"]:
        by_processor = ratio["processor_time"]
        also = f"; by processor time {_interval(by_processor)}" if by_processor else ""
        yield f"{ratio['of']} / {ratio['to']}", _interval(ratio) + also
    if loader := document.get("end_to_end"):
        rates = [f"{loader[key]:.4g}" for key in ("images_per_second", "synthetic_images_per_second")]
        yield "end to end", f"{_interval(loader['ratio'])}: {rates[0]} samples/s of {rates[1]} without reading"
        yield "", f"{loader['waiting_share']:.1%} of the time waiting for data, {loader['workers']} workers"


def _interval(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f})"


def _circumstances(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    settings, machine, grafted = document["settings"], document["machine"], document["grafted"]
    if size := settings.get("image_size"):
        samples = f"images of {size[0]} x {size[1]} pixels"
    else:
        samples = f"samples of length {settings['length']}"
    accumulated = f" x {settings['accumulate']}" if settings["accumulate"] > 1 else ""
    yield (
        "ratios",
        f"of images a second, medians of {document['blocks']} interleaved blocks of {document['steps']} steps",
    )
    yield "", "in brackets their 95 % intervals"
    yield "model", document["model"]
    yield "replicas", replicas_from(document["trp"]).words()
    own = gigabytes(grafted["replica_bytes"])
    yield "", f"{millions(document['temporary_parameters'])} temporary parameters, {own} with gradients and moments"
    yield (
        "steps",
        f"{settings['batch_size']}{accumulated} {samples} ({settings['data']}), "
        f"{settings['optimizer']}, {settings['precision']}{', compiled' if settings['compile'] else ''}",
    )
    if shares := settings.get("valid_share"):
        yield "episodes", f"run at {' '.join(f'{100 * share:.0f} %' for share in shares)} of the tokens, step by step"
    threads = f", {machine['threads']} threads" if machine["device_type"] == "cpu" else ""
    yield "on", f"{machine['device']}{threads}, torch {machine['torch']}"
