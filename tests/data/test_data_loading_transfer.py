"""Batches on their way to the device come there as they were."""

import pytest
import torch

from spgsurgeon.data.loading.transfer import Transfer, _copy_stream


def test_what_is_there_stays_as_it_is() -> None:
    images, labels = torch.rand(2, 3), torch.arange(2)
    found = Transfer(torch.device("cpu"))((images, labels))
    assert (found[0] is images, found[1] is labels) == (True, True)


def test_copies_to_a_device_have_one_stream_whoever_makes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that was freed on a stream is of no use to another."""
    monkeypatch.setattr(torch.cuda, "Stream", lambda index: (index, object()))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    _copy_stream.cache_clear()
    streams = [Transfer(torch.device(name))._stream for name in ("cuda:0", "cuda:1", "cuda:1", "cuda")]
    _copy_stream.cache_clear()
    assert streams[0] is not streams[1]
    assert streams[1] is streams[2] is streams[3]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_copies_beside_a_busy_device_are_whole_when_they_are_used() -> None:
    device = torch.device("cuda")
    transfer, work = Transfer(device), torch.rand(2048, 2048, device=device)
    sums = []
    for number in range(50):
        work = (work @ work).tanh()
        batch = transfer(torch.full((256, 3, 64, 64), float(number)).pin_memory())
        assert batch.device.type == "cuda"
        sums.append(batch.mean())
    assert torch.stack(sums).tolist() == list(range(50))
