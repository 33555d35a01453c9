"""Law 7 at random moments: killed anywhere, a run comes to what it would have come to."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "tools" / "kill_runs.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it finds processes in /proc")
def test_killed_at_random_moments_runs_end_alike() -> None:
    """In a process of its own: only one without threads can be forked at will."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--kills", "20", "--jobs", "2"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "20 kills, 0 failures" in done.stdout
