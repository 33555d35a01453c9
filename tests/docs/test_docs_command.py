"""`spgsurgeon docs`: the list of guides, one of them on a terminal and in a pipe, and topics that there are not."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest
from command_line import spgsurgeon, succeed
from guide_pages import ROOT

from spgsurgeon.docs import guides

GUIDES = {one.topic: one for one in guides()}


def test_every_file_is_a_guide_with_a_title_and_a_first_sentence() -> None:
    assert set(GUIDES) == {path.stem for path in (ROOT / "spgsurgeon" / "docs").glob("*.md")}
    for one in GUIDES.values():
        assert one.text.startswith("# ")
        assert one.summary.endswith(".")
        assert "\n" not in one.summary
        assert one.summary in " ".join(one.text.split())


def test_without_a_topic_all_are_listed() -> None:
    shown = succeed("docs").out.splitlines()
    assert [line.split()[0] for line in shown[1 : len(GUIDES) + 1]] == list(GUIDES)
    assert all(one.summary in line for one, line in zip(GUIDES.values(), shown[1:], strict=False))
    document = succeed("docs", "--json").document
    assert document == {"topics": [{"topic": one.topic, "summary": one.summary} for one in GUIDES.values()]}


@pytest.mark.parametrize("topic", GUIDES)
def test_in_a_pipe_a_guide_is_its_markdown(topic: str) -> None:
    assert succeed("docs", topic).out == GUIDES[topic].text
    assert succeed("docs", topic, "--json").document == {"topic": topic, "text": GUIDES[topic].text}


def test_a_topic_may_be_the_name_of_its_file() -> None:
    assert succeed("docs", "Recipes.md").out == GUIDES["recipes"].text


@pytest.mark.parametrize(("topic", "hint"), [("recipe", "did you mean 'recipes'?"), ("qqqq", "topics: audio, ")])
def test_an_unknown_topic_is_refused_with_those_there_are(topic: str, hint: str) -> None:
    outcome = spgsurgeon("docs", topic, "--json")
    assert outcome.code == outcome.document["exit_code"] == 2
    assert outcome.document["error"]["hint"].startswith(hint)


def on_a_terminal(*arguments: str, columns: int) -> str:
    """Return what a command shows on a terminal of so many columns, without colours."""
    leader, terminal = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm"}
    command = [sys.executable, "-m", "spgsurgeon", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=terminal, stderr=terminal, env=environment) as process:
        os.close(terminal)
        shown = b""
        while chunk := _read(leader):
            shown += chunk
    os.close(leader)
    assert process.returncode == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).replace("\r\n", "\n")


def _read(leader: int) -> bytes:
    try:
        return os.read(leader, 2**16)
    except OSError:  # Linux says so when the other end is closed
        return b""


@pytest.mark.parametrize(("columns", "widest"), [(72, 72), (200, 100)])
def test_on_a_terminal_a_guide_is_rendered_and_wrapped(columns: int, widest: int) -> None:
    shown = on_a_terminal("docs", "resuming", columns=columns)
    assert "## " not in shown
    assert "`training.max_skips`" not in shown
    assert "training.max_skips" in shown
    assert widest - 10 < max(map(len, shown.splitlines())) <= widest
