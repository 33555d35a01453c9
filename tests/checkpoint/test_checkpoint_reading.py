from __future__ import annotations

import argparse
import collections
import pathlib
import tarfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from spgsurgeon.checkpoint.containers import documents
from spgsurgeon.checkpoint.state_dict.layouts import NO_SETTING
from spgsurgeon.checkpoint.tensors import Checkpoint, read_checkpoint
from spgsurgeon.errors import DamagedFileError, UnsafeInputError, UsageError

FORMS = pytest.mark.parametrize("form", ["torch-zip", "torch-legacy"])


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(OrderedDict(stem=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), fc=nn.Linear(4, 2)))


def save(document: object, path: Path, form: str = "torch-zip") -> Path:
    torch.save(document, path, _use_new_zipfile_serialization=form == "torch-zip")
    return path


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: tensor for key, tensor in tensors.items()}


def assert_same(checkpoint: Checkpoint, expected: Mapping[str, Tensor]) -> None:
    assert list(checkpoint.tensors) == list(expected)
    for key, tensor in expected.items():
        assert torch.equal(checkpoint.tensors[key], tensor), key


def optimizer_state(model: nn.Module) -> dict[str, Any]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer.state_dict()


@FORMS
def test_bare_state_dict(form: str, tmp_path: Path) -> None:
    model = network()
    checkpoint = read_checkpoint(save(model.state_dict(), tmp_path / "model.pth", form))
    assert_same(checkpoint, model.state_dict())
    assert (checkpoint.format, checkpoint.producer, checkpoint.architecture) == (form, None, None)
    assert (checkpoint.weights, checkpoint.has_ema, checkpoint.path_in_file, checkpoint.prefixes) == (
        "raw",
        False,
        (),
        (),
    )


OF_THE_SCRIPT = {"test_only": False, "print_freq": 10, "output_dir": "."}
"""Arguments that torchvision's training scripts have."""


def timm_document(model: nn.Module, average: nn.Module | None) -> dict[str, Any]:
    args = argparse.Namespace(
        model="resnet18",
        num_classes=2,
        in_chans=None,
        img_size=64,
        gp=None,
        model_kwargs={"act_layer": "silu", "norm_layer": None},
        mean=(0.1, 0.2, 0.3),
        std=None,
        interpolation="",
        crop_pct=0.95,
        drop=0.1,
        lr=np.float64(0.1),
        output=pathlib.PurePosixPath("out"),
    )
    document = {
        "epoch": 3,
        "arch": "resnet18",
        "state_dict": model.state_dict(),
        "optimizer": optimizer_state(model),
        "version": 2,
        "args": args,
        "amp_scaler": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 0},
        "metric": np.float64(71.5),
    }
    return document if average is None else document | {"state_dict_ema": average.state_dict()}


@FORMS
def test_timm_training_checkpoint(form: str, tmp_path: Path) -> None:
    model, average = network(), nn.Sequential(*network()[:2])
    document = timm_document(model, average)
    raw = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    path = save(document, tmp_path / "checkpoint.pth.tar", form)
    checkpoint = read_checkpoint(path)
    assert_same(checkpoint, average.state_dict())
    assert (checkpoint.weights, checkpoint.has_ema, checkpoint.path_in_file) == ("ema", True, ("state_dict_ema",))
    assert (checkpoint.producer, checkpoint.library, checkpoint.architecture) == ("timm", "timm", "resnet18")
    assert checkpoint.model_args == {
        "num_classes": 2,
        "img_size": 64,
        "model_kwargs": {"act_layer": "silu", "norm_layer": None},
        "mean": [0.1, 0.2, 0.3],
        "crop_pct": 0.95,
    }
    chosen = read_checkpoint(path, "raw")
    assert_same(chosen, raw)
    assert (chosen.weights, chosen.has_ema) == ("raw", True)


def test_timm_without_average(tmp_path: Path) -> None:
    model = network()
    path = save(timm_document(model, None), tmp_path / "checkpoint.pth.tar")
    assert read_checkpoint(path).weights == "raw"
    with pytest.raises(UsageError, match="no ema weights"):
        read_checkpoint(path, "ema")
    with pytest.raises(UsageError, match="'best'"):
        read_checkpoint(path, "best")


@FORMS
def test_torchvision_reference_checkpoint(form: str, tmp_path: Path) -> None:
    model = network()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    schedule = torch.optim.lr_scheduler.MultiStepLR(torch.optim.SGD(model.parameters(), lr=0.1), [2, 4])
    document = {
        "model": model.state_dict(),
        "optimizer": optimizer_state(model),
        "lr_scheduler": schedule.state_dict(),
        "epoch": 1,
        "args": argparse.Namespace(model="resnet50", data_path="/data", device="cuda", **OF_THE_SCRIPT),
        "model_ema": average.state_dict(),
    }
    assert "n_averaged" in document["model_ema"]
    path = save(document, tmp_path / "checkpoint.pth", form)
    checkpoint = read_checkpoint(path)
    assert_same(checkpoint, network().state_dict())
    assert (checkpoint.producer, checkpoint.library, checkpoint.architecture) == (
        "torchvision",
        "torchvision",
        "resnet50",
    )
    assert (checkpoint.weights, checkpoint.path_in_file, checkpoint.prefixes) == ("ema", ("model_ema",), ("module.",))
    assert read_checkpoint(path, "raw").prefixes == ()


@pytest.mark.parametrize(
    "document",
    [
        {"model": network().state_dict(), "args": argparse.Namespace(model="resnet18", lr=0.1), "epoch": 3},
        {"model": network().state_dict(), "args": {"model": "resnet18", "output_dir": "out", "print_freq": 10}},
        {"state_dict": network().state_dict(), "arch": "resnet18", "args": argparse.Namespace(lr=0.1)},
        {"state_dict": network().state_dict(), "arch": "resnet18", "version": "1.0"},
    ],
)
def test_a_script_of_ones_own_is_not_taken_for_a_librarys(document: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = read_checkpoint(save(document, tmp_path / "checkpoint.pth"))
    assert (checkpoint.producer, checkpoint.library, checkpoint.architecture) == (None, None, "resnet18")


def test_deit_copies_the_layout_but_is_not_torchvision(tmp_path: Path) -> None:
    args = argparse.Namespace(model="deit_tiny_patch16_224", drop_path=0.1, data_path="/data")
    path = save({"model": network().state_dict(), "args": args, "epoch": 1}, tmp_path / "checkpoint.pth")
    checkpoint = read_checkpoint(path)
    assert (checkpoint.producer, checkpoint.library, checkpoint.architecture) == (None, None, "deit_tiny_patch16_224")


def test_the_imagenet_example_names_its_architecture(tmp_path: Path) -> None:
    document = {
        "epoch": 1,
        "arch": "resnet18",
        "state_dict": prefixed("module.", network().state_dict()),
        "best_acc1": torch.tensor(70.0),
    }
    checkpoint = read_checkpoint(save(document, tmp_path / "model_best.pth.tar"))
    assert (checkpoint.producer, checkpoint.library, checkpoint.architecture) == (None, None, "resnet18")
    assert_same(checkpoint, network().state_dict())


def lightning_document(attribute: str, **more: Any) -> dict[str, Any]:
    counts: collections.defaultdict[str, list[int]] = collections.defaultdict(list)
    counts["seen"].append(1)
    return {
        "epoch": 1,
        "global_step": 10,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": OrderedDict(prefixed(attribute, network().state_dict())),
        "loops": {"fit_loop": {"state_dict": {}, "counts": counts}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_path": Path("best.ckpt"), "kth_value": None}},
        "optimizer_states": [optimizer_state(network())],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": {"arch": "resnet18", "lr": 0.1},
        **more,
    }


@FORMS
@pytest.mark.parametrize(
    ("attribute", "prefixes"),
    [
        ("model.", ("model.",)),
        ("backbone.", ("backbone.",)),
        ("net._orig_mod.", ("net.", "_orig_mod.")),
        ("model._orig_mod.module.", ("model.", "_orig_mod.", "module.")),
    ],
)
def test_lightning(attribute: str, prefixes: tuple[str, ...], form: str, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(save(lightning_document(attribute), tmp_path / "last.ckpt", form))
    assert_same(checkpoint, network().state_dict())
    assert checkpoint.prefixes == prefixes
    assert (checkpoint.producer, checkpoint.library, checkpoint.architecture) == ("lightning", None, "resnet18")


@pytest.mark.parametrize(
    ("settings", "architecture", "model_args"),
    [
        ({"model_name": "resnet18", "num_classes": 7}, "resnet18", {"num_classes": 7}),
        ({"backbone": "vit_tiny_patch16_224", "architecture": None}, "vit_tiny_patch16_224", {}),
        ({"arch": 3, "num_classes": True}, None, {}),
        ({"arch": "an\x1b[2J escape"}, None, {}),
    ],
)
def test_lightning_hyper_parameters(
    settings: dict[str, Any], architecture: str | None, model_args: dict[str, int], tmp_path: Path
) -> None:
    checkpoint = read_checkpoint(save(lightning_document("model.", hyper_parameters=settings), tmp_path / "last.ckpt"))
    assert (checkpoint.architecture, checkpoint.model_args) == (architecture, model_args)


def test_settings_that_are_more_than_settings_are_left_out_but_for_the_names_of_arguments(tmp_path: Path) -> None:
    laughs: list[Any] = []
    for _ in range(100):
        laughs = [laughs, laughs]
    document = timm_document(network(), None)
    document["args"].model_kwargs = {"act_layer": laughs}
    document["args"].img_size = Path("64")
    document["args"].num_classes = float("nan")
    found = read_checkpoint(save(document, tmp_path / "model.pth")).model_args
    assert found == {"mean": [0.1, 0.2, 0.3], "crop_pct": 0.95, "model_kwargs": {"act_layer": NO_SETTING}}


def test_lightning_with_weight_averaging_keeps_the_average_in_state_dict(tmp_path: Path) -> None:
    current = prefixed("model.", {key: tensor + 1 for key, tensor in network().state_dict().items()})
    document = lightning_document("model.", current_model_state=current, averaging_state={"n_averaged": 3})
    path = save(document, tmp_path / "last.ckpt")
    assert_same(read_checkpoint(path), network().state_dict())
    raw = read_checkpoint(path, "raw")
    assert raw.path_in_file == ("current_model_state",)
    assert torch.equal(raw.tensors["fc.bias"], network().fc.bias + 1)


def test_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(prefixed("module.", network().state_dict()), path, {"architecture": "resnet18", "library": "timm"})
    checkpoint = read_checkpoint(path)
    assert checkpoint.tensors.keys() == network().state_dict().keys()
    assert (checkpoint.format, checkpoint.library, checkpoint.architecture) == ("safetensors", "timm", "resnet18")
    assert checkpoint.prefixes == ("module.",)


def test_safetensors_of_transformers(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(prefixed("timm_model.", network().state_dict()), path, {"library_name": "transformers"})
    checkpoint = read_checkpoint(path)
    assert (checkpoint.producer, checkpoint.library, checkpoint.prefixes) == ("transformers", None, ("timm_model.",))


def test_safetensors_keep_the_file_order(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2, dtype=torch.int8), "b": torch.zeros(2)}, tmp_path / "a.safetensors")
    assert list(read_checkpoint(tmp_path / "a.safetensors").tensors) == ["b", "a"]  # the format puts wide dtypes first


def test_truncated_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(network().state_dict(), path)
    whole = path.read_bytes()
    for data in [whole[:length] for length in range(0, len(whole), 37)] + [whole[:-1], whole + b"x"]:
        path.write_bytes(data)
        with pytest.raises(DamagedFileError):
            read_checkpoint(path)


def test_the_content_decides_not_the_suffix(tmp_path: Path) -> None:
    model = network()
    assert read_checkpoint(save(model.state_dict(), tmp_path / "a.safetensors")).format == "torch-zip"
    save_file(model.state_dict(), tmp_path / "b.pth")
    assert read_checkpoint(tmp_path / "b.pth").format == "safetensors"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "Git LFS pointer"),
        (b"\n<!DOCTYPE html><html></html>", "web page"),
        (b"\x80\x02", "does not begin like a weights file"),
        (b"Hello, world.\n" * 9, "does not begin like a weights file"),
    ],
)
def test_what_a_failed_download_leaves(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(DamagedFileError, match=message):
        read_checkpoint(path)


def test_other_things_than_weights(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file"):
        read_checkpoint(tmp_path / "absent.pth")
    with pytest.raises(UsageError, match="folder"):
        read_checkpoint(tmp_path)
    (tmp_path / "model.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(32))
    with pytest.raises(UsageError, match="HDF5"):
        read_checkpoint(tmp_path / "model.h5")
    (tmp_path / "notes.txt").write_text("notes")
    with pytest.raises(UsageError, match="not a weights file"):
        read_checkpoint(tmp_path / "notes.txt")
    with tarfile.open(tmp_path / "model.tar", "w") as archive:
        archive.add(tmp_path / "notes.txt", "notes.txt")
    with pytest.raises(UsageError, match="tar archive"):
        read_checkpoint(tmp_path / "model.tar")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([torch.zeros(1)], "holds a list"),
        ({"epoch": 3, "lr": 0.1}, "holds no weights; it has: 'epoch', 'lr'"),
        ({"state_dict": {}}, "holds no weights"),
        ({"state_dict": {}, "pytorch-lightning_version": "2.5.0"}, "holds no weights"),
    ],
)
def test_files_without_weights(document: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        read_checkpoint(save(document, tmp_path / "model.pth"))


def test_entries_that_are_no_tensors_are_named(tmp_path: Path) -> None:
    document = network().state_dict() | {"loss": 0.3, "n_averaged": 4}
    with pytest.raises(DamagedFileError, match="'loss' is not a tensor"):
        read_checkpoint(save(document, tmp_path / "model.pth"))


def test_flat_parameters_are_refused(tmp_path: Path) -> None:
    document = {"_fsdp_wrapped_module._flat_param": torch.zeros(9), "fc.weight": torch.zeros(2)}
    with pytest.raises(UsageError, match="flat parameter"):
        read_checkpoint(save(document, tmp_path / "model.pth"))


def test_a_key_that_is_no_text_is_damage(tmp_path: Path) -> None:
    with pytest.raises(DamagedFileError, match="not text"):
        read_checkpoint(save({"fc.\ud800": torch.zeros(1)}, tmp_path / "model.pth"))


def test_a_whole_pickled_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsafeInputError, match=r"torch\.nn\.modules") as refused:
        read_checkpoint(save(network(), tmp_path / "model.pth"))
    assert "state_dict" in str(refused.value.hint)


def test_a_tensor_larger_than_its_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsafeInputError, match="claim"):
        read_checkpoint(save({"fc.weight": torch.zeros(1).expand(2**40)}, tmp_path / "model.pth"))


def test_reading_writes_nothing_and_is_not_shared_with_the_file(tmp_path: Path) -> None:
    path = save(network().state_dict(), tmp_path / "model.pth")
    before = path.read_bytes()
    read_checkpoint(path).tensors["fc.bias"].fill_(7)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.pth"]


@pytest.mark.parametrize(
    ("section", "beside"),
    [
        ("net", {"acc": 9, "epoch": 3}),
        ("module", {"buffer_names": ["norm.running_mean"], "optimizer": None, "global_steps": 10}),
        ("net", {"best_acc": torch.tensor(70.0), "criterion": {"center": torch.zeros(2)}, "arch": "resnet18"}),
    ],
)
def test_one_section_of_an_unknown_name(section: str, beside: dict[str, Any], tmp_path: Path) -> None:
    weights = {**network().state_dict(), "n_averaged": 3}
    path = save({section: weights, "optimizer_state": optimizer_state(network()), **beside}, tmp_path / "model.pth")
    checkpoint = read_checkpoint(path)
    assert_same(checkpoint, network().state_dict())
    assert (checkpoint.path_in_file, checkpoint.weights, checkpoint.has_ema) == ((section,), "raw", False)
    assert checkpoint.architecture == beside.get("arch")
    with pytest.raises(UsageError, match="no ema weights, only raw"):
        read_checkpoint(path, "ema")


def test_a_bare_state_dict_with_tensors_of_its_own_in_a_dictionary_is_none(tmp_path: Path) -> None:
    document = network().state_dict() | {"fc._extra_state": {"amax.history": torch.ones(2)}}
    with pytest.raises(DamagedFileError, match=r"'fc\._extra_state' is not a tensor"):
        read_checkpoint(save(document, tmp_path / "model.pth"))


def dino(tmp_path: Path) -> Path:
    teacher = {key: tensor + 1 for key, tensor in network().state_dict().items()}
    document = {
        "student": prefixed("module.", network().state_dict()),
        "teacher": prefixed("backbone.", teacher) | {"head.last.weight": torch.ones(3)},
        "dino_loss": {"center": torch.zeros(1, 4)},
        "optimizer": optimizer_state(network()),
        "epoch": 3,
    }
    return save(document, tmp_path / "dino.pth")


def test_several_sections_of_unknown_names_are_named(tmp_path: Path) -> None:
    for ask in (None, "raw", "ema"):
        with pytest.raises(UsageError, match=r"several sets of weights: student, teacher$") as refused:
            read_checkpoint(dino(tmp_path), ask)
        assert refused.value.hint == "--weights student reads those"


def test_a_section_by_its_name(tmp_path: Path) -> None:
    path = dino(tmp_path)
    student = read_checkpoint(path, "student")
    assert_same(student, network().state_dict())
    assert (student.weights, student.path_in_file, student.prefixes) == ("student", ("student",), ("module.",))
    assert read_checkpoint(path, "dino_loss").tensors.keys() == {"center"}
    backbone = read_checkpoint(path, "teacher.backbone")
    assert torch.equal(backbone.tensors["fc.bias"], network().fc.bias + 1)
    assert (len(backbone.tensors), backbone.prefixes) == (len(network().state_dict()), ("backbone.",))


def test_a_section_beside_known_ones(tmp_path: Path) -> None:
    model = network().state_dict()
    teacher = {key: tensor + 1 for key, tensor in model.items()}
    path = save({"model": model, "teacher": teacher, "best": model}, tmp_path / "model.pth")
    assert read_checkpoint(path).path_in_file == ("model",)
    assert_same(read_checkpoint(path, "teacher"), teacher)
    assert read_checkpoint(path, "best").path_in_file == ("best",)


def test_an_average_under_a_name_of_its_own_is_read_when_asked_for(tmp_path: Path) -> None:
    path = save({"model": network().state_dict(), "ema": {"fc.bias": torch.ones(2)}}, tmp_path / "model.pth")
    assert read_checkpoint(path).weights == "raw"
    average = read_checkpoint(path, "ema")
    assert (average.weights, average.path_in_file, average.has_ema) == ("ema", ("ema",), True)


@FORMS
@pytest.mark.parametrize(
    ("name", "wrapper", "prefixes"),
    [
        ("encoder_q", "", ("encoder_q.",)),
        ("encoder_q", "module.", ("module.", "encoder_q.")),
        ("module.encoder_q", "module.", ("module.encoder_q.",)),
        ("encoder_q.module", "", ("encoder_q.module.",)),
    ],
)
def test_an_attribute_by_its_name(
    name: str, wrapper: str, prefixes: tuple[str, ...], form: str, tmp_path: Path
) -> None:
    inner = "module." if name == "encoder_q.module" else ""
    query = prefixed(f"encoder_q.{inner}", network().state_dict())
    key = {key.replace("_q", "_k"): tensor + 1 for key, tensor in query.items()}
    state = prefixed(wrapper, {"queue": torch.zeros(4), "encoder_qk.weight": torch.zeros(1), **query, **key})
    checkpoint = read_checkpoint(save({"state_dict": state, "epoch": 3}, tmp_path / "moco.pth", form), name)
    assert_same(checkpoint, network().state_dict())
    assert (checkpoint.weights, checkpoint.path_in_file, checkpoint.prefixes) == (name, ("state_dict",), prefixes)


def test_an_attribute_in_a_safetensors_file(tmp_path: Path) -> None:
    save_file({"ema_model.module.a": torch.ones(1), "online_model.a": torch.zeros(1)}, tmp_path / "m.safetensors")
    checkpoint = read_checkpoint(tmp_path / "m.safetensors", "ema_model.module")
    assert (list(checkpoint.tensors), checkpoint.prefixes) == (["a"], ("ema_model.module.",))
    assert checkpoint.tensors["a"] == 1


def test_a_name_that_is_nothing_in_the_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no weights 'techer'") as refused:
        read_checkpoint(dino(tmp_path), "techer")
    assert refused.value.hint == "--weights takes student, teacher, dino_loss"
    state = prefixed(
        "module.", {"encoder_q.a": torch.ones(1), "encoder_k.a": torch.ones(1), "\x1b[2J.a": torch.ones(1)}
    )
    path = save({"model": state, "model_ema": state, "other": {"a": torch.ones(1)}}, tmp_path / "model.pth")
    with pytest.raises(UsageError, match="no weights 'encoder'") as refused:
        read_checkpoint(path, "encoder")
    for name in ("ema", "raw", "other", "encoder_q", "encoder_k"):
        assert name in str(refused.value.hint)
    assert "\x1b" not in str(refused.value.hint)


def test_one_dictionary_under_many_names_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[str] = []
    seen = documents.tensor_spec
    monkeypatch.setattr(
        documents, "tensor_spec", lambda file, key, value: looked_at.append(key) or seen(file, key, value)
    )
    shared = {f"{n}.weight": torch.ones(1) for n in range(9)}
    read_checkpoint(save({f"section {n}": shared for n in range(99)}, tmp_path / "model.pth"))
    assert len(looked_at) < 99


@pytest.mark.parametrize("mark", ["zero_stage", "partition_count"])
def test_shares_of_deepspeed_are_refused_with_advice(mark: str, tmp_path: Path) -> None:
    whole = {"module": network().state_dict()}
    share = whole | {"optimizer_state_dict": {mark: 2, "single_partition_of_fp32_groups": [torch.zeros(9)]}}
    for path in (
        save(whole, tmp_path / "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt"),
        save(share, tmp_path / "optim_states.pt"),
    ):
        with pytest.raises(UsageError, match="DeepSpeed ZeRO") as refused:
            read_checkpoint(path)
        assert r"python zero_to_fp32.py . OUTPUT" in str(refused.value.hint)


@pytest.mark.parametrize("name", ["make.py", "poster.svg", "results.csv"])
def test_text_is_no_weights_file_whatever_its_letters_mean_in_a_pickle(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"cos\nsystem\n(S'true'\ntR.  # " + "\u00fc".encode() * 400)
    with pytest.raises(UsageError, match="not a weights file"):
        read_checkpoint(path)


@pytest.mark.parametrize("name", ["model.pth", "model.pkl", "model.PICKLE", "model"])
def test_an_old_pickle_of_letters_stays_unsafe(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(UnsafeInputError, match=r"os\.system"):
        read_checkpoint(tmp_path / name)


def test_binary_pickles_are_unsafe_under_any_name(tmp_path: Path) -> None:
    (tmp_path / "make.py").write_bytes(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.")
    with pytest.raises(UnsafeInputError, match=r"os\.system"):
        read_checkpoint(tmp_path / "make.py")


def test_an_attribute_of_lightnings_is_all_that_is_taken_off(tmp_path: Path) -> None:
    document = lightning_document("student.", state_dict=prefixed("student.net.", network().state_dict()))
    path = save(document, tmp_path / "last.ckpt")
    assert_same(read_checkpoint(path, "student"), prefixed("net.", network().state_dict()))
