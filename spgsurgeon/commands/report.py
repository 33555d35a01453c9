"""`spgsurgeon report`: what runs and comparisons recorded, as one page and as figures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spgsurgeon import __version__
from spgsurgeon.checkpoint import atomic_folder, refuse_existing, refuse_overwriting_input, write_json
from spgsurgeon.comparing import ComparisonRecord, arm_of, is_comparison, read_comparison
from spgsurgeon.errors import UsageError
from spgsurgeon.recipe import read_recipe
from spgsurgeon.runs import RECIPE, RunRecord, check_is_run, read_run
from spgsurgeon.runtime import require
from spgsurgeon.training import inputs_of

_PAGE, _FIGURES, _DOCUMENT = "index.html", "figures", "report.json"


def report(folders: Sequence[Path], output: Path = Path("report"), *, force: bool = False) -> dict[str, Any]:
    """Write the folder `output` about these folders of runs and comparisons; return the document of `report --json`.

    It holds index.html, which needs no other file and no network, the same figures as PNG files, and the document
    itself. Runs and comparisons may be unfinished; what they did not record is left out and what can't be read is said,
    on the page and in the document's `notes`. Of the training data only the images that are shown are read. `force`
    replaces an earlier report. Raises UsageError for what is neither.
    """
    require("report", "a report")
    from spgsurgeon.reporting import drawings_of, render_page, with_hues, with_pictures  # by which it is drawn

    if not folders:
        raise UsageError("no run was given", hint="give one run folder or several, or a comparison's folder")
    compared = [path for path in folders if is_comparison(path)]
    runs = [path for path in folders if path not in compared]
    for path in runs:
        check_is_run(path)
    data = [path for run in runs for path in inputs_of(read_recipe(run / RECIPE), None)]
    refuse_overwriting_input(output, [*folders, *data])
    refuse_existing(output, force=force)
    names = dict(zip(folders, _names(folders), strict=True))
    records = [with_pictures(read_run(path, names[path], number), path) for number, path in enumerate(runs)]
    comparisons = [read_comparison(path, names[path], number) for number, path in enumerate(compared)]
    records, comparisons = with_hues(records, [arm_of(path) for path in runs], comparisons)
    drawings = drawings_of(records, comparisons)
    notes = [(found.name, found.notes) for found in comparisons] + [(run.name, run.notes) for run in records]
    document = {
        "output": str(output),
        "page": str(output / _PAGE),
        "figures": [str(output / _FIGURES / f"{drawing.name}.png") for drawing in drawings],
        "runs": [_summary(path, record) for path, record in zip(runs, records, strict=True)],
        "comparisons": [_findings(path, record) for path, record in zip(compared, comparisons, strict=True)],
        "notes": [f"{name}: {text}" for name, said in notes for text in said],
    }
    page = render_page(records, drawings, comparisons, package_version=__version__)
    with atomic_folder(output, force=force) as folder:
        (folder / _FIGURES).mkdir()
        for drawing in drawings:
            (folder / _FIGURES / f"{drawing.name}.png").write_bytes(drawing.png)
        (folder / _PAGE).write_text(page, encoding="utf-8")
        write_json(folder / _DOCUMENT, document)
    return document


def _names(folders: Sequence[Path]) -> list[str]:
    """Return what to call the folders: by their names or, where several share one, by where they part as well."""
    paths = [path.resolve() for path in folders]
    if twice := [str(folder) for folder, path in zip(folders, paths, strict=True) if paths.count(path) > 1]:
        raise UsageError(f"{twice[0]} is given more than once")
    names = []
    for path in paths:
        alike = [other.parent for other in paths if other.name == path.name]
        names.append(path.name if len(alike) == 1 else str(path.relative_to(os.path.commonpath(alike))))
    return names


def _summary(path: Path, record: RunRecord) -> dict[str, Any]:
    return {
        "run": str(path),
        "epochs": record.done,
        "cold_epochs": record.cold_epochs,
        "head_epochs": record.head_epochs,
        "untrained": record.untrained,
        "original": record.original,
        "head_start": record.started,
        "best": record.best,
        "last": record.last,
    }


def _findings(path: Path, record: ComparisonRecord) -> dict[str, Any]:
    arms = record.document["arms"] if record.document else {}
    return {
        "comparison": str(path),
        "finished": record.document is not None,
        "runs_done": record.done,
        "runs_planned": record.planned,
        "arms": {name: {key: arm[key] for key in ("mean", "verdict")} for name, arm in arms.items()},
    }
