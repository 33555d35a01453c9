"""The help of `compare` lists the arms that there are, and imports nothing heavy for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from spgsurgeon.comparing.lineup.built_in import BUILT_IN, PLAIN

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "numpy", "timm", "yaml")


def test_every_arm_is_listed_and_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from spgsurgeon.cli.app import run; run(['compare', '--help']); "
        f"sys.exit(bool({set(HEAVY)!r} & set(sys.modules)))"
    )
    environment = os.environ | {"COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    shown = " ".join(done.stdout.split()).replace("- ", "-")  # which a line may end with
    assert f"{', '.join(name for name in BUILT_IN if name != PLAIN)}, or the recipe's own" in shown
