"""What a run stands on, and holding torch to its deterministic algorithms."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import ONE_PROCESS

from spgsurgeon.errors import UsageError
from spgsurgeon.recipe.reading import read_recipe
from spgsurgeon.runtime.reproducibility import deterministic_algorithms, environment, tf32_products
from spgsurgeon.training.assembling import switches as torch_switches
from spgsurgeon.training.run import train


def switches() -> tuple[Any, ...]:
    deterministic: Any = torch.utils.deterministic
    return (
        torch.are_deterministic_algorithms_enabled(),
        deterministic.fill_uninitialized_memory,
        torch.backends.cudnn.benchmark,
    )


def test_the_environment_is_plain_data() -> None:
    found = environment(ONE_PROCESS)
    assert json.loads(json.dumps(found)) == found
    assert found["torch"] == torch.__version__.partition("+")[0] or found["torch"] == torch.__version__
    assert found["device_type"] == "cpu"
    assert found["threads"] == torch.get_num_threads()


@pytest.mark.parametrize("wanted", [True, False])
def test_switches_are_put_back(wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    before = switches()
    inside = []

    def fail() -> None:
        with deterministic_algorithms(wanted):
            inside.append(torch.are_deterministic_algorithms_enabled())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert inside == [wanted]
    assert switches() == before


def test_tf32_is_for_the_block_and_changes_nothing_on_a_cpu() -> None:
    """The block within, which does not ask for it, leaves it as it is."""
    before, matrix = torch.backends.cuda.matmul.allow_tf32, torch.randn(64, 64)
    with tf32_products(True):
        found = environment(ONE_PROCESS)["flags"]["float32_matmul_precision"], matrix @ matrix
        with tf32_products(False):
            assert torch.backends.cuda.matmul.allow_tf32
    assert found[0] == "high"
    assert torch.equal(found[1], matrix @ matrix)
    assert torch.backends.cuda.matmul.allow_tf32 == before


@pytest.mark.parametrize("wanted", [True, False])
def test_cudnn_tries_its_algorithms_where_a_recipe_asks_for_it(wanted: bool) -> None:
    before = torch.backends.cudnn.benchmark
    with torch_switches(read_recipe("digits-dropout", [f"training.cudnn_benchmark={wanted}"])):
        assert environment(ONE_PROCESS)["flags"]["cudnn_benchmark"] is wanted
    assert torch.backends.cudnn.benchmark is before


def test_who_wants_no_tf32_leaves_other_precisions_as_they_are() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with tf32_products(False):
            assert torch.get_float32_matmul_precision() == "medium"
        with tf32_products(True):
            assert torch.get_float32_matmul_precision() == "medium"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_another_workspace_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    with pytest.raises(UsageError, match="CUBLAS_WORKSPACE_CONFIG"), deterministic_algorithms(True):
        pass


def test_a_run_records_each_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    overrides = ["training.batch_size=200", "training.epochs=1", "training.device=cpu", "training.deterministic=true"]
    options: dict[str, Any] = {"recipe": "digits-dropout", "random_weights": True, "output": tmp_path / "run"}
    first = train("timm/test_resnet", overrides=overrides, **options)
    again = train(resume=True, output=tmp_path / "run")
    assert again["content_hash"] == first["content_hash"]
    starts = json.loads((tmp_path / "run" / "environment.json").read_text())["starts"]
    assert [start["step"] for start in starts] == [0, 3]
    assert [start["flags"]["deterministic"] for start in starts] == [True, True]
