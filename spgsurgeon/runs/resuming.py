"""What a run or a comparison stands on, recipe and data, and whether that is still the same when it resumes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from spgsurgeon.data import Data, form_of
from spgsurgeon.errors import UsageError
from spgsurgeon.recipe import DataSection, Recipe, differing
from spgsurgeon.runs.checkpoints import unreadable_of
from spgsurgeon.runs.data_records import DataRecord, compare, name_within, read_files, record_of
from spgsurgeon.runs.raising import EPOCHS, may_rise

FREE_KEYS = ("data.cache", "data.workers", "training.loggers")
"""What a resumed run may have otherwise: the weights don't depend on them. environment.json has those of each start."""

Records = Mapping[str, DataRecord]
"""By split: "train" and "eval"."""
_SPLITS = {"train": "training", "eval": "evaluation"}


def records_of(data: Data, section: DataSection) -> Records:
    """Return the records of a run's data."""
    root = section.path if form_of(section.source).needs_path else None
    train = record_of(data.train, root)
    return {"train": train, "eval": record_of(data.evaluation, root, like=train)}


def stands_on(recipe: Recipe, records: Records) -> dict[str, Any]:
    """Return what a run stands on, as its checkpoints keep it."""
    return {"recipe": recipe.model_dump(mode="json", exclude={"compare"}), "data": summaries(records)}


def summaries(records: Records) -> dict[str, Any]:
    """Return the records as plain data, by split."""
    return {split: record.summary for split, record in records.items()}


def check_run(run: Path, before: Any, recipe: Recipe, records: Records, warn: Callable[[str], None]) -> None:
    """Raise UsageError naming what a resumed run does not find as it was: recipe or data.

    `before` is what its checkpoint says, which `warn` is told it does not where an earlier version began the run.
    """
    if not isinstance(before, Mapping):
        warn(
            f"{run} was begun by an earlier version, which kept no record of its recipe and data: whether they are the "
            "same could not be checked"
        )
        return
    _check_recipe(run, before.get("recipe"), recipe, warn)
    broken = unreadable_of(run) if recipe.data.unreadable == "stop" else {}
    repaired = [name_within(path, recipe.data.path) for path in broken]
    check_data(run, before.get("data"), records, warn, repaired)


def check_data(
    folder: Path, before: Any, records: Records, warn: Callable[[str], None], repaired: Iterable[str] = ()
) -> None:
    """Raise UsageError naming what of the data is not as it was; see `compare`."""
    repaired, found = list(repaired), []
    for split, record in records.items():
        said = before.get(split) if isinstance(before, Mapping) else None
        if not isinstance(said, Mapping):
            warn(f"{folder} has no record of its {_SPLITS[split]} data: whether that is the same could not be checked")
            continue
        if dict(said) == record.summary:
            continue
        compared = compare(said, read_files(folder, split), record, repaired)
        found += [f"{_SPLITS[split]} data: {difference}" for difference in compared.differences]
        for remark in compared.remarks:
            warn(f"{_SPLITS[split]} data: {remark}")
    if found:
        raise UsageError(
            f"{folder} was begun on other data:\n" + "\n".join(found),
            hint="put the data back as it was, or start another one with -o",
            differences=found,
        )


def _check_recipe(run: Path, before: Any, recipe: Recipe, warn: Callable[[str], None]) -> None:
    try:
        own = Recipe.model_validate(before)  # which fills in what an earlier version did not have
    except ValidationError:
        warn(f"{run} records its recipe as this version does not read it: whether it is the same could not be checked")
        return
    found = differences(own, recipe)
    if may_rise(own, recipe):
        found.pop(EPOCHS, None)
    if found:
        said = [f"{key} was {was}, is {now}" for key, (was, now) in found.items()]
        raise UsageError(
            f"the recipe in {run} is not the one that it was begun with: {'; '.join(said)}",
            hint="put it back as it was, or start another run with -o",
            differences=list(found),
        )


def differences(given: Recipe, own: Recipe) -> dict[str, tuple[Any, Any]]:
    """Return what two recipes have otherwise, by dotted key, but for `FREE_KEYS` and what only `compare` reads."""
    found = differing(given.model_dump(exclude={"compare"}), own.model_dump(exclude={"compare"}))
    return {key: values for key, values in found.items() if key not in FREE_KEYS}
