"""Change weights files at random, and the shapes in them, and let the readers and the recognition read them.

Not a test but a search: `python tests/tools/fuzz_checkpoints.py --cases 5000 --seed 0`. Two thirds of the cases change
bytes of safetensors files, torch archives and legacy torch files. The others change shapes and keys of models of timm
and torchvision, without numbers: a dimension more or less, zero, one, millions, keys gone or exchanged. Every case must
end with an answer or a short error of this package. Prints the others and leaves with 1 if there are any.
"""

from __future__ import annotations

import argparse
import io
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "support"))
sys.path.append(str(Path(__file__).parents[1] / "attacks"))

import torch
from mutations import BINARY, TEXT, mutated
from safetensors.torch import save

from spgsurgeon.checkpoint.reading import read_outline
from spgsurgeon.checkpoint.tensors import read_checkpoint
from spgsurgeon.errors import SurgeonError
from spgsurgeon.models.libraries.building import build, fit_identity
from spgsurgeon.models.libraries.identity import Identity
from spgsurgeon.models.libraries.registry import library
from spgsurgeon.models.recognition.identification import identify

SECONDS = 20  # of one case
LONGEST = 4000  # characters of a message
MODELS = (
    *(("timm", name) for name in ("test_resnet", "test_vit", "test_convnext", "test_efficientnet", "test_mambaout")),
    *(("torchvision", name) for name in ("vit_b_16", "mobilenet_v3_small", "googlenet", "lraspp_mobilenet_v3_large")),
)
Shapes = dict[str, tuple[int, ...]]


@dataclass
class Findings:
    """What was tried, how it ended, and what was wrong."""

    cases: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


@cache
def files() -> dict[str, bytes]:
    """Return a good file of each format, by its ending."""
    state = {"conv.weight": torch.rand(4, 3, 3, 3), "bn.mean": torch.rand(4), "fc.weight": torch.rand(2, 4).half()}
    made = {"safetensors": save(state, {"format": "pt"})}
    for name, new in (("pth", True), ("pt", False)):
        buffer = io.BytesIO()
        tree = {"model": state, "args": {"model": "resnet18"}, "epoch": 3}
        torch.save(tree, buffer, _use_new_zipfile_serialization=new)
        made[name] = buffer.getvalue()
    return made


@cache
def shapes_of(owner: str, architecture: str) -> Shapes:
    """Return the shapes of a model's tensors, by its keys."""
    with torch.device("meta"):
        module = build(Identity(owner, architecture, library(owner).default_classes(architecture)))
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def misshapen(shapes: Shapes, rng: random.Random) -> Shapes:
    """Return shapes with one to four changes, mostly one; those of positions and first layers often."""
    made = dict(shapes)
    telling = [key for key in made if any(word in key for word in ("pos_embed", "conv_proj", "head", "fc", "stem"))]
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        keys = list(made)
        if not keys:
            break
        key = rng.choice([name for name in telling if name in made] or keys) if rng.random() < 0.6 else rng.choice(keys)
        shape, way = list(made[key]), rng.randrange(8)
        if way == 0:
            del made[key]
        elif way == 1:
            made[key] = made[rng.choice(keys)]
        elif way == 2:
            made[key] = ()
        elif way == 3:
            made[key] = tuple(shape[: rng.randrange(len(shape) + 1)])
        elif way == 4:
            made[key] = (*shape, rng.choice((0, 1, 3)))
        elif way == 5:
            made[rng.choice(("module." + key, key + ".x", "", "\x1b[31m"))] = made.pop(key)
        elif shape:
            place = rng.randrange(len(shape))
            shape[place] = rng.choice((0, 1, 2, shape[place] + 1, shape[place] * 4, 65_537, 3_000_000))
            made[key] = tuple(shape)
    return made


def read_changed_bytes(rng: random.Random, folder: Path) -> object:
    """Let the readers read a file with changed bytes."""
    ending = rng.choice(list(files()))
    whole = files()[ending]
    path = folder / f"model.{ending}"
    if ending == "safetensors" and rng.random() < 0.8:  # the header with its length put right
        end = 8 + int.from_bytes(whole[:8], "little")
        header = mutated(whole[8:end], rng, TEXT)
        content = len(header).to_bytes(8, "little") + header + whole[end:]
    else:
        content = mutated(whole, rng, BINARY)
    path.write_bytes(content)
    read_outline(path)
    return read_checkpoint(path)


def recognize_changed_shapes(rng: random.Random, folder: Path) -> object:
    """Let the recognition find an architecture for changed shapes, and fit the one that they are of to them."""
    owner, architecture = rng.choice(MODELS)
    shapes = misshapen(shapes_of(owner, architecture), rng)
    identify(shapes, library=rng.choice((None, owner)), architecture=rng.choice((None, architecture)))
    tensors = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    identity = library(owner).identity_from_checkpoint(architecture, {})
    return fit_identity(identity, tensors)


def fuzz(cases: int, seed: int) -> Findings:
    """Try so many cases."""
    rng, found = random.Random(seed), Findings()
    with tempfile.TemporaryDirectory() as place:
        for number in range(cases):
            try_one = recognize_changed_shapes if number % 3 == 2 else read_changed_bytes
            fault = _fault(try_one, rng, Path(place), found)
            found.cases += 1
            if fault:
                found.faults.append(f"case {number} of seed {seed}: {fault}")
    return found


def _fault(try_one: Callable[[random.Random, Path], object], rng: random.Random, place: Path, found: Findings) -> str:
    started = time.perf_counter()
    try:
        try_one(rng, place)
        found.ends["read"] += 1
    except SurgeonError as error:
        found.ends[error.kind] += 1
        if len(error.message) > LONGEST:
            return f"a message of {len(error.message)} characters: {error.message[:200]}"
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:200]} ({Path(last.filename).name}:{last.lineno})"
    seconds = time.perf_counter() - started
    return f"{seconds:.0f} s" if seconds > SECONDS else ""


def main() -> int:
    """Run the search and say what it found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    found = fuzz(asked.cases, asked.seed)
    print("\n".join(found.faults))
    ends = ", ".join(f"{count} {kind}" for kind, count in found.ends.most_common())
    print(f"{found.cases} cases: {ends}; {len(found.faults)} faults")
    return 1 if found.faults else 0


if __name__ == "__main__":
    sys.exit(main())
