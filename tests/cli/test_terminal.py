"""What people see in a terminal: something at once, bars, colours, tables that fit, help as wide as it is."""

from __future__ import annotations

import io
import json
import os
import pty
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from made_up_comparisons import RECIPE, made_up
from rich.console import Console

from spgsurgeon import __version__
from spgsurgeon.cli.app import application
from spgsurgeon.cli.terminal import console as consoles
from spgsurgeon.cli.terminal.comparison import comparison_tables
from spgsurgeon.cli.terminal.console import verbosity
from spgsurgeon.cli.terminal.progress import Bar, ComparisonProgress
from spgsurgeon.comparing.layout import RESULTS
from spgsurgeon.comparing.reading import how_far
from spgsurgeon.comparing.table import HEAD

ROOT = Path(__file__).parents[2]
SLOW = ("inspect", "graft", "train", "strip", "eval", "diff", "compare", "report", "bench", "demo", "doctor")
NAME = "timm/resnet50"
ARGUMENTS = {
    "inspect": NAME,
    "strip": "run -o out",
    "graft": f"{NAME} -o out",
    "eval": f"{NAME} --data digits",
    "diff": f"{NAME} {NAME}",
    "report": "run",
    "bench": NAME,
}


@pytest.fixture
def torch_that_ends(tmp_path: Path) -> dict[str, str]:
    """An environment whose torch says that it is imported, and ends the process."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("import os; os.write(2, b'<import>'); os._exit(7)")
    return os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}", "TERM": "xterm"}


def in_a_terminal(words: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Run a command with stderr a terminal; return its exit code and what was seen there."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "spgsurgeon", *words]
    with subprocess.Popen(command, env=environment, stderr=theirs, stdout=subprocess.DEVNULL) as process:
        os.close(theirs)
        seen = b""
        try:
            while chunk := os.read(ours, 4096):
                seen += chunk
        except OSError:  # the other end is closed
            pass
    os.close(ours)
    return process.returncode, seen.decode()


@pytest.mark.parametrize("verb", SLOW)
def test_something_is_seen_before_torch_is_imported(verb: str, torch_that_ends: dict[str, str]) -> None:
    words = [verb, *shlex.split(ARGUMENTS.get(verb, ""))]
    code, seen = in_a_terminal(words, torch_that_ends)
    assert (code, seen.startswith("loading torch ..."), seen.endswith("<import>")) == (7, True, True)


def test_nothing_of_it_is_seen_with_quiet_and_in_a_pipe(torch_that_ends: dict[str, str]) -> None:
    assert in_a_terminal(["inspect", NAME, "-q"], torch_that_ends) == (7, "<import>")
    command = [sys.executable, "-m", "spgsurgeon", "inspect", NAME]
    done = subprocess.run(command, env=torch_that_ends, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (7, "<import>")


def test_the_line_goes_when_something_else_is_said(torch_that_ends: dict[str, str]) -> None:
    code, seen = in_a_terminal(["inspect", NAME, "--weights", ""], torch_that_ends)
    assert code == 2
    assert "loading torch" not in seen.partition("\x1b[2K")[2]
    assert "it is empty" in seen


def shell(*words: str, columns: int) -> str:
    command = [sys.executable, "-m", "spgsurgeon", *words]
    done = subprocess.run(
        command, env=os.environ | {"COLUMNS": str(columns)}, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize(("columns", "most"), [(80, 80), (110, 110), (200, 120)])
def test_help_is_as_wide_as_the_terminal(columns: int, most: int) -> None:
    widest = max(map(len, shell("train", "--help", columns=columns).splitlines()))
    assert most - 25 < widest <= most


def test_the_roots_help_has_examples_that_parse() -> None:
    shown = shell("--help", columns=80)
    shown_lines = map(str.strip, shown.splitlines())
    lines = [line.split("  ")[0] for line in shown_lines if line.startswith("spgsurgeon ")]
    assert len(lines) >= 4
    verbs = typer.main.get_command(application()).commands
    for words in map(shlex.split, lines):
        verbs[words[1]].make_context(words[1], words[2:])
    assert max(map(len, shown.splitlines())) <= 80


def test_the_version_as_json_names_what_counts() -> None:
    for words in (("--version", "--json"), ("--json", "--version")):
        found = json.loads(shell(*words, columns=80))
        assert found["version"] == __version__
        assert {"python", "torch", "timm", "onnx"} <= found.keys()


# Tables and bars, on a terminal of a width


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return what makes both consoles draw on a terminal of some width, into a text."""

    def at(width: int) -> io.StringIO:
        text = io.StringIO()
        terminal = Console(file=text, force_terminal=True, width=width, color_system="standard", highlight=False)
        monkeypatch.setattr(consoles, "_console", lambda *, stderr: terminal)
        return text

    yield at
    verbosity.quiet = verbosity.json = False


ARM = {
    "learning_rate": 0.0123,
    "validation": 97.5,
    "mean": 96.33,
    "verdict": "no difference shown",
    "difference": {
        "mean": -0.37,
        "low": -12.63,
        "high": 11.88,
        "bootstrap_low": -12.6,
        "bootstrap_high": 11.9,
        "agree": 5,
    },
}


@pytest.mark.parametrize("width", [80, 100, 160])
def test_no_cell_of_a_comparison_is_broken(width: int, drawn: Any) -> None:
    text = drawn(width)
    arms = {"plain": ARM | {"difference": None, "verdict": None}, "spg-episode-mean": ARM}
    for part in comparison_tables({"arms": arms, "seeds": [0, 1, 2, 3, 4]}):
        consoles.console(stderr=False).print(part)
    lines = text.getvalue().splitlines()
    for cell in (*HEAD, "-12.63 to +11.88", "-12.60 to +11.90", "5 of 5", "no difference shown", "spg-episode-mean"):
        assert any(cell in line for line in lines), cell
    assert (sum("spg-episode-mean" in line for line in lines) == 1) == (width == 160)


@pytest.mark.parametrize(("verdict", "colour"), [("gain", "32"), ("loss", "31"), ("no difference shown", "33")])
def test_verdicts_have_their_colours(verdict: str, colour: str, drawn: Any) -> None:
    text = drawn(160)
    for part in comparison_tables({"arms": {"spg": ARM | {"verdict": verdict}}, "seeds": [0]}):
        consoles.console(stderr=False).print(part)
    assert f"{colour}m{verdict}" in text.getvalue()


@pytest.mark.parametrize(("quiet", "as_json"), [(False, False), (False, True), (True, False)])
def test_a_bar_says_how_much_is_done_and_the_time_left(quiet: bool, as_json: bool, drawn: Any) -> None:
    text = drawn(80)
    verbosity.quiet, verbosity.json = quiet, as_json
    with Bar("opening", "scored", transient=False) as bar:
        bar.told(3, 10, "scoring")
    assert all(word in text.getvalue() for word in ("scoring", "3/10", "scored", "left")) is not quiet


def test_a_bar_shows_all_runs_of_a_comparison_and_the_epochs_of_those_that_go_on(drawn: Any, tmp_path: Path) -> None:
    folder = tmp_path / "comparison"
    assert how_far(folder) is None
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    made_up(recipe, folder, lambda arm, multiple, seed: 90.0, grid=[1.0, 3.0])
    found = how_far(folder)
    assert (found.runs_done, found.runs, found.epochs_done, found.epochs, found.running) == (8, 8, 8, 8, ())

    lines = (folder / RESULTS).read_text().splitlines(keepends=True)
    (folder / RESULTS).write_text("".join(lines[1:]))
    lost = json.loads(lines[0])["run"]
    for other in lines[1:]:
        (folder / json.loads(other)["folder"] / "metrics.jsonl").write_text("not read: it is done")
    found = how_far(folder)
    name = f"{lost['arm']} lr-{lost['multiple']:g} seed-{lost['seed']}"
    assert (found.runs_done, found.epochs_done, found.running) == (7, 7, ((name, 0, 1),))

    text = drawn(120)
    with ComparisonProgress(folder) as progress:
        progress.look()
    assert f"run 7 of 8 ({name} 0/1)" in text.getvalue()
    assert "7/8" in text.getvalue()
