"""Law 6: a cold start changes no parameter by a bit while the optimizer's moments fill."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import SETTINGS, Watcher, changed, metrics_of, tiny_grafted, tiny_retraining, train
from torch import Tensor, nn

from spgsurgeon.errors import UsageError, VerificationError
from spgsurgeon.recipe.schema import ColdStartSection
from spgsurgeon.recipe.training_section import OptimizerSection
from spgsurgeon.training.cold_start import Drift, Moments, drift, learning_rate_zero, moments_of, parameter_hash
from spgsurgeon.training.loop import Retraining

# More than test_training_optimization goes by the letter: each family that handles its learning rate in its own way.
OPTIMIZERS = ["sgd", "adamw", "lamb", "rmsproptf", "lion", "adabelief", "adamax", "sgdp", "adafactor", "muon"]
BOTH = ("adamw", "lamb", "rmsproptf", "adabelief", "adamax", "adafactor", "muon")


class EndOfColdStartError(Exception):
    pass


def cold_only(optimizer: str = "sgd", grafted: Any = None, **cold: Any) -> tuple[Retraining, Watcher]:
    """Run the cold start alone, of two epochs if nothing else is said."""
    watcher = Watcher()
    settings = changed(
        SETTINGS,
        optimizer=OptimizerSection(name=optimizer, lr=0.05, weight_decay=0.1),
        cold_start=ColdStartSection(**({"epochs": 2} | cold)),
    )
    retraining = tiny_retraining(settings, grafted=grafted, progress=watcher)

    def end_of_cold_start() -> None:
        raise EndOfColdStartError

    retraining._training_epoch = end_of_cold_start
    with pytest.raises(EndOfColdStartError):
        train(retraining)
    return retraining, watcher


def bits(grafted: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone().view(torch.int32) for name, p in grafted.named_parameters()}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_parameter_moves_and_moments_do(name: str) -> None:
    grafted = tiny_grafted()
    with torch.no_grad():
        grafted.base.body[0].weight[:2] = -0.0  # as pruned networks have them
        grafted.base.body[0].weight[2] = 0.0
        grafted.base.body[1].bias += 1.0  # or the ReLU would let no gradient through to them
    before = bits(grafted)
    retraining, _ = cold_only(name, grafted)
    assert all(torch.equal(p, before[name]) for name, p in bits(grafted).items())
    moments = moments_of(retraining.optimizer)
    assert moments.first is not None or moments.second is not None
    assert (moments.second is not None) == (name in BOTH)
    filled = {kind: bool(moment.any()) for kind, moment in vars(moments).items() if moment is not None}
    # TensorFlow's RMSprop has the learning rate within its momentum
    assert filled == dict.fromkeys(filled, True) | ({"first": False} if name == "rmsproptf" else {})
    assert retraining.optimizer.param_groups[0]["lr"] == 0.05


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb", "rmsproptf", "lion"])
def test_the_same_optimizer_moves_them_afterwards(name: str) -> None:
    grafted = tiny_grafted()
    before = bits(grafted)
    settings = changed(
        SETTINGS, epochs=1, optimizer=OptimizerSection(name=name, lr=0.05), cold_start=ColdStartSection(epochs=1)
    )
    train(tiny_retraining(settings, grafted=grafted))
    after = bits(grafted)
    assert not torch.equal(after["base.head.weight"], before["base.head.weight"])


def test_an_optimizer_that_moves_weights_is_found_out() -> None:
    with pytest.raises(VerificationError, match="learning rate zero") as caught:
        cold_only("madgrad")  # adds its epsilon to the learning rate
    assert caught.value.hint


def test_an_optimizer_without_moments_is_refused_at_once() -> None:
    settings = changed(SETTINGS, optimizer=OptimizerSection(momentum=0.0), cold_start=ColdStartSection(epochs=1))
    watcher = Watcher()
    with pytest.raises(UsageError, match="SGD keeps no moments") as caught:
        train(tiny_retraining(settings, progress=watcher))
    assert "cold_start.epochs=0" in str(caught.value.hint)
    assert watcher.done == 0


@pytest.mark.parametrize("batch_norm", ["freeze", "track"])
def test_running_statistics(batch_norm: str) -> None:
    grafted = tiny_grafted()
    norm = grafted.base.body[1]
    before = {name: value.clone() for name, value in norm.named_buffers()}
    cold_only(grafted=grafted, batch_norm=batch_norm)
    same = {name: torch.equal(value, before[name]) for name, value in norm.named_buffers()}
    assert same == dict.fromkeys(("running_mean", "running_var", "num_batches_tracked"), batch_norm == "freeze")
    assert norm.track_running_stats


def test_frozen_statistics_still_normalise_by_the_batch() -> None:
    seen = []
    grafted = tiny_grafted(dropout=0.0)
    grafted.base.body[1].register_forward_hook(lambda norm, _, output: seen.append((norm.training, output.mean())))
    cold_only(grafted=grafted)
    means = [mean.abs().item() for training, mean in seen if training]
    assert len(means) == 12
    assert max(means) < 1e-5


def test_it_runs_for_its_epochs_and_logs_the_drift(tmp_path: Path) -> None:
    settings = changed(SETTINGS, cold_start=ColdStartSection(epochs=3))
    retraining = train(tiny_retraining(settings, path=tmp_path / "run"))
    lines = metrics_of(tmp_path / "run")
    assert [line["phase"] for line in lines] == ["cold"] * 3 + ["train"] * 2
    assert [line["learning_rate"] for line in lines[:3]] == [0.0] * 3
    assert lines[0]["moments"] is None
    assert all(-1 <= line["moments"]["first_cosine"] <= 1 for line in lines[1:3])
    assert all(line["moments"]["second_change"] is None for line in lines[1:3])  # momentum has no second moment
    assert lines[0]["evaluation"] is None
    assert retraining.counters.update == 12
    assert retraining.counters.step == 30


@pytest.mark.parametrize(("tolerance", "epochs"), [(3.0, 2), (1e-9, 4)])
def test_until_converged(tolerance: float, epochs: int) -> None:
    retraining, watcher = cold_only("adamw", until="converged", max_epochs=4, tolerance=tolerance, epochs=0)
    assert len(watcher.lines) == retraining.counters.cold_epochs == epochs
    assert retraining.counters.cold_finished
    assert watcher.lines[0]["moments"] is None
    assert watcher.lines[-1]["moments"]["second_change"] > 0


def test_the_drift_by_hand() -> None:
    before = Moments(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.0]))
    after = Moments(torch.tensor([4.0, 3.0]), torch.tensor([3.0, 4.5]))
    change = drift(before, after)
    assert change.first_cosine == pytest.approx(24 / 25)
    assert change.second_change == pytest.approx(0.1)
    assert drift(Moments(before.first, None), Moments(after.first, None)).second_change is None
    assert drift(Moments(torch.zeros(2), before.second), after).first_cosine is None


@pytest.mark.parametrize(
    ("cosine", "change", "settled"),
    [(0.95, 0.05, True), (0.85, 0.05, False), (0.95, 0.15, False), (None, 0.05, True), (0.95, None, True)],
)
def test_settled(cosine: float | None, change: float | None, settled: bool) -> None:
    assert Drift(cosine, change).settled(0.1) == settled


def test_the_schedule_starts_after_it(tmp_path: Path) -> None:
    def rates(cold: int) -> list[float]:
        found: list[float] = []
        retraining = tiny_retraining(changed(SETTINGS, cold_start=ColdStartSection(epochs=cold)))
        retraining.progress = Watcher(lambda step: found.append(retraining.optimizer.param_groups[0]["lr"]))
        train(retraining)
        return found

    assert rates(cold=1) == [0.0] * 6 + rates(cold=0)


def test_a_failing_cold_start_puts_everything_back() -> None:
    grafted = tiny_grafted()
    optimizer = torch.optim.SGD(grafted.parameters(), lr=0.1, momentum=0.9)
    with pytest.raises(ZeroDivisionError), learning_rate_zero(optimizer):
        raise ZeroDivisionError
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert not optimizer._optimizer_step_post_hooks


def test_the_hash_is_of_parameters_only() -> None:
    grafted = tiny_grafted()
    before = parameter_hash(grafted)
    grafted.base.body[1].running_mean += 1
    assert parameter_hash(grafted) == before
    with torch.no_grad():
        grafted.replicas[0][0].projection.bias[0] = -0.0
    assert parameter_hash(grafted) != before
