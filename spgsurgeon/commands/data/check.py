"""`spgsurgeon check`: what a data set holds, and what would go wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from spgsurgeon.commands.evaluating.data import find_data
from spgsurgeon.data import (
    MASKED,
    TRAIN,
    Decoding,
    Duplicates,
    Examined,
    Setting,
    Source,
    check_same_classes,
    check_several_classes,
    duplicates,
    examine,
    find_splits,
    form_of,
    listing,
    taking,
    with_classes,
    with_common_names,
)
from spgsurgeon.errors import SurgeonError, UsageError
from spgsurgeon.runtime import default_workers

_RARE = 10  # times: so many fewer samples than the largest class has


def check(
    data: str,
    *,
    path: Path | None = None,
    source: str | None = None,
    splits: Sequence[str] = (),
    classes: Sequence[str] | int | None = None,
    columns: Mapping[str, str] | None = None,
    ignore: Sequence[int] = (),
    mask_values: Mapping[int, int] | None = None,
    value_range: tuple[float, float] | None = None,
    max_pixels: int | None = None,
    sample: int | None = None,
    workers: int | None = None,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Return the document of `check --json`: what was found in each split, what is there twice, and what is at fault.

    `data` is a folder, or a form of data by name (then `path` is where it lies); `source` says the form of a folder
    (None: it is found out). Without `splits` those of the usual names are looked for. `sample` reads at most so many
    samples of each split, at even distances. The others are as the recipe's data section has them. `told` hears how
    many samples are read, and of how many.

    What training would stop at is in `problems`, and the document then has an `error` and its `exit_code`; what is
    only worth knowing is in `notes`. Raises UsageError for data that is not there, or of which no form fits.
    """
    found, root = find_data(data, path)
    if source is not None and found is not None:
        raise UsageError("--source is the form of a folder, and DATA names one already", hint="leave --source out")
    how = {
        "classes": classes,
        "columns": columns or {},
        "ignore": ignore,
        "values": mask_values or {},
        "decoding": Decoding(value_range, max_pixels),
    }
    form, opened = find_splits(found or source, root, splits, how)
    _check_taken(form, {"columns": columns, "classes": classes, "mask_values": mask_values, "ignore": ignore})
    opened = dict(zip(opened, with_common_names(*opened.values()), strict=True))
    most = max(len(part.classes) for part in opened.values())
    parts = {name: with_classes(part, most) for name, part in opened.items()}
    examined = _examined(parts, sample, workers, told)
    twice = duplicates(examined)
    problems = [*_unreadable(examined), *_of_classes(form, examined)]
    return {
        "data": data,
        "source": form,
        "samples": form_of(form).samples,
        "splits": {name: found.document() for name, found in examined.items()},
        "duplicates": twice.document(),
        "problems": problems,
        "notes": [
            *dict.fromkeys(note for found in examined.values() for note in (*found.source.notes, *found.said)),
            *(_of_balance(examined) if form_of(form).classed == "sample" else []),
            *_of_duplicates(twice),
            *_of_parts(examined),
        ],
        **(_failure(problems) if problems else {}),
    }


def _examined(
    parts: Mapping[str, Source[Any]], most: int | None, workers: int | None, told: Callable[[int, int], None]
) -> dict[str, Examined]:
    threads = default_workers() if workers is None else workers
    total = sum(min(len(part), most or len(part)) for part in parts.values())
    found: dict[str, Examined] = {}
    done = 0
    for name, part in parts.items():
        found[name] = examine(part, most=most, threads=threads, told=lambda more: told(done + more, total))  # noqa: B023
        done += len(found[name].looked_at)
    return found


def _check_taken(form: str, given: Mapping[Setting | Literal["ignore"], object]) -> None:
    """Raise UsageError for what the form of the data has no use for."""
    if given["ignore"] and form_of(form).samples != MASKED:
        raise UsageError(f"--ignore is for masks, and the data has {form_of(form).samples}", hint="leave it out")
    for setting, value in given.items():
        if value and setting != "ignore" and setting not in form_of(form).takes:
            option = "--" + {"columns": "column", "mask_values": "mask-value"}.get(setting, setting)
            raise UsageError(f"{option} is for {taking(setting)}, and the data is {form}", hint="leave it out")


def _failure(problems: Sequence[str]) -> dict[str, Any]:
    error = {
        "kind": "data",
        "code": "data-faults",
        "message": "; ".join(problems),
        "hint": "mend the data; training passes over samples that can't be read if data.unreadable=skip says so",
    }
    return {"error": error, "exit_code": 1}


def _unreadable(examined: Mapping[str, Examined]) -> list[str]:
    return [
        f"{len(found.unreadable):,} of {len(found.looked_at):,} samples of {found.source.name} can't be read"
        for found in examined.values()
        if found.unreadable
    ]


def _of_classes(form: str, examined: Mapping[str, Examined]) -> list[str]:
    """Return what training would refuse about classes."""
    if form_of(form).classed == "nothing":
        return []
    sources = [found.source for found in examined.values()]
    problems = []
    for test in (lambda: check_several_classes(sources[0]), *(_same_as(sources[0], other) for other in sources[1:])):
        try:
            test()
        except SurgeonError as error:
            problems.append(error.message)
    return problems


def _same_as(one: Any, other: Any) -> Callable[[], None]:
    return lambda: check_same_classes(one, other)


def _of_balance(examined: Mapping[str, Examined]) -> list[str]:
    """Return what to say of classes without samples and, in what is trained on, of those with few."""
    said = []
    for split, found in examined.items():
        name, counts = found.source.name, {cls: found.units[label] for label, cls in enumerate(found.source.classes)}
        largest = max(counts, key=lambda cls: counts[cls])
        if none := [cls for cls, count in counts.items() if not count]:
            said.append(f"{name} has no sample of {listing(none)}")
        rare = [cls for cls, count in counts.items() if 0 < count * _RARE <= counts[largest]]
        if rare and (split == TRAIN or len(examined) == 1):
            many = f"{counts[largest]:,} samples of {largest!r}"
            said.append(f"{name} has {many}, at least ten times as many as of {listing(rare)}")
    return said


def _of_duplicates(twice: Duplicates) -> list[str]:
    said = []
    if count := len(twice.across_splits):
        said.append(f"{_samples(count)} in more than one split: scores on them are of what was learned by heart")
    if count := len(twice.other_classes):
        said.append(f"{_samples(count)} there under more than one class")
    if twice.within:
        spare = ", ".join(f"{count:,} in {name}" for name, count in twice.within.items())
        said.append(f"samples that repeat others of their split: {spare}")
    return said


def _samples(count: int) -> str:
    return "one sample is" if count == 1 else f"{count:,} samples are"


def _of_parts(examined: Mapping[str, Examined]) -> list[str]:
    parts = [f"{len(found.looked_at):,} of {len(found.source):,} of {name}" for name, found in examined.items()]
    return [] if all(found.whole for found in examined.values()) else [f"samples looked at: {', '.join(parts)}"]
