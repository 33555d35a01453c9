from __future__ import annotations

import pytest

from spgsurgeon.checkpoint.state_dict.prefixes import refuse_flat_parameters, unwrap
from spgsurgeon.errors import UsageError


@pytest.mark.parametrize(
    ("keys", "any_attribute", "prefixes"),
    [
        (["module._orig_mod.module.a.w", "module._orig_mod.module.b"], False, ("module.", "_orig_mod.", "module.")),
        (["_forward_module.timm_model.a", "_forward_module.timm_model.b"], False, ("_forward_module.", "timm_model.")),
        (["model._fsdp_wrapped_module.a", "model._fsdp_wrapped_module.b"], False, ("model.", "_fsdp_wrapped_module.")),
        (["module.a", "b"], False, ()),
        (["model.a", "model.b"], False, ("model.",)),
        (["features.a", "features.b"], False, ()),
        (["net.features.a", "net.features.b"], True, ("net.",)),
        (["net.module.features.a", "net.module.features.b"], True, ("net.", "module.")),
        (["net.a", "criterion.b"], True, ()),
        (["model."], False, ()),
        (["modules.a"], False, ()),
        ([], True, ()),
    ],
)
def test_prefixes_go_only_when_every_key_has_them(
    keys: list[str], any_attribute: bool, prefixes: tuple[str, ...]
) -> None:
    unwrapped = unwrap(keys, any_attribute=any_attribute)
    assert unwrapped.prefixes == prefixes
    assert ["".join(prefixes) + key for key in unwrapped.keys] == keys


@pytest.mark.parametrize(
    ("keys", "expected", "prefixes"),
    [
        (["stem.w", "layer1._orig_mod.0.w"], ["stem.w", "layer1.0.w"], ("_orig_mod.",)),
        (
            ["model.stem.w", "model.blocks.0._checkpoint_wrapped_module._orig_mod.w"],
            ["stem.w", "blocks.0.w"],
            ("model.", "_orig_mod.", "_checkpoint_wrapped_module."),
        ),
        (["_fsdp_wrapped_module.model.a.w", "model.b.w"], ["a.w", "b.w"], ("_fsdp_wrapped_module.", "model.")),
        (["a._orig_mod._orig_mod.w", "b.w"], ["a.w", "b.w"], ("_orig_mod.",)),
    ],
)
def test_wrappers_of_a_part_are_taken_out_of_the_middle(
    keys: list[str], expected: list[str], prefixes: tuple[str, ...]
) -> None:
    unwrapped = unwrap(keys)
    assert (list(unwrapped.keys), unwrapped.prefixes) == (expected, prefixes)


@pytest.mark.parametrize("keys", [["a._orig_mod.w", "a.w"], ["a._orig_mod", "b"], ["a.module.w", "b.w"]])
def test_keys_stay_where_they_would_become_equal_or_are_the_models_own(keys: list[str]) -> None:
    assert unwrap(keys).keys == tuple(keys)


def test_a_hostile_key_costs_no_more_than_some_wrappers() -> None:
    assert len(unwrap(["module." * 100_000 + "w"]).prefixes) == 32


@pytest.mark.parametrize("key", ["_flat_param", "layer1._fsdp_wrapped_module._flat_param", "flat_param_0"])
def test_flat_parameters_are_refused_with_advice(key: str) -> None:
    with pytest.raises(UsageError, match="flat parameter") as refused:
        refuse_flat_parameters(["fc.weight", key])
    assert "full_state_dict" in str(refused.value.hint)
    refuse_flat_parameters(["fc.flat_params.weight"])
