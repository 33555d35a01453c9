"""What a step costs, counted: operators with and without replicas, waits for the device, compiled graphs."""

from collections import Counter
from functools import partial
from itertools import islice
from typing import Any

import pytest
import torch
from attaching import attach_blocks
from pretended_cuda import PROCESSES, PretendedCUDA, needs_cuda_build
from tiny_runs import (
    EVERYTHING,
    ON_A_GPU,
    SETTINGS,
    WEIGHTS,
    Tiny,
    changed,
    images_with,
    tiny_grafted,
    tiny_retraining,
    train,
)
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, dropout
from torch.utils._python_dispatch import TorchDispatchMode

from spgsurgeon.recipe.schema import ColdStartSection, ObjectiveSection, Recipe
from spgsurgeon.recipe.training_section import OptimizerSection
from spgsurgeon.replicas.grafted import GraftedModel
from spgsurgeon.replicas.places import Place
from spgsurgeon.runtime.memory_format import lay_out_convolutions
from spgsurgeon.training.statistics import EpisodeStatistics

VIEWS = {"alias", "as_strided", "detach", "expand", "select", "slice", "split", "t", "unbind", "unsqueeze", "view"}
"""Operators that compute nothing."""


class Operators(TorchDispatchMode):
    """Counts what reaches the device, backward pass and optimizer included."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        namespace, name, *_ = str(function).split(".")
        if namespace == "aten" and name not in VIEWS:
            self.counts[name] += 1
        return function(*arguments, **(options or {}))


def operators_of_a_step(replicas: int) -> Counter[str]:
    settings = changed(SETTINGS, objective=ObjectiveSection(weights=(0.4, 0.2, 0.1)[:replicas]))
    retraining = tiny_retraining(settings, grafted=tiny_grafted(replicas=replicas))
    retraining.grafted.train()
    batch = next(retraining._training.epoch(0))
    statistics = EpisodeStatistics(retraining.grafted.steps, 4, retraining.processes)
    for _ in range(3):  # the first ones have more to do: momenta to make, weights to look at
        with Operators() as operators:
            retraining._stepper.apply(retraining._stepper.accumulate([batch]), statistics, update=True)
    return operators.counts


def test_a_replica_adds_what_its_arithmetic_needs() -> None:
    """Of one: dropout, a linear layer and a sum, their gradients, and a term of the loss and of the return.

    Head, loss, optimizer and the watch on the numbers take all steps at once.
    """
    plain, one, three = (operators_of_a_step(replicas) for replicas in (0, 1, 3))
    assert plain.total() <= 60
    assert one.total() - plain.total() <= 19
    assert three.total() - one.total() <= 2 * 15
    for name in ("_log_softmax", "nll_loss_forward", "argmax", "_foreach_norm", "_fused_sgd_", "convolution"):
        assert (plain[name], three[name]) == (1, 1), name
    assert three["addmm"] - plain["addmm"] == 3


def test_a_step_waits_for_the_device_once_and_for_the_step_before() -> None:
    assert operators_of_a_step(3)["_local_scalar_dense"] == 1


@needs_cuda_build
@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,
        EVERYTHING,
        changed(EVERYTHING, non_finite="skip"),
        changed(EVERYTHING, precision="float16"),
        changed(SETTINGS, optimizer=OptimizerSection(name="sgd", momentum=0.0)),
    ],
    ids=["plain", "everything", "skipping", "float16", "without momentum"],
)
def test_a_step_on_cuda_has_everything_there_and_waits_for_nothing(
    settings: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of steps after the first, what is counted of them, and the same after they were resumed from."""
    cuda = PretendedCUDA(monkeypatch)
    grafted = cuda.place(tiny_grafted())
    settings = changed(
        settings, precision="bfloat16" if settings.training.precision == "auto" else settings.training.precision
    )
    with cuda:
        retraining = tiny_retraining(settings, grafted=grafted, processes=PROCESSES)
        statistics = EpisodeStatistics(grafted.steps, 4, PROCESSES)
        samples = torch.arange(4)
        parts = [images_with(samples, torch.rand(4, 3, 8, 8))] * settings.training.accumulate
        grafted.train()
        for _ in range(2):
            retraining.take_step(parts, statistics)
            retraining.state.restore(retraining.state.checkpoint())
            cuda.waits.clear()
            retraining.take_step(parts, statistics)
            statistics._count()
            assert cuda.waits == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("settings", [SETTINGS, EVERYTHING, changed(EVERYTHING, non_finite="skip")])
def test_a_step_on_a_gpu_waits_for_nothing(settings: Recipe) -> None:
    retraining = tiny_retraining(settings, processes=ON_A_GPU)
    statistics = EpisodeStatistics(retraining.grafted.steps, 4, retraining.processes)
    parts = list(islice(retraining._training.epoch(0), settings.training.accumulate))
    retraining.grafted.train()
    for _ in range(3):
        retraining.take_step(parts, statistics)
    torch.cuda.set_sync_debug_mode("error")
    try:
        retraining.take_step(parts, statistics)
        statistics._count()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def deep() -> GraftedModel:
    """Return a tiny model with replicas of depth before a batch norm, which sees each step by itself."""
    torch.manual_seed(0)
    model = Tiny()
    place = Place("body.0", "output", width=6, normalisations=("body.1",))
    return attach_blocks(model, place, lambda: nn.Conv2d(6, 6, 1), replicas=len(WEIGHTS))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "graphs"),
    [
        (changed(SETTINGS, epochs=3), 1),
        (EVERYTHING, 1),
        (changed(SETTINGS, cold_start=ColdStartSection(epochs=2)), 2),  # its batch norms are frozen
    ],
    ids=["plain", "everything", "cold start"],
)
@pytest.mark.parametrize("make", [tiny_grafted, deep])
def test_a_run_compiles_its_step_once(settings: Any, graphs: int, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a break, whatever is scored between the epochs, at a last batch of another size and by an average."""
    compiled: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend, fullgraph=True))
    train(tiny_retraining(changed(settings, compile=True), grafted=make()))
    assert len(compiled) == graphs


@pytest.mark.parametrize("layer", [nn.Conv2d(8, 16, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 3)])
def test_weights_lie_as_their_gradients_will(layer: nn.Conv2d) -> None:
    """Stride by stride: kernels of one pixel, or of one channel, could lie both ways."""
    lay_out_convolutions(layer, torch.channels_last)
    pictures = torch.randn(2, 8, 6, 6).contiguous(memory_format=torch.channels_last)
    layer(pictures).sum().backward()
    assert layer.weight.stride() == layer.weight.grad.stride()
    assert layer.weight.stride() == torch.empty_like(layer.weight, memory_format=torch.channels_last).stride()


@pytest.mark.parametrize(("wanted", "found"), [("auto", torch.channels_last), ("contiguous", torch.contiguous_format)])
def test_pictures_and_convolutions_lie_as_asked(wanted: str, found: torch.memory_format) -> None:
    retraining = tiny_retraining(changed(SETTINGS, memory_format=wanted))
    seen: list[bool] = []
    first = retraining.grafted.base.body[0]
    first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].is_contiguous(memory_format=found)))
    retraining.try_batch().loss.backward()
    assert seen == [True]
    assert first.weight.is_contiguous(memory_format=found)
    assert first.weight.grad.is_contiguous(memory_format=found)


def test_r_drop_draws_two_predictions_together_in_one_pass() -> None:
    settings = changed(SETTINGS, objective=ObjectiveSection(weights=(), r_drop=0.5))
    retraining = tiny_retraining(settings, grafted=tiny_grafted(replicas=0))
    passes: list[Tensor] = []

    def drop(_: nn.Module, __: Any, logits: Tensor) -> Tensor:
        passes.append(dropout(logits, 0.5))
        return passes[-1]

    retraining.grafted.base.register_forward_hook(drop)
    batch = next(retraining._training.epoch(0))
    result = retraining.try_batch(batch)
    (logits,) = passes
    one, other = logits.chunk(2)
    assert not torch.equal(one, other)
    p, q = one.softmax(1), other.softmax(1)
    apart = ((p * (p / q).log()).sum(1) + (q * (q / p).log()).sum(1)).mean() / 2
    entropy = (cross_entropy(one, batch.targets) + cross_entropy(other, batch.targets)) / 2
    torch.testing.assert_close(result.loss, entropy + 0.5 * apart)
