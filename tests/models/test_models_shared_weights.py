"""State dicts as transformers writes them: shared words once, older names as they were."""

import pytest
import torch
from safetensors.torch import load_file
from tiny_transformers import saved, tiny
from torch import nn

from spgsurgeon.models.shared_weights import load_saved_state, saved_state
from spgsurgeon.models.sites.transformers_heads import HEADS


@pytest.mark.parametrize("name", HEADS)
def test_a_saved_state_has_the_keys_that_save_pretrained_writes(name, tmp_path):
    module = tiny(name)
    written = load_file(saved(module, tmp_path / "model") / "model.safetensors")
    state = saved_state(module)
    assert state.keys() == written.keys()
    assert all(torch.equal(state[key], value) for key, value in written.items())


@pytest.mark.parametrize("name", ["BertForMaskedLM", "GPT2LMHeadModel", "ViTForImageClassification"])
def test_a_saved_state_can_be_loaded_again(name):
    module, other = tiny(name), tiny(name)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    load_saved_state(other, saved_state(module))
    assert all(torch.equal(value, module.state_dict()[key]) for key, value in other.state_dict().items())
    kept = other.state_dict(keep_vars=True)
    assert all(kept[key] is kept[source] for key, source in other.all_tied_weights_keys.items())


def test_a_key_that_is_missing_or_strange_is_still_an_error():
    module = tiny("GPT2LMHeadModel")
    state = saved_state(module)
    with pytest.raises(RuntimeError, match="strange"):
        load_saved_state(module, state | {"strange": torch.zeros(1)})
    del state["transformer.wpe.weight"]
    with pytest.raises(RuntimeError, match=r"transformer\.wpe\.weight"):
        load_saved_state(module, state)


def test_other_modules_are_saved_as_they_are():
    layer = nn.Linear(2, 3)
    assert list(saved_state(layer)) == ["weight", "bias"]
    load_saved_state(layer, {"weight": torch.ones(3, 2), "bias": torch.zeros(3)})
    assert (layer.weight == 1).all()
