"""Files of an earlier version: they open, a run ends as it would have then, and what others rely on is still there."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import Outcome, spgsurgeon, succeed
from old_files import (
    COMMANDS,
    INSPECTED,
    RESUME,
    RESUME_COMPARISON,
    STRIPPED,
    expected,
    extract,
    interface,
    metrics_of,
    path_and_options,
    rounding,
    without_times,
)

from spgsurgeon.replicas.kinds import kinds

PROSE = ("evidence", "next", "notes")
ELSEWHERE = 0.02  # relative or absolute: losses and shares after a few dozen steps that round otherwise


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The old files, in the working folder: paths in them are relative."""
    monkeypatch.chdir(extract(tmp_path))
    return tmp_path


def differences(old: Any, new: Any, tolerance: float = 0.0, path: str = "") -> list[str]:
    """Return where `new` has something else than `old` has; it may have more keys."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [d for key in old for d in differences(old[key], new.get(key, "nothing"), tolerance, f"{path}.{key}")]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [d for place, (one, other) in pairs for d in differences(one, other, tolerance, f"{path}[{place}]")]
    if isinstance(old, float) and isinstance(new, (int, float)):
        return [] if new == pytest.approx(old, rel=tolerance, abs=tolerance) else [f"{path}: {new}, not {old}"]
    return [] if old == new else [f"{path}: {new!r}, not {old!r}"]


@pytest.mark.parametrize("name", INSPECTED)
def test_what_an_old_file_is_has_not_changed(name: str, old: Path) -> None:
    document = succeed("inspect", *path_and_options(INSPECTED, name), "--json").document
    then = {key: value for key, value in expected()["inspect"][name].items() if key not in PROSE}
    assert differences(then, document) == []


@pytest.mark.parametrize("name", STRIPPED)
def test_old_folders_are_stripped_to_the_same_weights(name: str, old: Path) -> None:
    document = succeed("strip", *path_and_options(STRIPPED, name), "-o", "new", "--json").document
    assert document["proven"]
    assert [output["content_hash"] for output in document["outputs"]] == [expected()["strip"][name]]


def test_an_old_grafted_folder_is_replaced_with_force(old: Path) -> None:
    succeed("graft", "base", "-o", "dropout", "--force")
    (old / "depth" / "notes.txt").touch()
    assert spgsurgeon("graft", "base", "-o", "depth", "--force").code == 2  # that file is not ours
    manifest = old / "segmentation" / "graft.json"
    manifest.write_text(manifest.read_text().replace('"rate"', '"Rate"'))
    assert spgsurgeon("graft", "base", "-o", "segmentation", "--force").code == 2  # nor is this manifest


def test_an_old_pickle_has_the_weights_of_the_safetensors_beside_it(old: Path) -> None:
    document = succeed("diff", "stripped/model.pt", "stripped", "--json").document
    assert document["identical"]
    assert document["b"]["content_hash"] == expected()["strip"]["finished"]


def test_an_unfinished_run_ends_as_it_would_have_then(old: Path) -> None:
    """Bit for bit where torch rounds here as it did there."""
    then, resumed = expected(), without_times(succeed(*RESUME, "--json").document)
    alike = rounding() == then["rounding"]
    if not alike:
        resumed["content_hash"] = then["resumed"]["content_hash"]
    tolerance = 0.0 if alike else ELSEWHERE
    assert ["no record of its recipe and data" in note for note in resumed.pop("notes")] == [True]
    assert differences({**then["resumed"], "notes": []}, {**resumed, "notes": []}, tolerance) == []
    assert differences(without_labels(then["metrics"]), metrics_of(old / "unfinished"), tolerance) == []


def without_labels(value: Any) -> Any:
    """Return metrics without the labels of images: an earlier version recorded that of the mixture."""
    if isinstance(value, dict):
        return {key: without_labels(inner) for key, inner in value.items() if key != "label"}
    return [without_labels(inner) for inner in value] if isinstance(value, list) else value


def test_a_run_that_was_finished_stays_so(old: Path) -> None:
    lines = metrics_of(old / "finished")
    document = succeed("train", "--resume", "-o", "finished", "--json").document
    assert document["content_hash"] == expected()["strip"]["finished"]
    assert metrics_of(old / "finished") == lines


def resume_comparison() -> Outcome:
    """Resume the old comparison as if this version and these libraries had begun it: it says no to others."""
    path = Path("comparison/compare-plan.json")
    plan = json.loads(path.read_text())
    plan["versions"] = {name: str(import_module(name).__version__) for name in plan["versions"]}
    path.write_text(json.dumps(plan))
    return succeed(*RESUME_COMPARISON, "--json")


def test_an_old_comparison_is_resumed_and_reported(old: Path) -> None:
    then = json.loads(Path("comparison/compare.json").read_text())
    results = Path("comparison/results.jsonl").read_bytes()
    assert differences(then, resume_comparison().document, ELSEWHERE) == []
    assert Path("comparison/results.jsonl").read_bytes() == results  # nothing was trained again
    document = succeed("report", "finished", "unfinished", "comparison", "-o", "new", "--json").document
    assert [run["run"] for run in document["runs"]] == ["finished", "unfinished"]
    (compared,) = document["comparisons"]
    assert {name: arm["verdict"] for name, arm in compared["arms"].items()} == {
        name: arm["verdict"] for name, arm in then["arms"].items()
    }
    assert document["notes"] == []  # that mixed labels are not those of the images is no change of the data


@pytest.mark.slow
def test_an_old_comparison_takes_more_learning_rates(old: Path) -> None:
    then = json.loads(Path("comparison/compare.json").read_text())
    resume_comparison()
    document = succeed(*RESUME_COMPARISON, "--learning-rates", "1,3", "--json").document
    assert document["multiples"] == [1, 3]
    for name, arm in document["arms"].items():
        assert arm["runs"] == 2
        assert arm["learning_rates"][0] == then["arms"][name]["learning_rates"][0]


@pytest.mark.parametrize("folder", ["recipes", "resolved"])
def test_old_recipes_mean_what_they_meant(folder: str, old: Path) -> None:
    names = [path.name for path in sorted(Path("recipes").iterdir())]
    assert len(names) == 21
    for name in names:
        shown = succeed("recipes", "show", f"{folder}/{name}", "--json").document["recipe"]
        then = yaml.safe_load(Path("resolved", name).read_text())
        kind = kinds()[then["trp"]["kind"]]
        then["trp"] = {key: value for key, value in then["trp"].items() if key in kind.model_fields}  # its own settings
        assert differences(then, yaml.safe_load(shown), path=name) == []


@pytest.mark.parametrize("name", COMMANDS)
def test_documents_have_all_keys_that_they_had(name: str, old: Path) -> None:
    outcome = resume_comparison() if name == "compare" else spgsurgeon(*COMMANDS[name], "--json")
    assert set(expected()["json keys"][name]) <= set(outcome.document), outcome.err


def test_public_names_and_their_parameters_are_there() -> None:
    now = interface()
    for name, then in expected()["interface"].items():
        assert name in now
        assert set(then["attributes"]) <= set(now[name]["attributes"]), name
        if then["parameters"] is not None:
            check_call(name, then["parameters"], now[name]["parameters"])


def check_call(name: str, then: list[dict[str, Any]], now: list[dict[str, Any]]) -> None:
    """Whatever the function could be called with it can be called with now."""
    found = {parameter["name"]: (place, parameter) for place, parameter in enumerate(now)}
    if "settings" in found:  # those of every kind of replicas, by name
        settings = {key for kind in kinds().values() for key in kind.model_fields}
        then = [parameter for parameter in then if parameter["name"] not in settings]
    for place, parameter in enumerate(then):
        assert parameter["name"] in found, name
        place_now, parameter_now = found.pop(parameter["name"])
        if parameter["positional"]:
            assert (place_now, parameter_now["positional"]) == (place, True), name
        assert parameter_now["optional"] >= parameter["optional"], name
    assert all(parameter["optional"] for _, parameter in found.values()), name
