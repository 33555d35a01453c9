"""What differs between architectures that weights fit alike."""

from __future__ import annotations

import pytest
import timm

from spgsurgeon.models.libraries.identity import Identity
from spgsurgeon.models.libraries.registry import library
from spgsurgeon.models.preprocessing import Preprocessing
from spgsurgeon.models.recognition.catalogue import catalogue, installed_version, known_traits
from spgsurgeon.models.recognition.twins import differences, traits_of


def test_padding_and_preprocessing_of_a_twin_by_tensorflow_are_told() -> None:
    names = ("timm/efficientnet_lite0", "timm/tf_efficientnet_lite0")
    found = differences({name: known_traits()[name] for name in names})
    assert found["padding"] == dict(zip(names, ("symmetric", "of TensorFlow"), strict=True))
    assert found["mean"] == dict(zip(names, ([0.485, 0.456, 0.406], [0.5, 0.5, 0.5]), strict=True))
    assert found["norm_eps"][names[1]] == [1e-3]
    assert found["layers"] == {names[0]: [], names[1]: ["Conv2dSame"]}
    assert "input_size" not in found, "what they share is not a difference"


@pytest.mark.parametrize("name", ["test_efficientnet_ln", "test_efficientnet_gn"])
def test_what_the_catalogue_knows_is_what_the_library_builds(name: str) -> None:
    if installed_version("timm") != catalogue().versions["timm"]:
        pytest.skip("another version of timm")
    module = timm.create_model(name)
    preprocessing = library("timm").preprocessing(Identity("timm", name, 1000), module)
    assert isinstance(preprocessing, Preprocessing)
    built = traits_of(module, preprocessing)
    known = known_traits()[f"timm/{name}"]
    assert {key: list(value) if isinstance(value, tuple) else value for key, value in built.items()} == known


def test_every_twin_of_the_catalogue_is_known() -> None:
    assert {"timm/resnet50", "torchvision/resnet50"} <= known_traits().keys(), "one has its channels in another place"
    alike: dict[str, list[str]] = {}
    for name, entry in catalogue().entries.items():
        if entry.shape_hash:
            alike.setdefault(entry.shape_hash, []).append(name)
    assert {name for names in alike.values() if len(names) > 1 for name in names} <= known_traits().keys()


def test_twins_that_differ_in_nothing_known_have_no_differences() -> None:
    traits = {"padding": "symmetric", "layers": ["Conv2d"]}
    assert differences({"a": traits, "b": dict(traits)}) == {}
