"""Generators seeded for a step draw what they would draw after torch's own seeding."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from spgsurgeon.runtime.seeds import seed_generators

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


def test_the_generator_of_a_step_is_that_of_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.cuda.manual_seed seeds that of the current device, which may be another one."""
    current, seeded = [torch.device("cuda", 0)], []

    @contextmanager
    def switch(device: torch.device) -> Iterator[None]:
        current.append(device)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", switch)
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: seeded.append((seed, current[-1])))
    seed_generators(7, torch.device("cuda", 1))
    assert seeded == [(7, torch.device("cuda", 1))]
