"""Files written by the tools that people train with, where they are installed, are recognised and opened as they are.

`pip install -e '.[dev,producers]'` installs those that this package does not need itself.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models._hub import save_for_hf
from timm.utils import CheckpointSaver, ModelEmaV3
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from spgsurgeon.commands.inspect import inspect
from spgsurgeon.loading.opening import open_model
from spgsurgeon.loading.request import ModelRequest

NAME, CLASSES = "test_resnet", 7

# The tools' own warnings, of their own dependencies.
pytestmark = pytest.mark.filterwarnings("ignore")


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return timm.create_model(NAME, num_classes=CLASSES)


def check(path: Path, expected: nn.Module, producer: str | None, **options: Any) -> None:
    """The file or folder is recognised for what it is, and its weights are those of `expected`."""
    document = inspect(str(path), **options)
    assert (document["library"], document["architecture"]) == ("timm", NAME)
    assert document["producer"] == producer
    assert document["head"]["classes"] == CLASSES
    state = open_model(ModelRequest(str(path), **options)).module.state_dict()
    assert list(state) == list(expected.state_dict())
    for key, value in expected.state_dict().items():
        assert torch.equal(state[key], value), key


def test_timm_train(tmp_path: Path) -> None:
    model, ema = network(), ModelEmaV3(network(1), decay=0.9)
    args = Namespace(model=NAME, num_classes=CLASSES)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    saver = CheckpointSaver(model, optimizer, args=args, model_ema=ema, checkpoint_dir=str(tmp_path))
    saver.save_checkpoint(0, metric=1.0)
    check(tmp_path / "model_best.pth.tar", ema.module, "timm")
    check(tmp_path / "last.pth.tar", model, "timm", weights="raw")


def test_timm_hub_folder(tmp_path: Path) -> None:
    model = network()
    save_for_hf(model, str(tmp_path), safe_serialization="both")
    check(tmp_path, model, None)


@pytest.mark.parametrize("weights", ["raw", "ema"])
def test_torchvision_references(weights: str, tmp_path: Path) -> None:
    model = network()
    average = AveragedModel(network(1), multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    args = Namespace(model=NAME, test_only=False, print_freq=10, output_dir=".")
    document = {"model": model.state_dict(), "model_ema": average.state_dict(), "epoch": 3, "args": vars(args)}
    torch.save(document, tmp_path / "model_3.pth")
    inner = average.module if weights == "ema" else model
    assert open_model(ModelRequest(str(tmp_path / "model_3.pth"), weights=weights, arch=f"timm/{NAME}")).notes == []
    check(tmp_path / "model_3.pth", inner, "torchvision", weights=weights, arch=f"timm/{NAME}")


@pytest.mark.parametrize("attribute", ["net", "model", "backbone"])
def test_lightning(attribute: str, tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning")

    class Classifier(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self, lr: float = 0.1) -> None:
            super().__init__()
            self.save_hyperparameters()
            setattr(self, attribute, network())

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            loss: torch.Tensor = nn.functional.cross_entropy(getattr(self, attribute)(batch[0]), batch[1])
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=0.01)

    data = torch.utils.data.TensorDataset(torch.rand(4, 3, 32, 32), torch.arange(4))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", default_root_dir=tmp_path, **quiet)
    module = Classifier()
    trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=2))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    check(tmp_path / "last.ckpt", getattr(module, attribute), "lightning")


@pytest.mark.parametrize("safe", [True, False])
def test_accelerate(safe: bool, tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    model = network()
    prepared, _ = accelerator.prepare(model, torch.optim.AdamW(model.parameters()))
    accelerator.save_state(str(tmp_path / "state"), safe_serialization=safe)
    check(tmp_path / "state", model, "accelerate")
    accelerator.save_model(prepared, str(tmp_path / "shards"), max_shard_size="500KB", safe_serialization=safe)
    assert len(list((tmp_path / "shards").iterdir())) > 2
    check(tmp_path / "shards", model, "accelerate")


def test_transformers_wrapper_of_timm(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.TimmWrapperConfig(architecture=NAME, num_labels=CLASSES)
    model = transformers.TimmWrapperForImageClassification(config)
    model.save_pretrained(tmp_path)
    check(tmp_path, model.timm_model, "transformers")
