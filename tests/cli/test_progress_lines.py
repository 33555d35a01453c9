"""How a run goes where there is no terminal: a line now and then within an epoch, and none with --quiet."""

from __future__ import annotations

import pytest
from command_line import TINY, spgsurgeon, succeed

from spgsurgeon.cli.terminal import progress
from spgsurgeon.cli.terminal.console import verbosity
from spgsurgeon.cli.terminal.text import duration
from spgsurgeon.recipe import read_recipe
from spgsurgeon.tasks.metrics import LOSS


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that tests set."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(verbosity, "quiet", False)
    return now


def test_a_line_a_minute_says_how_far_it_is(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress.RunProgress() as run:
        run.start(1000, 0)
        for step in range(31):
            clock[0] = 500 + 10.0 * step  # what comes before the first step is not a step's time
            run.advance()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "step 7 of 1,000, 10 s each, about 2.8 h left"
    assert len(lines) == 5


def test_nothing_is_said_of_quick_steps_and_with_quiet(
    clock: list[float], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with progress.RunProgress() as run:
        run.start(10, 0)
        for _ in range(10):
            clock[0] += 1
            run.advance()
    monkeypatch.setattr(verbosity, "quiet", True)
    with progress.RunProgress() as run:
        run.start(10, 0)
        for _ in range(3):
            clock[0] += 100
            run.advance()
    assert capsys.readouterr().err == ""


def test_times_and_numbers_as_people_say_them() -> None:
    assert [duration(seconds) for seconds in (0, 89, 90, 5000, 7200)] == ["0 s", "89 s", "2 min", "83 min", "2.0 h"]
    assert [LOSS.number(loss) for loss in (-0.0, -0.00001, -0.1)] == ["0.0000", "0.0000", "-0.1000"]


def test_a_plan_says_how_long_its_steps_take() -> None:
    plan = ("train", *TINY, "--recipe", "digits-dropout", "training.device=cpu", "data.workers=0", "--dry-run")
    assert succeed(*plan, "--json").document["seconds_per_step"] > 0
    assert "scoring comes on top" in succeed(*plan).out


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("training.learning_rate", "training.optimizer.lr"),
        ("amp", "training.precision"),
        ("training.num_classes", "--num-classes"),
        ("training.optimizer.learning_rate", "training.optimizer.lr"),
    ],
)
def test_keys_of_others_are_told_by_what_they_are_called_here(key: str, words: str) -> None:
    with pytest.raises(Exception, match="unknown key") as caught:
        read_recipe("digits-dropout", [f"{key}=1"])
    assert words in str(caught.value)


def test_a_run_that_is_not_there_names_those_that_are(tmp_path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "recipe.yaml").write_text("")
    outcome = spgsurgeon("train", "--resume", "-o", tmp_path / "min", "--json")
    assert (outcome.code, outcome.document["error"]["code"]) == (2, "no-run")
    assert "'mine'" in outcome.document["error"]["hint"]


def test_a_number_of_classes_that_was_asked_for_is_said_so() -> None:
    outcome = spgsurgeon("train", *TINY, "--num-classes", 4, "--recipe", "digits-dropout", "--json")
    assert outcome.code == 2
    assert "--num-classes 4 has 4" in outcome.document["error"]["message"]
