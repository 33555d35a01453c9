"""Disks that are full or broken and machines that stop, at every single thing that is done to the disk."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from command_line import snapshot
from faults import ERRORS, fail_with, faults_at, in_another_process, killed_at
from refusals import attempted

from spgsurgeon.checkpoint.folders import GraftManifest
from spgsurgeon.checkpoint.ownership import RECORD, record
from spgsurgeon.checkpoint.writing import write_json
from spgsurgeon.commands import graft as grafting
from spgsurgeon.commands import strip as stripping
from spgsurgeon.commands.graft import graft_folder
from spgsurgeon.commands.strip import strip_folder
from spgsurgeon.commands.stripping import graphs
from spgsurgeon.errors import SurgeonError
from spgsurgeon.loading.opening import open_model
from spgsurgeon.loading.request import ModelRequest
from spgsurgeon.models import graph_inputs_of
from spgsurgeon.replicas.kinds.dropout import Dropout
from spgsurgeon.runs.folder import Checkpoint, RunFolder

pytestmark = pytest.mark.slow
Job = Callable[[Path], object]


@pytest.fixture(autouse=True, scope="module")
def _no_waiting_for_the_disk() -> Iterator[None]:
    """A process that is killed loses nothing of what it wrote: only a machine does, and none is stopped here."""
    with mock.patch.object(os, "fsync", return_value=None):
        yield


@dataclass(frozen=True)
class Bench:
    """Inputs, and the jobs that write from them: what comes before the writing is done once, and remembered."""

    inputs: Path
    jobs: dict[str, tuple[str, Job]]
    """By name: what the output is called, and what writes it."""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    inputs = tmp_path_factory.mktemp("inputs")
    graft_folder("timm/test_resnet", inputs / "grafted", num_classes=7, random_seed=0)
    strip_folder(inputs / "grafted", inputs / "base")
    opened = open_model(ModelRequest(str(inputs / "base")))
    proven = grafting.graft_proven(opened, Dropout())
    taken_down = stripping._take_down(inputs / "grafted", None, None)
    image = graph_inputs_of(taken_down[0], taken_down[1].preprocessing.input_size)
    onnx = graphs.export_onnx(taken_down[0], inputs / "model.onnx", image)

    def exported(module: Any, path: Path, *_: Any, **__: Any) -> Any:
        path.write_text((inputs / "model.onnx").read_text("latin-1"), encoding="latin-1")
        return onnx

    def strip(output: Path, *exports: str) -> object:
        return strip_folder(inputs / "grafted", output, exports=exports, force=True)

    jobs: dict[str, tuple[str, Job]] = {
        "graft": ("grafted", lambda output: graft_folder(str(inputs / "base"), output, force=True)),
        "strip": ("base", strip),
        "strip to three formats": ("base", lambda output: strip(output, "safetensors", "pt", "onnx")),
        "strip to safetensors": ("base.safetensors", strip),
        "strip to pt": ("base.pt", strip),
        "strip to onnx": ("base.onnx", strip),
    }
    with (
        mock.patch.object(grafting, "open_model", return_value=opened),
        mock.patch.object(grafting, "graft_proven", return_value=proven),
        mock.patch.object(stripping, "_take_down", return_value=taken_down),
        mock.patch.object(graphs, "export_onnx", exported),
    ):
        yield Bench(inputs, jobs)


JOBS = ("graft", "strip", "strip to three formats", "strip to safetensors", "strip to pt", "strip to onnx")


def leave_older(place: Path, output: str) -> None:
    """Put an older output there, which is another one than that of any job."""
    if Path(output).suffix:
        (place / output).write_bytes(b"older")
        (place / f"{output}.json").write_bytes(b"older, a proof")
    else:
        (place / output).mkdir()
        write_json(place / output / "config.json", {"older": True})
        record(place / output, output)


def written_anew(place: Path, output: str, job: Job) -> dict[str, str]:
    """Return what lies there after the job has written over an older output."""
    place.mkdir()
    leave_older(place, output)
    job(place / output)
    return snapshot(place)


def named(place: Path) -> dict[str, str]:
    """Return what lies there under a name that is not a temporary one."""
    return {name: content for name, content in snapshot(place).items() if not hidden(name)}


def hidden(name: str) -> bool:
    first = name.partition("/")[0]
    return first.startswith(".") and first.endswith(".tmp")


def each_file(older: dict[str, str], newer: dict[str, str], found: dict[str, str]) -> bool:
    """Whether every output of a job (one, or an ONNX file and its proof) is there as it was, or anew, and whole."""
    tops = {name.partition("/")[0] for name in (*older, *newer, *found)}
    return all(any(below(top, found) == below(top, state) for state in (older, newer)) for top in tops)


def below(top: str, files: dict[str, str]) -> dict[str, str]:
    return {name: content for name, content in files.items() if name.partition("/")[0] == top}


@pytest.mark.parametrize("older", [True, False], ids=["older", "new"])
@pytest.mark.parametrize("name", JOBS)
def test_a_disk_that_fails_anywhere(name: str, older: bool, bench: Bench, tmp_path: Path) -> None:
    output, job = bench.jobs[name]
    place, given = tmp_path / "place", snapshot(bench.inputs)
    newer = written_anew(place, output, job)
    for at in count():
        shutil.rmtree(place)
        place.mkdir()
        if older:
            leave_older(place, output)
        before = snapshot(place)
        with faults_at(at, fail_with(ERRORS[at % 2])) as faults:
            failure = attempted(lambda: job(place / output))
        after = snapshot(place)
        if not faults.fired:
            break
        if not isinstance(failure, SurgeonError):  # a folder that is there already could not be made: nobody minds
            assert output in {name.partition("/")[0] for name in after}
            assert after.items() <= newer.items(), faults.calls
        else:
            assert ("disk full" in failure.message) == (at % 2 == 0)
            assert len(failure.message) < 600
            assert after == before or (faults.renamed and each_file(before, newer, after)), faults.calls
    assert at >= 4
    assert after.items() <= newer.items()
    assert snapshot(bench.inputs) == given


@pytest.mark.parametrize("name", JOBS)
def test_a_machine_that_stops_anywhere(name: str, bench: Bench, tmp_path: Path) -> None:
    output, job = bench.jobs[name]
    place, given = tmp_path / "place", snapshot(bench.inputs)
    newer = written_anew(place, output, job)
    for at in count():
        shutil.rmtree(place)
        place.mkdir()
        leave_older(place, output)
        before = snapshot(place)
        if not killed_at(at, lambda: job(place / output)):
            assert snapshot(place) == newer
            break
        found = named(place)
        assert each_file(before, newer, found), (at, found)
        assert output in found
    assert at >= 4
    assert snapshot(bench.inputs) == given


@pytest.mark.parametrize("limit", [0, 100, 2000, 100_000, 1_000_000])
def test_a_disk_that_is_really_full(limit: int, bench: Bench, tmp_path: Path) -> None:
    for number, name in enumerate(("graft", "strip", "strip to pt", "strip to safetensors")):
        output, job = bench.jobs[name]
        place = tmp_path / str(number)
        place.mkdir()
        leave_older(place, output)
        before = snapshot(place)

        def limited(job: Job = job, target: Path = place / output) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            with pytest.raises(SurgeonError, match=os.strerror(errno.EFBIG)):
                job(target)

        assert in_another_process(limited) == 0, name
        assert snapshot(place) == before


MANIFEST = GraftManifest(
    package_version="0",
    base=dict.fromkeys(("source", "library", "architecture", "content_hash", "layout"), "tiny")
    | {"num_classes": 1, "model_args": {}, "tensors": 1},
    trp={"kind": "dropout"},
    site={"module": "head"},
    temporary_parameters=1,
)


def checkpoint(step: int) -> Checkpoint:
    tensors = {"weight": torch.full((3,), float(step))}
    return Checkpoint(tensors, tensors, tensors, {"step": step}, tensors)


def run_at(path: Path, *steps: int) -> RunFolder:
    run = RunFolder(path, {"architecture": "tiny"}, MANIFEST, keep=1)
    run.create("model: tiny\n")
    for step in steps:
        run.save(str(step), checkpoint(step), best=step == 1)
    return run


def check_run(run: RunFolder, steps: set[int], best: set[int]) -> None:
    """Check that the run goes on from one of these steps, whole, and that its best is one of these."""
    best_step = int((run.path / "best").resolve().name)
    assert best_step in best
    loaded = run.load()
    assert loaded is not None
    step = loaded.state["step"]
    assert step in steps
    for tensors in (loaded.base, loaded.temporary, loaded.optimizer, loaded.ema):
        assert tensors["weight"].eq(step).all()
    if 3 in best and step == 3:
        assert best_step == 3, "a run that goes on from its best step knows it"
    assert run.best_content_hash()
    run.save("9", checkpoint(9), best=True)
    assert sorted(path.name for path in (run.path / "checkpoints").iterdir()) == ["9"], "leftovers are swept"
    assert {path.name for path in run.path.iterdir()} == {"best", "checkpoints", "last", "recipe.yaml", RECORD}


@pytest.mark.parametrize("best", [True, False], ids=["best", "not the best"])
@pytest.mark.parametrize("killed", [True, False], ids=["killed", "failing"])
def test_a_training_checkpoint_is_whole_or_the_older_one(killed: bool, best: bool, tmp_path: Path) -> None:
    run_at(tmp_path / "before", 1, 2)
    for at in count():
        run = RunFolder(tmp_path / str(at), {"architecture": "tiny"}, MANIFEST, keep=1)
        shutil.copytree(tmp_path / "before", run.path, symlinks=True)
        if killed:
            fired = killed_at(at, lambda run=run: run.save("3", checkpoint(3), best=best))
        else:
            fired = saved_while_failing(run, at, best=best)
        check_run(run, {2, 3} if fired else {3}, {1, 3} if best and fired else {3} if best else {1})
        shutil.rmtree(run.path)
        if not fired:
            break
    assert at >= 15


def saved_while_failing(run: RunFolder, at: int, *, best: bool) -> bool:
    """Save a checkpoint on a disk that fails at call number `at`; return whether there were so many."""
    with faults_at(at, fail_with(ERRORS[at % 2])) as faults:
        failure = attempted(lambda: run.save("3", checkpoint(3), best=best))
    if failure is not None:
        assert ("disk full" in failure.message) == (at % 2 == 0)
    return faults.fired
