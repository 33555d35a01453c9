"""The loops in the guide run as they are printed, one after the other."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from guide_pages import ROOT, Page
from tiny_texts import reader
from torch import nn

PAGE = ROOT / "spgsurgeon" / "docs" / "loops.md"
BLOCKS = [text for language, text in Page(PAGE, PAGE.read_text(encoding="utf-8")).blocks if language == "python"]


def run(block: int, needs: str | None, names: dict[str, Any]) -> nn.Module:
    """Run the common block, then another, and return the model that it ends with."""
    if needs:
        pytest.importorskip(needs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what others warn of is not ours: few workers, no logger
        for text in (BLOCKS[0], "import spgsurgeon", BLOCKS[block]):
            exec(text, names)
    found = names.get("model", names.get("base"))
    assert isinstance(found, nn.Module)
    return found


@pytest.mark.parametrize(("block", "needs"), [(1, None), (2, "accelerate"), (3, "lightning")])
def test_a_loop_ends_with_the_base_and_has_trained_it(block: int, needs: str | None, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    torch.manual_seed(0)
    model = run(block, needs, names)
    fresh = names["new_model"]()
    assert list(model.state_dict()) == list(fresh.state_dict())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    grafted = names["grafted"] if "grafted" in names else names["retraining"].grafted
    matrices = [parameter for parameter in grafted.replicas.parameters() if parameter.dim() == 2]
    assert all(matrix.any() for matrix in matrices)  # they began at zero


def test_transformers_own_loop(tmp_path: Path, monkeypatch) -> None:
    transformers = pytest.importorskip("transformers", minversion="5")
    pytest.importorskip("accelerate")
    monkeypatch.chdir(tmp_path)
    reader(tmp_path / "encoder", num_labels=2)
    names: dict[str, Any] = {}
    base = run(4, None, names)
    again = transformers.AutoModelForSequenceClassification.from_pretrained("better")
    assert list(again.state_dict()) == list(base.state_dict())
    assert (tmp_path / "runs" / "checkpoint-2" / "temporary.safetensors").exists()


def test_a_state_dict_is_stripped_to_one_that_the_base_takes() -> None:
    names: dict[str, Any] = {}
    for text in (BLOCKS[0], "import spgsurgeon", BLOCKS[5]):
        exec(text, names)
    assert list(names["weights"]) == list(names["new_model"]().state_dict())


def test_no_block_is_left_out() -> None:
    assert len(BLOCKS) == 6
