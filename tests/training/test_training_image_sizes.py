"""Models that are built for one image size are rebuilt for the size that a recipe says, by timm's own resampling."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from command_line import DIGITS, TINY, spgsurgeon, succeed
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed

from spgsurgeon.errors import ArchitectureError
from spgsurgeon.models.libraries.building import build
from spgsurgeon.models.libraries.identity import Identity
from spgsurgeon.models.libraries.resizing import at_image_size

VIT = Identity("timm", "test_vit3", 10)
SMALL = ("data.limit=4", "data.image_size=64", "data.workers=0", "training.batch_size=20", "data.augment.crop=resize")


def test_positions_are_timms_and_all_else_stays() -> None:
    module = build(VIT)
    other, identity, resampled = at_image_size(module, VIT, (64, 96))
    assert resampled == ["pos_embed"]
    assert identity.model_args["img_size"] == [64, 96]
    before, after = module.state_dict(), other.state_dict()
    grid = module.patch_embed.grid_size
    tokens = module.num_prefix_tokens
    expected = resample_abs_pos_embed(before["pos_embed"], (4, 6), old_size=list(grid), num_prefix_tokens=tokens)
    assert torch.equal(after["pos_embed"], expected)
    assert all(torch.equal(after[key], before[key]) for key in before if key != "pos_embed")
    assert other(torch.zeros(1, 3, 64, 96)).shape == (1, 10)


def test_what_has_no_resampling_is_refused() -> None:
    for identity in (Identity("torchvision", "vit_b_16", 10), Identity("timm", "mixer_s32_224", 10)):
        with pytest.raises(ArchitectureError):
            at_image_size(build(identity), identity, (64, 64))


@pytest.mark.slow
def test_swin_keeps_its_weights_at_another_size() -> None:
    identity = Identity("timm", "swin_tiny_patch4_window7_224", 10)
    module = build(identity)
    other, _, resampled = at_image_size(module, identity, (256, 256))
    assert resampled == []
    assert all(torch.equal(one, two) for one, two in zip(module.parameters(), other.parameters(), strict=True))
    assert other(torch.zeros(1, 3, 256, 256)).shape == (1, 10)


@pytest.mark.slow
def test_a_run_and_what_it_is_stripped_to_have_the_size_everywhere(tmp_path: Path) -> None:
    base, run = tmp_path / "vit.pth", tmp_path / "run"
    torch.manual_seed(0)
    torch.save(timm.create_model("test_vit3", num_classes=10).state_dict(), base)
    command = ("train", base, "--arch", "timm/test_vit3", *DIGITS, *SMALL)
    document = succeed(*command, "-o", run, "--json").document
    assert [note for note in document["notes"] if "64 x 64" in note and "pos_embed" in note]
    resumed = succeed("train", "--resume", "-o", run, "--json").document
    assert resumed["last"] == document["last"]
    succeed("strip", run, "-o", tmp_path / "better", "--export", "safetensors")
    config = json.loads((tmp_path / "better" / "config.json").read_text())
    assert config["model_args"]["img_size"] == [64, 64]
    assert config["pretrained_cfg"]["input_size"] == [3, 64, 64]
    assert load_file(tmp_path / "better" / "model.safetensors")["pos_embed"].shape[1] == 17
    scored = succeed("eval", tmp_path / "better", "--data", "digits", "--workers", 0, "--json").document
    assert scored["image_size"] == [64, 64]
    assert scored["top1"] == document["best"]["top1"]


@pytest.mark.slow
def test_a_comparison_scores_its_base_at_the_size_of_its_runs(tmp_path: Path) -> None:
    base = tmp_path / "vit.pth"
    torch.save(timm.create_model("test_vit3", num_classes=10).state_dict(), base)
    command = ("compare", base, "--arch", "timm/test_vit3", *DIGITS, *SMALL, "data.holdout=0.2", "--seeds", 1)
    document = succeed(*command, "--learning-rates", "1", "--jobs", 1, "-o", tmp_path / "c", "--json").document
    assert all(len(arm["scores"]) == 1 for arm in document["arms"].values())


def test_a_grafted_folder_and_a_size_without_whole_patches_are_refused(tmp_path: Path) -> None:
    succeed("graft", "timm/test_vit3", "--random-weights", "--num-classes", 10, "-o", tmp_path / "grafted")
    for model in ((tmp_path / "grafted",), ("timm/test_vit3", "--random-weights")):
        size = "data.image_size=64" if model[0] == tmp_path / "grafted" else "data.image_size=70"
        refused = spgsurgeon("train", *model, *DIGITS, *SMALL, size, "-o", tmp_path / "run", "--json")
        assert (refused.code, refused.document["error"]["code"]) == (2, "image-size")
    assert not (tmp_path / "run").exists()
    assert succeed("train", *TINY, *DIGITS, *SMALL, "-o", tmp_path / "run", "--dry-run", "--json").document["notes"]
