"""`doctor`: what it finds in installations and on machines that are made up here, and that it outlives broken ones."""

from __future__ import annotations

import json
import sys
import tomllib
import warnings
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Outcome, spgsurgeon, succeed
from packaging.requirements import Requirement

from spgsurgeon.commands.doctor import doctor
from spgsurgeon.runtime import hardware as accelerators
from spgsurgeon.runtime import installation, resources

METADATA = {
    "spgsurgeon": ("0.1", ["torch>=2.10", "torchvision>=0.25", "timm>=1.0.26", 'ruff>=0.12; extra == "dev"']),
    "torch": ("2.12.0+cu130", ["filelock", 'nothing-for-this; sys_platform == "plan9"']),
    "torchvision": ("0.27.0", ["torch (==2.12.0)"]),
    "timm": ("1.0.31", ["torch", "torchvision"]),
    "filelock": ("3.20", []),
}


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[str, list[str]]]:
    """Return the distributions that the code under test finds, for a test to change; only they are looked for."""
    installed = dict(METADATA)

    def field(index: int) -> Any:
        def read(name: str) -> Any:
            if name not in installed:
                raise PackageNotFoundError(name)
            return installed[name][index]

        return read

    monkeypatch.setattr(installation, "version", field(0))
    monkeypatch.setattr(installation, "requires", field(1))
    monkeypatch.setattr(installation, "packages_distributions", dict)
    wanted = {name: installation._PACKAGES[name] for name in ("torch", "torchvision", "timm")}
    monkeypatch.setattr(installation, "_PACKAGES", wanted)
    return installed


def statuses(checks: Any) -> list[tuple[str, str]]:
    return [(check.status, check.message) for check in checks]


def checks_of(document: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [check for check in document["checks"] if check["name"] == name]


# The whole command


def test_this_installation_is_well_and_the_document_says_so() -> None:
    outcome = succeed("doctor", "--json")
    document = outcome.document
    assert outcome.err == ""
    assert {"python", "platform", "packages", "devices", "caches", "environment", "checks"} <= set(document)
    assert document["exit_code"] == 0
    assert document["devices"][0]["type"] == "cpu"
    named = {package["name"]: package for package in document["packages"]}
    assert named["torch"]["version"] in torch.__version__
    assert named["PyYAML"]["ok"] is True
    assert {check["status"] for check in document["checks"]} <= {"ok", "warning", "problem"}
    assert checks_of(document, "import torchvision")[0]["status"] == "ok"


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> Outcome:
    """Run the command where nothing that needs torch imports."""
    for name in ("torch", "torchvision", "timm", "torch.hub", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    return spgsurgeon("doctor", "--json")


def test_a_missing_torch_is_a_finding_and_not_the_end(without_torch: Outcome) -> None:
    document = without_torch.document
    assert (without_torch.code, document["exit_code"]) == (1, 1)
    assert without_torch.err == ""
    (found,) = checks_of(document, "import torch")
    assert found["status"] == "problem"
    assert "ModuleNotFoundError" in found["message"]
    assert "every command that opens a model" in found["hint"]
    assert [device["type"] for device in document["devices"]] == ["cpu"]
    assert [cache["name"] for cache in document["caches"]] == ["Hugging Face"]
    assert {package["name"]: package["ok"] for package in document["packages"]}["torch"] is True  # by its metadata


def test_a_package_that_fails_in_its_own_way_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    wanted = {"torchvision": installation._PACKAGES["torchvision"]}
    monkeypatch.setattr(installation, "_PACKAGES", wanted)
    (found,) = installation.import_checks()
    assert found.status == "problem"
    assert found.message == "RuntimeError: operator torchvision::nms does not exist"
    assert "both from the same index" in str(found.hint)


def test_people_read_what_to_do_and_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_ENOUGH_FREE_DISK", 2**80)
    outcome = succeed("doctor")
    warned = [check["message"] for check in doctor()["checks"] if check["status"] == "warning"]
    assert len(warned) >= 2  # both caches, and whatever else this machine deserves
    assert "or set HF_HOME to a folder on another disk" in outcome.out
    assert outcome.out.splitlines()[-1] == f"{len(warned)} warnings"


# Versions


def test_versions_that_fit_are_one_check(metadata: dict[str, tuple[str, list[str]]]) -> None:
    rows = installation.packages()
    assert [(row["name"], row["required"], row["ok"]) for row in rows[1:]] == [
        ("torch", ">=2.10", True),
        ("torchvision", ">=0.25", True),
        ("timm", ">=1.0.26", True),
    ]
    assert statuses(installation.version_checks(rows)) == [("ok", "all 3 packages are as new as spgsurgeon needs")]
    assert statuses(installation.combination_checks()) == [("ok", "the packages' demands on each other are met")]


def test_old_and_missing_packages_are_problems(metadata: dict[str, tuple[str, list[str]]]) -> None:
    metadata["timm"] = ("1.0.9", [])
    del metadata["torchvision"]
    found = list(installation.version_checks(installation.packages()))
    assert statuses(found) == [
        ("problem", "torchvision is not installed; spgsurgeon needs >=0.25"),
        ("problem", "timm is 1.0.9; spgsurgeon needs >=1.0.26"),
    ]
    assert found[1].hint == "pip install 'timm>=1.0.26'"


def test_a_module_under_another_distribution_counts(
    metadata: dict[str, tuple[str, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata["timm-nightly"] = metadata.pop("timm")
    monkeypatch.setattr(installation, "packages_distributions", lambda: {"timm": ["timm-nightly"]})
    assert installation.packages()[-1] == {"name": "timm", "version": "1.0.31", "required": ">=1.0.26", "ok": True}


def test_without_our_metadata_nothing_is_claimed(metadata: dict[str, tuple[str, list[str]]]) -> None:
    del metadata["spgsurgeon"]
    rows = installation.packages()
    assert {row["ok"] for row in rows} == {None}
    ((status, message),) = statuses(installation.version_checks(rows))
    assert status == "warning"
    assert message.startswith("not checked")


def test_without_packaging_nothing_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "packaging.requirements", None)
    assert {row["ok"] for row in installation.packages()} == {None}
    assert [check.status for check in installation.combination_checks()] == ["ok"]


def test_torch_that_torchvision_was_not_compiled_for_is_a_problem(metadata: dict[str, tuple[str, list[str]]]) -> None:
    metadata["torch"] = ("2.13.0+cu130", [])
    assert statuses(installation.combination_checks()) == [
        ("problem", "torchvision 0.27.0 requires torch==2.12.0; 2.13.0+cu130 is installed")
    ]


def test_what_a_package_requires_and_does_not_find_is_a_warning(metadata: dict[str, tuple[str, list[str]]]) -> None:
    del metadata["filelock"]
    assert statuses(installation.combination_checks()) == [
        ("warning", "torch requires filelock, which is not installed")
    ]


def test_two_distributions_of_one_module_are_a_warning(
    metadata: dict[str, tuple[str, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    owners = {"timm": ["timm", "timm-nightly", "timm"], "torch": ["torch", "torch"], "other": ["a", "b"]}
    monkeypatch.setattr(installation, "packages_distributions", lambda: owners)
    (check,) = installation.combination_checks()
    assert check.status == "warning"
    assert "timm and timm-nightly are the same module" in check.message
    assert "pip uninstall timm timm-nightly" in str(check.hint)


def test_every_package_that_we_require_is_looked_at() -> None:
    project = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text())["project"]
    required = {Requirement(text).name.lower() for text in project["dependencies"]}
    assert required - {"lazy_loader"} <= {name.lower() for name in installation._PACKAGES}


# Accelerators


def cuda_that_is_not_there(monkeypatch: pytest.MonkeyPatch, words: str, driver: str | None, built: str | None) -> None:
    def is_available() -> bool:
        if words:
            warnings.warn(words, stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(accelerators, "_nvidia_driver", lambda: driver)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_an_old_driver_is_a_problem_in_torchs_words(monkeypatch: pytest.MonkeyPatch) -> None:
    words = "The NVIDIA driver on your system is too old\n(found version 11040)."
    cuda_that_is_not_there(monkeypatch, words, "470.82", "13.2")
    devices, checks = accelerators.accelerators()
    ((status, message),) = statuses(check for check in checks if check.name == "cuda")
    assert (devices, status) == ([], "problem")
    assert "CUDA 13.2" in message
    assert "470.82" in message
    assert message.endswith("The NVIDIA driver on your system is too old (found version 11040).")


@pytest.mark.parametrize(
    ("driver", "built", "hidden", "status"),
    [(None, "13.2", False, "ok"), ("580.1", None, False, "warning"), ("580.1", "13.2", True, "ok")],
    ids=["no driver", "a build without CUDA", "hidden on purpose"],
)
def test_no_cuda_is_judged_by_its_reason(
    monkeypatch: pytest.MonkeyPatch, driver: str | None, built: str | None, hidden: bool, status: str
) -> None:
    cuda_that_is_not_there(monkeypatch, "", driver, built)
    if hidden:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    _, checks = accelerators.accelerators()
    assert [check.status for check in checks if check.name == "cuda"] == [status]


def test_a_device_that_does_not_compute_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Old GPU")

    def fail(device: int) -> Any:
        raise RuntimeError("CUDA error: no kernel image is available\nmore")

    monkeypatch.setattr(torch.cuda, "device", fail)
    devices, checks = accelerators.accelerators()
    assert devices == []
    assert ("problem", "Old GPU does not compute: RuntimeError: CUDA error: no kernel image is available") in statuses(
        checks
    )


def test_more_threads_than_processors_are_a_warning() -> None:
    threads = torch.get_num_threads()
    assert accelerators.thread_check(threads).status == "ok"
    check = accelerators.thread_check(threads - 1)
    assert (check.status, check.hint) == ("warning", f"export OMP_NUM_THREADS={threads - 1}")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_is_described() -> None:
    devices, checks = accelerators.accelerators()
    assert devices[0]["type"] == "cuda"
    assert 0 < devices[0]["memory_free"] <= devices[0]["memory_total"]
    assert ("ok", f"{devices[0]['name']} computes") in statuses(checks)


# The machine


@pytest.mark.parametrize(
    ("groups", "files", "count", "memory", "free"),
    [
        (
            "0::/a/b",
            {
                "a/cpu.max": "150000 100000",
                "a/b/cpu.max": "max 100000",
                "a/b/memory.max": "4096",
                "a/b/memory.current": "3000",
                "a/b/memory.stat": "anon 1\ninactive_file 1000\nfile 2",
            },
            2,
            4096,
            2096,
        ),
        (
            "3:cpu,cpuacct:/a\n2:memory:/gone",
            {
                "cpu/a/cpu.cfs_quota_us": "300000",
                "cpu/a/cpu.cfs_period_us": "100000",
                "cpu/cpu.cfs_quota_us": "-1",
                "cpu/cpu.cfs_period_us": "100000",
                "memory/memory.limit_in_bytes": "8192",
            },
            3,
            8192,
            8192,
        ),
    ],
    ids=["version 2", "version 1"],
)
def test_control_groups_limit_processors_and_memory(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    groups: str,
    files: dict[str, str],
    count: int,
    memory: int,
    free: int,
) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    read = Path.read_text
    own = "/proc/self/cgroup"
    monkeypatch.setattr(Path, "read_text", lambda path: groups if str(path) == own else read(path))
    monkeypatch.setattr(resources, "_CGROUPS", tmp_path)
    monkeypatch.setattr(resources.os, "sched_getaffinity", lambda pid: range(64), raising=False)
    found = resources.processors()
    assert (found["count"], found["memory_total"], found["memory_free"]) == (count, memory, free)


@pytest.mark.parametrize(("mebibytes", "status"), [(64, "warning"), (1024, "ok")])
def test_little_shared_memory_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mebibytes: int, status: str
) -> None:
    usage = type("Usage", (), {"total": mebibytes * 2**20})
    monkeypatch.setattr(resources, "_SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(resources.shutil, "disk_usage", lambda path: usage)
    check = resources.shared_memory_check()
    assert check is not None
    assert check.status == status


def test_a_cache_is_measured_without_following_links(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    blobs = tmp_path / "hub" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "a").write_bytes(bytes(1000))
    (tmp_path / "hub" / "link").symlink_to(tmp_path)
    monkeypatch.setattr(resources, "_CACHES", {"torch": lambda: tmp_path / "hub"})
    (row,) = resources.caches()
    assert (row["exists"], row["writable"], row["size_complete"]) == (True, True, True)
    assert row["size"] == 1000
    monkeypatch.setattr(resources, "_COUNTED_FILES", 0)
    assert resources.caches()[0]["size_complete"] is False


def test_a_cache_that_is_not_there_yet_is_judged_by_where_it_will_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(resources, "_CACHES", {"torch": lambda: tmp_path / "no" / "such"})
    rows = resources.caches()
    assert (rows[0]["exists"], rows[0]["writable"], rows[0]["size"]) == (False, True, 0)
    assert [check.status for check in resources.cache_checks(rows)] == ["ok"]
    (tmp_path / "no").write_text("a file in its place")
    (tmp_path / "no").chmod(0o755)
    rows = resources.caches()
    (check,) = resources.cache_checks(rows)
    assert (check.status, rows[0]["writable"]) == ("warning", False)
    assert "TORCH_HOME" in str(check.hint)


# The environment


def test_variables_that_matter_are_listed_and_secrets_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "True")
    monkeypatch.setenv("HF_TOKEN", "secret-token")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret-token@proxy")
    document = doctor()
    assert document["environment"]["HF_HUB_OFFLINE"] == "1"
    assert [check["status"] for check in checks_of(document, "network")] == ["ok"]
    assert [check["status"] for check in checks_of(document, "environment")] == ["warning"]
    assert "secret-token" not in json.dumps(document)


@pytest.mark.parametrize(("cores", "processes", "workers"), [(24, 1, 8), (24, 4, 6), (24, 100, 1), (3, 1, 3)])
def test_default_workers_are_shared_by_the_processes_of_a_machine(
    monkeypatch: pytest.MonkeyPatch, cores: int, processes: int, workers: int
) -> None:
    monkeypatch.setattr(resources, "processors", lambda: {"count": cores})  # control groups count in it
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert resources.default_workers() == workers
