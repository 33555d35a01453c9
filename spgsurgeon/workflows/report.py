"""`spgsurgeon report`: what one run or several recorded, as one page and as figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spgsurgeon import __version__
from spgsurgeon.checkpoint.writing import atomic_folder, refuse_existing, refuse_overwriting_input, write_json
from spgsurgeon.errors import UsageError
from spgsurgeon.reporting.gallery import drawings_of
from spgsurgeon.reporting.page import render_page
from spgsurgeon.reporting.run_records import RunRecord
from spgsurgeon.workflows.run_reading import check_is_run, read_run
from spgsurgeon.workflows.thumbnails import with_pictures

_PAGE, _FIGURES, _DOCUMENT = "index.html", "figures", "report.json"


def report(runs: Sequence[Path], output: Path = Path("report"), *, force: bool = False) -> dict[str, Any]:
    """Write the folder `output` about these run folders and return the document of `report --json`.

    It holds index.html, which needs no other file and no network, the same figures as PNG files, and the document
    itself. Runs may be unfinished; what they did not record is left out and what can't be read is said, on the page
    and in the document's `notes`. Of the training data only the pictures that are shown are read. `force` replaces an
    earlier report. Raises UsageError for what is no run folder.
    """
    if not runs:
        raise UsageError("no run was given", hint="give one run folder or several")
    for path in runs:
        check_is_run(path)
    refuse_existing(output, force=force)
    refuse_overwriting_input(output, runs)
    records = [
        with_pictures(read_run(path, name, number), path)
        for number, (path, name) in enumerate(zip(runs, _names(runs), strict=True))
    ]
    drawings = drawings_of(records)
    document = {
        "output": str(output),
        "page": str(output / _PAGE),
        "figures": [str(output / _FIGURES / f"{drawing.name}.png") for drawing in drawings],
        "runs": [_summary(path, record) for path, record in zip(runs, records, strict=True)],
        "notes": [f"{record.name}: {text}" for record in records for text in record.notes],
    }
    page = render_page(records, drawings, package_version=__version__)
    with atomic_folder(output, force=force) as folder:
        (folder / _FIGURES).mkdir()
        for drawing in drawings:
            (folder / _FIGURES / f"{drawing.name}.png").write_bytes(drawing.png)
        (folder / _PAGE).write_text(page, encoding="utf-8")
        write_json(folder / _DOCUMENT, document)
    return document


def _names(runs: Sequence[Path]) -> list[str]:
    """Return what to call the runs: their folders' names, or whole paths where two share one."""
    paths = [path.resolve() for path in runs]
    if twice := [str(run) for run, path in zip(runs, paths, strict=True) if paths.count(path) > 1]:
        raise UsageError(f"{twice[0]} is given more than once")
    counted = Counter(path.name for path in paths)
    return [path.name if counted[path.name] == 1 else str(run) for run, path in zip(runs, paths, strict=True)]


def _summary(path: Path, record: RunRecord) -> dict[str, Any]:
    return {
        "run": str(path),
        "epochs": record.done,
        "cold_epochs": record.cold_epochs,
        "original": record.original,
        "best": record.best,
        "last": record.last,
    }
