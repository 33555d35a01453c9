"""The registry of kinds: nothing outside its room names one, and a new one takes one file."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from command_line import DIGITS, TINY, spgsurgeon, succeed
from noise_kind import GaussianNoise, Noise

import spgsurgeon as package
from spgsurgeon.errors import DamagedFileError, RecipeError, VerificationError
from spgsurgeon.recipe.reading import read_recipe
from spgsurgeon.recipe.schema import Recipe, recipe_keys
from spgsurgeon.replicas.kinds import CONTROLS, DEFAULT, PLAIN, REPLICAS, kinds, replicas_from
from spgsurgeon.surgery.proof import fingerprint, prove_graft

FEW = ("data.limit=6", "data.holdout=0.1", "data.eval=holdout", "training.batch_size=20", "data.workers=0")
NOISE = "trp={kind: noise, replicas: 2, scale: 0.3}"

# The registry


def test_the_registry_is_of_what_the_kinds_say_of_themselves() -> None:
    assert {name: kind().kind for name, kind in kinds().items()} == {name: name for name in kinds()}
    assert [name for name, kind in kinds().items() if kind.control] == list(CONTROLS)
    assert list(kinds()) == [*REPLICAS, *CONTROLS]
    assert Recipe.model_validate({"data": {"source": "digits"}}).trp.kind == DEFAULT
    assert PLAIN in CONTROLS


def test_what_a_kind_says_of_itself_is_the_same_when_it_is_read_back() -> None:
    for kind in kinds().values():
        assert replicas_from(json.loads(json.dumps(kind().document()))) == kind()
        assert (kind().length == 0) is kind.control
        assert "\n" not in kind().words()


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"kind": "dropout", "replicas": 3, "rate": 0.15}, "3 dropout replicas, rate 0.15"),
        (
            {"kind": "depth", "replicas": 2, "blocks": 1, "block": "swin", "init": "identity"},
            "2 depth replicas, blocks 1, block swin, init identity",
        ),
        (
            {"kind": "fixed-dropout", "rate": 0.4},
            "none: plain retraining with dropout of rate 0.4 before the head, a control",
        ),
        ({"kind": "none"}, "none: plain retraining, the control"),
    ],
)
def test_what_folders_say_that_are_written_already_stays_readable(document: dict[str, object], words: str) -> None:
    assert replicas_from(document).document() == document
    assert replicas_from(document).words() == words


def test_a_document_that_no_kind_has_written_is_damaged() -> None:
    with pytest.raises(DamagedFileError, match=r"no settings of dropout replicas: trp\.rate"):
        replicas_from({"kind": "dropout", "rate": 2})


def test_kinds_import_neither_torch_nor_the_help_pydantic() -> None:
    names = "import sys; from spgsurgeon.cli import app; early = {'pydantic', 'torch'} & set(sys.modules); "
    code = (
        names + "from spgsurgeon.replicas.kinds import kinds; kinds(); sys.exit(bool(early) + ('torch' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Nothing else names them

SOURCES = Path(package.__file__).parent
ROOM = SOURCES / "replicas" / "kinds"
NAMES = "|".join(sorted({*REPLICAS, *CONTROLS}, key=len, reverse=True))
WRITTEN = re.compile(rf"{'|'.join(sorted({*REPLICAS, *CONTROLS} - {PLAIN}))}|.*(kind[=:] ?|--trp )({NAMES})\b.*", re.S)
"""A string that is the name of a kind (`none` is a word for much else), or a setting or option with one."""


def strings(tree: ast.AST) -> Iterator[ast.Constant]:
    """Yield the strings of a module, other than docstrings and the table of arms, whose entries may name kinds."""
    for node in ast.iter_child_nodes(tree):
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        table = isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "BUILT_IN"
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node
        elif not text and not table:
            yield from strings(node)


def named_in(path: Path) -> list[str]:
    tree = ast.parse(path.read_text())
    return [f"{path.name}:{node.lineno}: {node.value}" for node in strings(tree) if WRITTEN.fullmatch(node.value)]


def test_nothing_outside_their_room_names_a_kind() -> None:
    found = [place for path in SOURCES.rglob("*.py") if not path.is_relative_to(ROOM) for place in named_in(path)]
    assert found == []
    assert sum(len(named_in(path)) for path in ROOM.rglob("*.py")) > 6, "the pattern finds nothing if names are"


# A new one


@pytest.fixture
def noise() -> Iterator[None]:
    """Register the made-up kind, which is one line in the registry for a kind that stays."""
    kinds()["noise"] = Noise
    Recipe.model_rebuild(force=True)
    yield
    del kinds()["noise"]
    Recipe.model_rebuild(force=True)


@pytest.mark.usefixtures("noise")
def test_a_new_kind_is_a_section_of_the_recipe() -> None:
    recipe = read_recipe("digits-dropout", [NOISE, "objective.weights=[0.4, 0.2]"])
    assert recipe.trp == Noise(replicas=2, scale=0.3)
    assert (recipe.trp.words(), recipe.objective.form) == ("2 noise replicas, scale 0.3", "step")
    assert recipe_keys()["trp.scale"].startswith("Standard deviation")
    read_recipe("digits-dropout", ["compare.arms={louder: {trp.scale: 0.5}}"])
    for override, fault in {
        "trp={kind: noise, rate: 0.1}": "trp.rate: rate is not a setting of noise replicas but of dropout",
        "trp={kind: noise, scael: 0.1}": "trp.scael: unknown key, did you mean 'scale'?",
        "trp={kind: noise, scale: -1}": "trp.scale: -1 is refused, it must be 0 or more",
        "trp={kind: nois}": "trp.kind: 'nois' is refused, it must be ",
    }.items():
        with pytest.raises(RecipeError) as caught:
            read_recipe("digits-dropout", [override])
        assert caught.value.message.startswith(f"override {override}: {fault}")


@pytest.mark.usefixtures("noise")
def test_a_new_kind_is_inspected_grafted_trained_and_stripped_by_every_command(tmp_path: Path) -> None:
    site = succeed("inspect", *TINY, "--json").document["sites"]["noise"]
    assert site == {"module": "fc", "width": 96, "side": "input", "temporary_parameters": 0}
    lines = succeed("inspect", *TINY).out.splitlines()
    assert ["noise-TRP", "at the input of fc, 0 temporary"] in [line.split(maxsplit=1) for line in lines]

    grafted, own = tmp_path / "grafted", ("--trp", "noise", "--set", "scale=0.3", "--replicas", 2)
    shown = succeed("graft", *TINY, "--num-classes", 10, *own, "-o", grafted)
    assert "2 noise replicas, scale 0.3, at the input of fc" in shown.out
    assert json.loads((grafted / "graft.json").read_text())["trp"] == {"kind": "noise", "replicas": 2, "scale": 0.3}

    run, weights = tmp_path / "run", "objective.weights=[0.4, 0.2]"
    plan = succeed("train", grafted, *DIGITS, *FEW, NOISE, weights, "-o", run, "--dry-run").out
    assert "2 noise replicas, scale 0.3" in plan
    assert succeed("train", grafted, *DIGITS, *FEW, NOISE, weights, "-o", run, "--json").document["steps"] == 3
    line = json.loads((run / "metrics.jsonl").read_text())
    assert list(line["accepted_units"]) == ["0", "0.3", "0.4243"]
    stripped = succeed("strip", run, "-o", tmp_path / "better", "--json").document
    assert set(stripped["proof"].values()) == {True}
    assert "temporary modules, gone | 2 noise replicas, scale 0.3" in (tmp_path / "better" / "README.md").read_text()
    succeed("report", run, "-o", tmp_path / "report")
    assert "noise" in (tmp_path / "report" / "index.html").read_text()
    refused = spgsurgeon("graft", *TINY, "--trp", "noise", "--rate", 0.1, "-o", tmp_path / "no")
    assert (refused.code, "rate is not a setting of noise replicas" in refused.err) == (2, True)


@pytest.mark.usefixtures("noise")
def test_the_laws_hold_for_a_new_kind_and_see_one_that_is_no_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    module = timm.create_model("test_resnet", num_classes=5)
    images = torch.rand(2, 3, 64, 64)
    before = fingerprint(module, images)
    grafted = package.graft(module, "noise", scale=0.2, example=images)
    assert all(prove_graft(grafted, before, images).values())
    states, logits = grafted.train().hidden_states(images)
    noise = (states["fc"][1:] - states["fc"][:-1]).std((1, 2))
    torch.testing.assert_close(noise, torch.full((3,), 0.2), rtol=0.2, atol=0)
    assert logits.shape == (8, 5)
    module = package.strip(grafted.eval())
    before = fingerprint(module, images)  # the pass in train mode has moved running statistics
    monkeypatch.setattr(GaussianNoise, "forward", lambda self, hidden: hidden + 1e-3)
    with pytest.raises(VerificationError, match="law 2"):
        prove_graft(package.graft(module, "noise", example=images), before, images)
