"""What a shell completes, asked as bash asks; and that nothing slow is imported for it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from spgsurgeon.models.recognition.catalogue import catalogue
from spgsurgeon.recipe.shipped import shipped_recipes

FORMS = ("step", "episode", "episode-mean")
ROOT = Path(__file__).parents[2]
SLOW = {"torch", "torchvision", "timm", "numpy", "rich", "yaml"}


def asked(*words: str) -> tuple[list[str], set[str]]:
    """Return what bash is offered for the last of the words, and which of the slow packages were imported."""
    environment = {
        "_SPGSURGEON_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(("spgsurgeon", *words)),
        "COMP_CWORD": str(len(words)),
    }
    command = [sys.executable, "-X", "importtime", "-m", "spgsurgeon"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    imported = {name.partition(".")[0] for name in re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE)}
    assert "spgsurgeon" in imported
    return done.stdout.split(), imported & SLOW


CASES = {
    "a verb": (("insp",), {"inspect"}),
    "a verb of a group": (("recipes", "s"), {"show", "schema"}),
    "an option": (("train", "--res"), {"--resume"}),
    "a recipe": (("train", "--recipe", "digits"), {"digits-dropout"}),
    "any recipe": (("recipes", "show", ""), set(shipped_recipes())),
    "a library": (("inspect", "torchv"), {name for name in catalogue().entries if name.startswith("torchvision/")}),
    "a model": (("graft", "timm/test_vit"), {name for name in catalogue().entries if name.startswith("timm/test_vit")}),
    "one of two models": (("diff", "a.pth", "timm/test_resn"), {"timm/test_resnet"}),
    "a format": (("strip", "run", "--export", "on"), {"onnx"}),
    "a kind": (("graft", "m", "--trp", "d"), {"dropout", "depth", "drop-path"}),
    "a data source": (("eval", "m", "--data", "di"), {"digits"}),
    "an arm": (("compare", "--arms", "r"), {"r-drop", "rollouts"}),
    "one more arm": (("compare", "--arms", "plain,spg,sp"), {f"plain,spg,spg-{f}" for f in FORMS}),
    "a guide": (("docs", "exp"), {"exporting"}),
    "a file": (("inspect", ""), set()),  # left to the shell
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_offered(case: str) -> None:
    words, expected = CASES[case]
    offered, slow = asked(*words)
    assert set(offered) == expected
    assert slow == set()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_gets_its_script(shell: str) -> None:
    command = [sys.executable, "-m", "spgsurgeon", "--show-completion", shell]
    environment = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert "_SPGSURGEON_COMPLETE" in done.stdout
