"""What the files and folders in a comparison's folder are called."""

from __future__ import annotations

from typing import Final

PLAN: Final = "compare-plan.json"
"""What a comparison is settled to be, which marks one."""
RECIPE: Final = "compare-recipe.yaml"
"""The recipe as it was given; an earlier version didn't keep it."""
BASE: Final = "base"
"""What all arms start from, in the Hub's layout."""
RUNS: Final = "runs"
RESULTS: Final = "results.jsonl"
DOCUMENT: Final = "compare.json"
COSTS: Final = "costs.json"
TABLE: Final = "compare.md"
FIGURES: Final = "figures"
DECODED: Final = "decoded"
"""Where runs keep decoded images for each other, while the comparison lasts."""
