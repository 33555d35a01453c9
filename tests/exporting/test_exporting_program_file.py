"""Programs of torch.export: they run at any batch, agree with the model, and say nothing of this machine."""

from __future__ import annotations

import copy
import json
import zipfile

import pytest
import torch
from torch import nn

from spgsurgeon.errors import SurgeonError, VerificationError
from spgsurgeon.exporting.program_file import export_program
from spgsurgeon.models.graph_inputs import image_inputs

SIZE = (3, 16, 16)
IMAGES = image_inputs(SIZE)


def tiny() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(784, 5))


class Branching(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) if images.sum() > 0 else -images.flatten(1)


@pytest.mark.parametrize("half", [False, True])
def test_a_program_takes_any_batch_and_gives_the_models_logits(half, tmp_path):
    model, path = tiny(), tmp_path / "any name.pt2"
    report = export_program(model, path, IMAGES, half=half, metadata={"license": "mit"})
    assert ([sizes["batch"] for sizes in report.sizes], report.half) == ([1, 2, 3], half)
    extra = {"metadata.json": ""}
    program = torch.export.load(path, extra_files=extra).module()
    assert json.loads(extra["metadata.json"]) == {"license": "mit"}
    images = torch.randn(5, *SIZE)
    with torch.no_grad():
        found, expected = program(images), model.eval()(images)
    assert found.dtype == torch.float32
    allowed = (1e-2 if half else 1e-5) * report.logits_scale
    torch.testing.assert_close(found, expected, rtol=0, atol=allowed)
    assert all(parameter.dtype == (torch.float16 if half else torch.float32) for parameter in program.parameters())


def test_a_program_holds_no_path_of_this_machine_and_none_of_our_classes(tmp_path):
    path = tmp_path / "model.pt2"
    export_program(tiny(), path, IMAGES)
    here = torch.__file__.removesuffix("__init__.py").encode()
    with zipfile.ZipFile(path) as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    assert here not in content
    assert b"spgsurgeon" not in content
    assert [*tmp_path.iterdir()] == [path]


def test_a_program_that_is_off_fails_the_proof_and_leaves_the_older_file(tmp_path, monkeypatch):
    real_export = torch.export.export

    def export_other_weights(model, *args, **kwargs):
        other = copy.deepcopy(model)
        other.model[-1].bias.data[2] += 1e-3
        return real_export(other, *args, **kwargs)

    monkeypatch.setattr(torch.export, "export", export_other_weights)
    path = tmp_path / "model.pt2"
    path.write_bytes(b"older")
    with pytest.raises(VerificationError, match=r"at batch size 1 the largest difference of 'logits' is 0\.001"):
        export_program(tiny(), path, IMAGES)
    assert path.read_bytes() == b"older"
    assert [*tmp_path.iterdir()] == [path]


def test_a_model_that_cannot_be_exported_is_refused_in_one_line(tmp_path):
    with pytest.raises(SurgeonError) as caught:
        export_program(Branching(), tmp_path / "model.pt2", IMAGES)
    assert "\n" not in caught.value.message
    assert [*tmp_path.iterdir()] == []
