"""Batches on their way to the device come there as they were."""

import pytest
import torch

from spgsurgeon.training.transfer import Transfer


def test_what_is_there_stays_as_it_is() -> None:
    images, labels = torch.rand(2, 3), torch.arange(2)
    found = Transfer(torch.device("cpu"))(images, labels)
    assert (found[0] is images, found[1] is labels) == (True, True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_copies_beside_a_busy_device_are_whole_when_they_are_used() -> None:
    device = torch.device("cuda")
    transfer, work = Transfer(device), torch.rand(2048, 2048, device=device)
    sums = []
    for number in range(50):
        work = (work @ work).tanh()
        (batch,) = transfer(torch.full((256, 3, 64, 64), float(number)).pin_memory())
        assert batch.device.type == "cuda"
        sums.append(batch.mean())
    assert torch.stack(sums).tolist() == list(range(50))
