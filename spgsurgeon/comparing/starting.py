"""How a comparison starts, goes on after an earlier start, or would, without being done."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from spgsurgeon.checkpoint import (
    WEIGHTS,
    atomic_file,
    atomic_folder,
    check_weights,
    content_hash,
    refuse_existing,
    refuse_overwriting_input,
    write_json,
)
from spgsurgeon.comparing.arguments import Arguments
from spgsurgeon.comparing.base import open_base, seen_by, write_base
from spgsurgeon.comparing.layout import BASE, COSTS, DECODED, DOCUMENT, FIGURES, PLAN, RECIPE, RESULTS, RUNS, TABLE
from spgsurgeon.comparing.lineup.arms import Lineup
from spgsurgeon.comparing.plan import Plan, complete, started_plan
from spgsurgeon.comparing.reading import is_comparison
from spgsurgeon.comparing.runs import rate_of, read_results
from spgsurgeon.comparing.table import of_the_base
from spgsurgeon.errors import UsageError
from spgsurgeon.loading import ModelRequest, OpenedModel, state_of
from spgsurgeon.recipe import find_recipe
from spgsurgeon.runs import DATA_FILES, check_data, records_of, summaries, write_files
from spgsurgeon.runtime import FolderLock
from spgsurgeon.training import decoded_pictures_in, inputs_of, open_data

OF_DECODED = ("*.lock", "*/")
"""What lies in `DECODED`, as patterns; see `ownership`."""
_LATER = (
    *(RESULTS, DOCUMENT, COSTS, DATA_FILES, TABLE, f"{FIGURES}/*.png"),
    *(f"{RUNS}/*/*/*/", f"{RUNS}/*/*/*/*/"),  # a search has one for each trial
    *(f"{DECODED}/{pattern}" for pattern in OF_DECODED),
)
"""What comes into the folder of a comparison after it was made."""


def start(
    asked: Arguments,
    lineup: Lineup,
    output: Path,
    request: ModelRequest,
    *,
    force: bool,
    say: Callable[[str], None],
) -> tuple[Plan, FolderLock]:
    """Make the folder of a comparison in which every arm can be trained, and return its plan and the lock on it."""
    if is_comparison(output) and not force:
        hint = "--resume resumes it; --force starts it again, without what is done; or give another output"
        raise UsageError(f"there is a comparison {output} already", hint=hint)
    refuse_overwriting_input(output, inputs_of(lineup.recipe, lineup.source))
    refuse_existing(output, force=force)
    plan, opened = _opened_plan(asked, lineup, output, request)
    for text in opened.notes:
        say(text)
    say(f"check that {', '.join(plan.arms)} can be trained on the data")
    with atomic_folder(output, force=force, later=_LATER) as folder:
        shutil.copyfile(find_recipe(lineup.source), folder / RECIPE)
        _settle(plan, folder, opened, lineup)
        records = records_of(open_data(lineup.recipe.data), lineup.recipe.data)
        plan.data = summaries(records)
        write_files(folder, records)
        write_json(folder / PLAN, asdict(plan))
        owned = FolderLock(folder)
    owned.moved_to(output)
    for text in of_the_base(plan.base_seen):
        say(f"the base was {text}")
    return plan, owned


def go_on(
    asked: Arguments, lineup: Lineup, earlier: Plan, output: Path, request: ModelRequest, say: Callable[[str], None]
) -> Plan:
    """Return the plan of a comparison that was started before, with a wider grid where that is asked for.

    Raises UsageError if its data is no longer what it was started on; `say` is told if that can't be known.
    """
    plan = _plan_again(asked, lineup, earlier, output, request)
    records = records_of(open_data(lineup.recipe.data), lineup.recipe.data)
    if earlier.data is None:
        say(f"{output} was begun by an earlier version, which kept no record of its data: it could not be checked")
    else:
        check_data(output, earlier.data, records, say)
    if earlier.data != summaries(records):
        write_files(output, records)
    plan = replace(plan, data=summaries(records))
    if plan != earlier:
        with atomic_file(output / PLAN, force=True) as temporary:
            write_json(temporary, asdict(plan))
    return plan


def preview(
    asked: Arguments, lineup: Lineup, earlier: Plan | None, output: Path, request: ModelRequest, *, force: bool
) -> dict[str, Any]:
    """Return what a comparison would be, after the same checks, of which nothing is left.

    `output_is` says what would become of the folder: it is "new", "resumed", "replaced" or "in the way". An arm's steps
    and bytes are those of a run, None if they were not looked at again.
    """
    trials: dict[str, dict[str, Any]] = {}
    if earlier is None:
        refuse_overwriting_input(output, inputs_of(lineup.recipe, lineup.source))
        plan, opened = _opened_plan(asked, lineup, output, request)
        with TemporaryDirectory() as folder:
            trials = _settle(plan, Path(folder), opened, lineup)
    else:
        plan = _plan_again(asked, lineup, earlier, output, request)
    multiples = plan.first_multiples
    done = [run for run in read_results(output / RESULTS) if plan.has(run, multiples)] if earlier else []
    return {
        "model": plan.model,
        "arms": {name: _arm(plan, name, trials.get(name)) for name in plan.arms},
        "seeds": plan.seeds,
        "choosing_seeds": plan.choosing,
        "grid": plan.learning_rates,
        "learning_rates": [rate_of(lineup.recipe, multiple) for multiple in multiples],
        "budget": plan.budget,
        "runs": plan.run_count(len(multiples)),
        "done": len(done),
        "metric": plan.metric,
        "chosen_on": plan.chosen_on,
        "scored_on": plan.scored_on,
        "base_seen": plan.base_seen,
        "cache": lineup.recipe.data.cache,
        "output": str(output),
        "output_is": "resumed" if earlier else _state(output, force),
    }


def _arm(plan: Plan, name: str, trial: dict[str, Any] | None) -> dict[str, Any]:
    epochs = plan.epochs[name]
    return {
        "overrides": plan.arms[name],
        "epochs": epochs,
        "steps": trial["steps_before"] + trial["steps_per_epoch"] * epochs if trial else None,
        "estimated_memory_bytes": trial["estimated_memory_bytes"]["total"] if trial else None,
    }


def _state(output: Path, force: bool) -> str:
    if not os.path.lexists(output):
        return "new"
    return "replaced" if force and is_comparison(output) else "in the way"


def _opened_plan(asked: Arguments, lineup: Lineup, output: Path, request: ModelRequest) -> tuple[Plan, OpenedModel]:
    """Return the plan as it is asked for, and the base. Raises UsageError if that lies in `output`."""
    opened = open_base(request, lineup.recipe)
    refuse_overwriting_input(output, [*opened.paths(), find_recipe(lineup.source)])
    return asked.plan(lineup, request.model, content_hash(state_of(opened.module))), opened


def _settle(plan: Plan, folder: Path, opened: OpenedModel, lineup: Lineup) -> dict[str, dict[str, Any]]:
    """Write the base into the folder, fill in what follows from the plan, and return what a run of each arm would be.

    Raises UsageError if an arm can't be trained on the data.
    """
    write_base(folder / BASE, opened)
    with decoded_pictures_in(folder / DECODED):
        trials = complete(plan, folder / BASE, lineup)
        plan.base_seen = seen_by(opened, lineup.recipe.data)
    return trials


def _plan_again(asked: Arguments, lineup: Lineup, earlier: Plan, output: Path, request: ModelRequest) -> Plan:
    """Return the plan of a comparison that was started before, as it is asked for now.

    Its base is that in the folder or, where it is asked for again, a model that must be the same.
    """
    assert asked.model is not None
    base_hash = earlier.base_hash
    if asked.names_the_base or request != ModelRequest(request.model):
        base_hash = content_hash(state_of(open_base(request, lineup.recipe).module))
    else:
        check_weights(output / BASE / WEIGHTS, base_hash, PLAN)
    return started_plan(asked.plan(lineup, asked.model, base_hash), earlier, output)
