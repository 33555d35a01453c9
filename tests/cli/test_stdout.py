"""A stdout that fails, and what can't be printed: one document or one line of error, and never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FORMS = pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
COMMAND = f"{sys.executable} -m spgsurgeon"


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, env=os.environ | environment, timeout=120
    )


@FORMS
@pytest.mark.parametrize("redirection", [">/dev/full", ">&-"])
@pytest.mark.parametrize(("verb", "code"), [("recipes ls", 1), ("recipes bogus", 2), ("--version", 1)])
def test_a_stdout_that_fails(verb: str, code: int, redirection: str, form: tuple[str, ...]) -> None:
    done = shell(f"{COMMAND} {verb} {' '.join(form if verb != '--version' else ())} {redirection}")
    assert "Traceback" not in done.stderr
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("error:") == 1


def test_a_closed_stderr() -> None:
    assert shell(f"{COMMAND} recipes bogus 2>&-").returncode == 2


@FORMS
def test_a_reader_that_has_gone(form: tuple[str, ...]) -> None:
    for verb in ("recipes ls", "recipes bogus"):
        done = shell(f"({COMMAND} {verb} {' '.join(form)}; echo $? >&2) | true")
        assert "Traceback" not in done.stderr
        assert done.stderr.split()[-1] == ("0" if verb == "recipes ls" else "2")


@FORMS
def test_a_rank_alone_is_no_torchrun(form: tuple[str, ...]) -> None:
    done = shell(f"{COMMAND} recipes ls {' '.join(form)}", RANK="3", LOCAL_RANK="3")
    assert (done.returncode, bool(done.stdout)) == (0, True)
    wrong = shell(f"{COMMAND} recipes bogus {' '.join(form)}", RANK="3", LOCAL_RANK="3")
    assert (wrong.returncode, bool(wrong.stdout + wrong.stderr)) == (2, True)


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.pth"
    with open(path, "wb") as file:
        file.write(b"nothing of weights")
    for form in ((), ("--json",)):
        done = subprocess.run(
            [sys.executable, "-m", "spgsurgeon", "inspect", path, *form], capture_output=True, timeout=120
        )
        assert done.returncode == 1, done.stderr
        assert b"Traceback" not in done.stderr
        assert b"\\udce9" in done.stdout + done.stderr
        if form:
            assert "\udce9" in json.loads(done.stdout.decode())["error"]["message"]
