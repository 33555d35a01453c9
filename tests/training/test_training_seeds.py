"""Generators seeded for a step draw what they would draw after torch's own seeding."""

import pytest
import torch

from spgsurgeon.training.seeds import seed_generators

GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=GPU)])
def test_a_step_draws_as_after_torchs_seeding(device: str) -> None:
    def draw() -> list[torch.Tensor]:
        return [torch.rand(8), torch.nn.functional.dropout(torch.ones(64, device=device), 0.5)]

    torch.manual_seed(7)
    expected = draw()
    torch.manual_seed(8)
    seed_generators(7, torch.device(device))
    assert all(torch.equal(found, right) for found, right in zip(draw(), expected, strict=True))
