"""Every kind of replicas as an arm of a comparison, on a model that it attaches to."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import succeed

from spgsurgeon.replicas.kinds import DEFAULT, REPLICAS

RECIPE = """
trp: {kind: dropout, replicas: 2}
objective: {weights: [0.4, 0.2]}
data: {source: digits, image_size: 64, augment: {flip: 0.0}, limit: 4, holdout: 0.1, eval: val, workers: 0}
training: {epochs: 1, batch_size: 20, eval_batch_size: 250, optimizer: {lr: 0.01}, device: cpu}
"""
MODELS = {
    "timm/test_resnet": ("depth", "feature-noise", "leaky-slope", "mesh"),
    "timm/test_vit": ("drop-path", "token-drop"),
    "timm/test_efficientnet": ("norm-momentum", "norm-noise"),
    "torchvision/squeezenet1_1": ("channel-dropout",),
}
TWO, REPLICAS_OF = ", replicas: 2", {"mesh": ", axes: [{kind: dropout, replicas: 2}, {kind: depth, replicas: 2}]"}
"""Two replicas of each; a mesh has two an axis."""


def test_each_kind_is_an_arm_somewhere() -> None:
    assert sorted(kind for some in MODELS.values() for kind in some) == sorted(set(REPLICAS) - {DEFAULT})


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_kinds_are_arms(model: str, tmp_path: Path) -> None:
    recipe = tmp_path / "small.yaml"
    recipe.write_text(RECIPE)
    arms = ", ".join(f"{kind}-arm: {{trp: {{kind: {kind}{REPLICAS_OF.get(kind, TWO)}}}}}" for kind in MODELS[model])
    names = ["plain", *(f"{kind}-arm" for kind in MODELS[model])]
    shared = ("--seeds", 1, "--learning-rates", 1, "--jobs", 1, "--random-weights", "--num-classes", 10, "--json")
    output = ("-o", tmp_path / "compared")
    own = f"compare.arms={{{arms}}}"
    document = succeed("compare", model, "--recipe", recipe, own, "--arms", ",".join(names), *shared, *output).document
    assert sorted(document["arms"]) == sorted(names)
    assert all(len(arm["scores"]) == 1 for arm in document["arms"].values())
    for kind in MODELS[model]:
        assert f"kind: {kind}" in next((tmp_path / "compared" / "runs").glob(f"{kind}-arm/**/recipe.yaml")).read_text()
