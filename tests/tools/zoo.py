"""The zoo table: every architecture of both libraries, recognised by its keys and shapes, grafted, proven, stripped.

    python tests/tools/zoo.py -o zoo.jsonl --jobs 2        # goes on where it was stopped; two hours on two cores
    python tests/tools/zoo.py -o zoo.jsonl --table         # the table so far

Each architecture is built with an unusual number of classes, so that recognition is not by the default one. The laws
are checked with real numbers (random weights, two images) where the model is small enough for that, at the smallest
size of image that it takes; else shapes and keys are checked on the meta device, and the table says so. All of that
for replicas of dropout, and for those of depth where the family has them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import signal
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spgsurgeon.commands.modules import graft, strip
from spgsurgeon.errors import SurgeonError
from spgsurgeon.models.libraries.building import build, build_for_loading
from spgsurgeon.models.libraries.identity import Identity
from spgsurgeon.models.libraries.registry import LIBRARIES, library
from spgsurgeon.models.recognition.identification import identify
from spgsurgeon.models.sites.depth import find_depth_site
from spgsurgeon.models.sites.heads import DepthSite
from spgsurgeon.replicas.grafted import GraftedModel, layout_of
from spgsurgeon.surgery.proof import example_images, fingerprint, prove_graft, prove_strip

CLASSES = 7
REPLICAS = 2
SIZES = (64, 128)  # pixels tried before the model's own
LARGEST = 100_000_000  # parameters for real numbers
PIXELS = 400 * 400  # the largest image for real numbers
MINUTES = 4  # for one architecture


def examine(library_name: str, architecture: str) -> dict[str, Any]:
    """Return the row of one architecture."""
    row: dict[str, Any] = {"library": library_name, "architecture": architecture}
    started = time.perf_counter()
    try:
        # Inception's own initialisation overflows in eval mode.
        args = {"init_weights": False} if architecture == "inception_v3" and library_name == "torchvision" else {}
        identity = Identity(library_name, architecture, CLASSES, args)
        module = _on_meta(identity)
        row["parameters"] = sum(p.numel() for p in module.parameters())
        row["identified"] = _identified(identity, module)
        row |= _operate(identity, module)
    except SurgeonError as error:
        row["reason"] = error.message
    except Exception as error:
        row["reason"] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return row | {"seconds": round(time.perf_counter() - started, 1)}


def _on_meta(identity: Identity) -> nn.Module:
    try:
        with torch.device("meta"):
            return build(identity)
    except SurgeonError:  # torchvision's RegNets read numbers while they are built
        return build_for_loading(identity).to("meta")


def _identified(identity: Identity, module: nn.Module) -> str:
    shapes = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    names = [match.entry.name for match in identify(shapes).matches]
    if identity.name not in names:
        return "no"
    return "yes" if len(names) == 1 else f"one of {len(names)}"


def _operate(identity: Identity, on_meta: nn.Module) -> dict[str, Any]:
    """Graft, prove and strip: with real numbers where the size allows, else on the meta device."""
    own = library(identity.library).preprocessing(identity, on_meta).input_size
    small = sum(p.numel() for p in on_meta.parameters()) <= LARGEST
    size = _smallest(on_meta, own) if small else own
    if small and size[1] * size[2] <= PIXELS:
        module, forward, check = build(identity), "real", _with_numbers
    else:
        module, forward, check = on_meta, "meta", _without_numbers
    row = {"forward": forward, "size": size[1]} | check(module, size, "dropout")
    site = _depth_site(on_meta, size)
    if site is None:
        return row | {"depth": None}
    found, expected = check(module, size, "depth")["temporary"], site.temporary_parameters(REPLICAS)
    if found != expected:
        raise AssertionError(f"replicas of depth have {found} parameters, expected {expected}")
    return row | {"depth": site.family}


def _depth_site(module: nn.Module, size: tuple[int, int, int]) -> DepthSite | None:
    """Return where replicas of depth attach; None if they are not known for the family."""
    try:
        return find_depth_site(module, torch.empty(1, *size, device="meta"))
    except SurgeonError as error:
        if "not known" in error.message or "are for classifiers" in error.message:
            return None
        raise


def _smallest(module: nn.Module, own: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return the smallest size of image that the model takes, tried on the meta device."""
    for pixels in SIZES:
        if pixels < own[1]:
            with suppress(Exception), torch.no_grad():
                module.train()(torch.empty(2, own[0], pixels, pixels, device="meta"))
                return own[0], pixels, pixels
    return own


def _with_numbers(module: nn.Module, size: tuple[int, int, int], kind: str) -> dict[str, Any]:
    images = example_images(module, size)
    before, layout = fingerprint(module, images), layout_of(module)
    grafted = graft(module, kind, replicas=REPLICAS, example=images[:1]).eval()
    row = _sites(grafted)
    prove_graft(grafted, before, images)  # laws 1 and 2
    prove_strip(before.outputs, strip(grafted), layout, images)  # laws 3 and 4
    if fingerprint(module, images).content_hash != before.content_hash:
        raise AssertionError("strip(graft(m)) has other values than m")
    return row | {"laws": "1 2 3 4"}


def _without_numbers(module: nn.Module, size: tuple[int, int, int], kind: str) -> dict[str, Any]:
    images, layout = torch.empty(2, *size, device="meta"), layout_of(module)
    grafted = graft(module, kind, replicas=REPLICAS, example=images[:1])
    row = _sites(grafted)
    rows = grafted.train()(images).shape[0]
    if rows != (REPLICAS + 1) * 2:
        raise AssertionError(f"{rows} rows of logits, expected {(REPLICAS + 1) * 2}")
    if layout_of(strip(grafted)) != layout:
        raise AssertionError("strip(graft(m)) has another layout than m")
    return row | {"laws": "shapes and keys"}


def _sites(grafted: GraftedModel) -> dict[str, Any]:
    modules = dict.fromkeys(place.module for place in grafted.places)
    return {"head": list(modules), "temporary": sum(p.numel() for p in grafted.replicas.parameters())}


@contextmanager
def _alarm(seconds: int) -> Iterator[None]:
    def give_up(*_: object) -> None:
        raise TimeoutError(f"took more than {seconds} s")

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def _work(name: tuple[str, str]) -> dict[str, Any]:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    try:
        with _alarm(60 * MINUTES):
            return examine(*name)
    except TimeoutError as error:
        return {"library": name[0], "architecture": name[1], "reason": str(error)}


def walk(output: Path, jobs: int, only: str) -> None:
    """Examine every architecture that `output` does not have yet, a line each."""
    done = {(row["library"], row["architecture"]) for row in rows_of(output)}
    names = [
        (owner, name) for owner in LIBRARIES for name in library(owner).architectures() if only in f"{owner}/{name}"
    ]
    left = [name for name in names if name not in done]
    with multiprocessing.get_context("spawn").Pool(jobs, maxtasksperchild=40) as pool, output.open("a") as file:
        for count, row in enumerate(pool.imap_unordered(_work, left), start=1):
            file.write(json.dumps(row) + "\n")
            file.flush()
            state = row.get("laws") or f"REFUSED: {row['reason']}"
            print(
                f"{count}/{len(left)} {row['library']}/{row['architecture']}: {row.get('identified')}; {state}",
                flush=True,
            )


def rows_of(output: Path) -> list[dict[str, Any]]:
    """Return the rows written so far, sorted by name."""
    lines = output.read_text().splitlines() if output.exists() else []
    return sorted((json.loads(line) for line in lines), key=lambda row: (row["library"], row["architecture"]))


def table(rows: list[dict[str, Any]]) -> str:
    """Return the zoo table as Markdown, and the sums below it."""
    lines = ["| architecture | identified | head | depth | proven | reason if not |", "|---|---|---|---|---|---|"]
    for row in rows:
        proven = f"{row['laws']} ({row['forward']}, {row['size']} px)" if "laws" in row else ""
        name, head = f"{row['library']}/{row['architecture']}", " ".join(row.get("head", []))
        cells = (name, row.get("identified", ""), head, row.get("depth") or "")
        lines.append(f"| {' | '.join(cells)} | {proven} | {row.get('reason', '')} |")
    identified = Counter(
        "one of several" if str(r.get("identified")).startswith("one") else r.get("identified") for r in rows
    )
    proven = Counter(row["forward"] if "laws" in row else "refused" for row in rows)
    return "\n".join([*lines, "", f"identified: {dict(identified)}", f"proven: {dict(proven)} of {len(rows)}"])


def main() -> None:
    """Walk the zoo, or print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("zoo.jsonl"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="", help="architectures whose name contains this")
    parser.add_argument("--table", action="store_true", help="print the table of what was examined so far")
    options = parser.parse_args()
    if options.table:
        print(table(rows_of(options.output)))
    else:
        walk(options.output, options.jobs, options.only)


if __name__ == "__main__":
    main()
