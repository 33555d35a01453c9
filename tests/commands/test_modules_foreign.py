"""Modules as people have them: several heads, outputs with names, compiled, wrapped, weight-normed."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import spgsurgeon
from spgsurgeon.errors import SurgeonError

IMAGES, LABELS = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])


def plain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))


class Heads(nn.Module):
    """Two heads, on one body."""

    def __init__(self, *classes: int) -> None:
        super().__init__()
        self.body = plain()[:3]
        self.one, self.other = (nn.Linear(6, count) for count in classes)

    def forward(self, images: Tensor) -> Any:
        hidden = self.body(images)
        return self.one(hidden), self.other(hidden)


@dataclass
class Output:
    logits: Tensor
    hidden: Tensor


class Named(nn.Module):
    """Gives what `make` makes of logits and of what they come from."""

    def __init__(self, make: Any) -> None:
        super().__init__()
        self.model, self.make = plain(), make

    def forward(self, images: Tensor) -> Any:
        hidden = self.model[:3](images)
        return self.make(self.model[3](hidden), hidden)


def graft(model: nn.Module, **options: Any) -> Any:
    return spgsurgeon.graft(model, example=IMAGES, **options).train()


def refused(act: Any) -> SurgeonError:
    with pytest.raises(SurgeonError) as caught:
        act()
    return caught.value


def test_heads_of_different_classes_are_refused_with_what_to_do_which_works() -> None:
    error = refused(lambda: graft(Heads(5, 7)))
    assert error.code == "other-classes"
    assert "site=['one', 'other']" in str(error.hint)
    outputs = graft(Heads(5, 7), site=["one", "other"])(IMAGES)
    assert [output.shape for output in outputs] == [(16, 5), (16, 7)]
    loss = sum(spgsurgeon.spg_loss(output, LABELS).loss for output in outputs)
    loss.backward()  # type: ignore[union-attr]
    assert refused(lambda: spgsurgeon.spg_loss(outputs, LABELS)).code == "not-logits"
    assert graft(Heads(5, 5))(IMAGES).shape == (16, 5, 2)


@pytest.mark.parametrize(
    "make",
    [
        Output,
        lambda logits, hidden: SimpleNamespace(logits=logits),
        lambda logits, hidden: {"logits": logits, "hidden": hidden},
    ],
    ids=["dataclass", "namespace", "mapping"],
)
def test_outputs_with_logits(make: Any) -> None:
    expected = graft(plain(), rate=0.0)(IMAGES)
    model = graft(Named(make), rate=0.0)
    assert torch.equal(model(IMAGES), expected)
    given = spgsurgeon.spg_loss(make(expected, None), LABELS)
    assert given.loss.item() == spgsurgeon.spg_loss(expected, LABELS).loss.item()
    assert type(model.eval()(IMAGES)) is type(make(expected, None))


def test_logits_of_eval_mode_are_told_from_a_wrong_number_of_targets() -> None:
    grafted = graft(plain())
    evaluated, short = (
        refused(lambda: spgsurgeon.spg_loss(grafted.eval()(IMAGES), LABELS)),
        refused(lambda: spgsurgeon.spg_loss(grafted.train()(IMAGES), LABELS[:3])),
    )
    assert evaluated.code == short.code == "unfit-rows"
    assert "grafted.train()" in str(evaluated.hint)
    assert "grafted.train()" not in str(short.hint)
    assert refused(lambda: spgsurgeon.spg_loss(grafted(IMAGES), LABELS.float())).code == "soft-labels-not-asked-for"


def compiled_in_place() -> nn.Module:
    model = plain()
    model.compile()
    return model


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: torch.compile(plain()), "compiled"),
        (compiled_in_place, "compiled"),
        (lambda: nn.DataParallel(plain()), "wrapped"),
    ],
)
def test_what_is_compiled_or_wrapped_is_grafted_before(make: Any, code: str) -> None:
    error = refused(lambda: graft(make()))
    assert error.code == code
    assert "spgsurgeon.graft(" in str(error.hint)


def test_a_grafted_model_is_stripped_inside_of_its_wrappers() -> None:
    model = plain()
    assert spgsurgeon.strip(torch.compile(graft(model))) is model
    assert spgsurgeon.strip(nn.DataParallel(graft(model))) is model
    assert refused(lambda: spgsurgeon.strip(model)).code == "not-grafted"


@pytest.mark.parametrize("norm", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_a_head_with_a_norm_of_its_weight(norm: Any) -> None:
    model = plain()
    norm(model[3])
    keys = list(model.state_dict())
    grafted = graft(model)
    assert grafted.sites == ("3",)
    assert grafted(IMAGES).shape == (16, 5)
    assert list(spgsurgeon.strip(grafted).state_dict()) == keys


@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
def test_a_model_that_cannot_be_copied_names_the_way_out_which_works() -> None:
    model = plain()
    nn.utils.weight_norm(model[3])
    error = refused(lambda: graft(model))
    assert error.code == "not-copied"
    assert "parametrizations" in str(error.hint)
    assert graft(model, site="3")(IMAGES).shape == (16, 5)


class Looking(nn.Module):
    """Goes by the values of its images."""

    def __init__(self) -> None:
        super().__init__()
        self.model = plain()

    def forward(self, images: Tensor) -> Any:
        return self.model(images if images.sum() > 0 else -images)


def test_a_forward_that_goes_by_values_names_the_way_out_which_works() -> None:
    error = refused(lambda: graft(Looking()))
    assert "goes by the values" in str(error.hint)
    assert graft(Looking(), site="model.3")(IMAGES).shape == (16, 5)


@pytest.mark.parametrize("before", ["", "model.", "module.net."])
def test_the_state_dict_of_a_grafted_model_is_stripped_to_the_bases(before: str) -> None:
    model = plain()
    expected = model.state_dict()
    state = {f"{before}{key}": value for key, value in graft(model).state_dict().items()}
    found = spgsurgeon.strip(state)
    assert list(found) == list(expected)
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    plain().load_state_dict(found)


def test_a_state_dict_that_is_not_grafted_is_refused() -> None:
    for state in (plain().state_dict(), {"base.weight": torch.ones(1)}, {}):
        assert refused(lambda state=state: spgsurgeon.strip(state)).code == "not-grafted"
