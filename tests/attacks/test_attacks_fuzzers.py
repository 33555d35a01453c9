"""A little of what the searches in tests/tools do at length."""

from __future__ import annotations

import fuzz_checkpoints
import fuzz_objective
import pytest
import torch

from spgsurgeon.models.libraries.identity import Identity
from spgsurgeon.models.libraries.torchvision_library import TorchvisionLibrary


@pytest.mark.slow
def test_files_and_shapes_changed_at_random_end_with_an_answer_or_an_error_of_ours() -> None:
    found = fuzz_checkpoints.fuzz(150, seed=21)
    assert found.faults == []
    assert found.ends["read"] > 20
    assert found.ends["damaged-file"] > 20


def test_random_cases_of_the_objective_agree_with_the_slow_walker() -> None:
    assert fuzz_objective.fuzz(100, seed=21) == []


@pytest.mark.parametrize("shape", [(), (5,), (0,), (1, 0, 4), (2, 3), (1, 197, 768, 1)])
def test_positions_of_an_odd_shape_say_no_image_size(shape: tuple[int, ...]) -> None:
    tensors = {"encoder.pos_embedding": torch.empty(shape), "conv_proj.weight": torch.empty(768, 3, 16, 16)}
    assert TorchvisionLibrary().args_from_tensors(Identity("torchvision", "vit_b_16", 10), tensors) == {}
