"""NaN and infinity: found within a step, not applied, named; and what skipping them leaves alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import (
    EVERYTHING,
    SETTINGS,
    Watcher,
    changed,
    metrics_of,
    signal_at,
    tiny_grafted,
    tiny_retraining,
    train,
    weights_hash,
)

from spgsurgeon.recipe.training_section import OptimizerSection
from spgsurgeon.runtime.signals import InterruptedRunError
from spgsurgeon.training.loop import Retraining
from spgsurgeon.training.optimization import make_optimizer
from spgsurgeon.training.soundness.number_guard import NonFiniteError

NAN, INFINITY = float("nan"), float("inf")
FUSED, OTHER = OptimizerSection(name="sgd", lr=0.05), OptimizerSection(name="lamb", lr=0.01)
Spoil = Callable[[Retraining], Any]


def spoil_the_loss(retraining: Retraining, at: int = 3, value: float = NAN) -> None:
    """Let the logits of step number `at` be no numbers, whatever was computed."""

    def spoil(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        broken = retraining.grafted.training and retraining.counters.step + 1 == at
        return output + value if broken else output

    retraining.grafted.base.head.register_forward_hook(spoil)


def spoil_a_gradient(retraining: Retraining, at: int = 3, value: float = INFINITY) -> None:
    def spoil(gradient: torch.Tensor) -> torch.Tensor:
        return gradient + value if retraining.counters.step + 1 == at else gradient

    retraining.grafted.base.body[0].weight.register_hook(spoil)


def spoil_a_weight(retraining: Retraining, at: int = 3) -> None:
    """One that no gradient depends on while its replica is in eval mode: a zero times it is still no number."""

    def spoil(done: int) -> None:
        if done == at - 1:
            retraining.grafted.base.head.bias.data[1] = NAN

    retraining.progress = Watcher(spoil)


def spoil_a_statistic(retraining: Retraining, at: int = 3) -> None:
    """Running statistics, which a training step does not read."""

    def spoil(done: int) -> None:
        if done == at - 1:
            retraining.grafted.base.body[1].running_var[2] = INFINITY

    retraining.progress = Watcher(spoil)


FAULTS: dict[str, tuple[Spoil, str]] = {
    "loss": (spoil_the_loss, r"step 3: the loss is not finite"),
    "gradient": (spoil_a_gradient, r"step 3: the gradient of base\.body\.0\.weight is not finite: it has NaN or inf"),
    "weight": (spoil_a_weight, r"step 3: weight base\.head\.bias is not finite"),
    "statistic": (spoil_a_statistic, r"step 3: statistic base\.body\.1\.running_var is not finite"),
}


@pytest.mark.parametrize("optimizer", [FUSED, OTHER], ids=["fused", "other"])
@pytest.mark.parametrize("fault", FAULTS)
def test_the_run_stops_within_a_step_and_names_the_first_bad_tensor(
    tmp_path: Path, fault: str, optimizer: OptimizerSection
) -> None:
    spoil, words = FAULTS[fault]
    settings = changed(SETTINGS, optimizer=optimizer)
    retraining = tiny_retraining(settings, path=tmp_path / "run")
    spoil(retraining)
    with pytest.raises(NonFiniteError, match=words) as caught:
        train(retraining)
    assert retraining.counters.step in (2, 3)  # found before step 4 is applied
    assert "training.optimizer.lr" in str(caught.value.hint)
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["00000000"]  # nothing of it was saved


@pytest.mark.parametrize(
    "optimizer", [FUSED, OTHER, OptimizerSection(name="adamw", lr=1e-3)], ids=["sgd", "lamb", "adamw"]
)
@pytest.mark.parametrize("spoil", [spoil_the_loss, spoil_a_gradient])
@pytest.mark.parametrize("at", [1, 3])
def test_the_step_is_not_applied(optimizer: OptimizerSection, spoil: Spoil, at: int) -> None:
    """Weights, moments and running statistics are those before it, bit for bit; at step 1 there are no moments yet."""
    settings = changed(SETTINGS, optimizer=optimizer, non_finite="skip")
    seen: list[dict[str, torch.Tensor]] = []
    retraining = tiny_retraining(settings)
    spoil(retraining, at)

    def look(done: int) -> None:
        moments = retraining.state.checkpoint().optimizer
        seen.append({k: v.clone() for k, v in {**retraining.grafted.state_dict(), **moments}.items()})

    retraining.progress = Watcher(look)
    start = {key: value.clone() for key, value in retraining.grafted.state_dict().items()}
    train(retraining)
    before, after = seen[at - 2] if at > 1 else start, seen[at - 1]
    for key in before:
        assert torch.equal(before[key], after[key]), key
    assert all(value.isfinite().all() for value in after.values())
    assert not torch.equal(seen[at]["base.head.weight"], after["base.head.weight"])
    assert retraining.counters.skipped == 1


def test_a_skipped_step_is_counted_and_left_out_of_the_means() -> None:
    watcher = Watcher()
    retraining = tiny_retraining(changed(SETTINGS, non_finite="skip"), progress=watcher)
    spoil_the_loss(retraining)
    train(retraining)
    first, second = watcher.lines
    assert (first["skipped_steps"], second["skipped_steps"]) == (1, 1)
    assert sum(first["accepted_units"].values()) == sum(map(sum, first["accepted_by_class"])) == 20
    assert sum(second["accepted_units"].values()) == 24
    assert 0 < first["loss"] < 10
    assert all(picture["cross_entropy"] < 10 for picture in first["pictures"]["shortest"])


@pytest.mark.parametrize("optimizer", [FUSED, OTHER], ids=["fused", "other"])
def test_skips_have_a_limit(optimizer: OptimizerSection) -> None:
    settings = changed(SETTINGS, optimizer=optimizer, non_finite="skip", max_skips=2)
    retraining = tiny_retraining(settings)
    for at in (2, 4, 5):
        spoil_the_loss(retraining, at)
    with pytest.raises(NonFiniteError, match=r"step 5: .*2 steps were skipped before, and training\.max_skips"):
        train(retraining)


def test_a_run_that_skipped_resumes_bit_for_bit(tmp_path: Path) -> None:
    settings = changed(EVERYTHING, non_finite="skip")

    def spoilt(**options: Any) -> Retraining:
        retraining = tiny_retraining(settings, **options)
        for at in (2, 8, 11):
            spoil_the_loss(retraining, at)
        return retraining

    whole = train(spoilt(path=tmp_path / "whole"))
    assert whole.counters.skipped == 3
    assert weights_hash(whole) != weights_hash(train(tiny_retraining(settings)))
    for step in (3, 9):
        grafted = tiny_grafted(seed=9) if step > 3 else None
        stopped = spoilt(path=tmp_path / "run", progress=signal_at(step), grafted=grafted)
        with pytest.raises(InterruptedRunError):
            train(stopped, resume=step > 3)
    resumed = train(spoilt(path=tmp_path / "run", grafted=tiny_grafted(seed=9)), resume=True)
    assert weights_hash(resumed) == weights_hash(whole)
    assert resumed.counters.skipped == 3
    assert metrics_of(tmp_path / "run") == metrics_of(tmp_path / "whole")


def test_the_last_step_of_an_epoch_is_looked_at_before_it_is_saved(tmp_path: Path) -> None:
    """An update that overflows is seen by no later step."""
    settings = changed(SETTINGS, optimizer=OptimizerSection(lr=1e38), epochs=1)
    retraining = tiny_retraining(settings, path=tmp_path / "run", batch_size=24)
    with pytest.raises(NonFiniteError, match="after step 1 weight"):
        train(retraining)
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["00000000"]


def test_a_momentum_that_is_not_finite_is_not_saved(tmp_path: Path) -> None:
    """No step within the epoch reads it after the last one."""
    settings = changed(SETTINGS, optimizer=OptimizerSection(lr=0.05, momentum=0.9), epochs=1)
    retraining = tiny_retraining(settings, path=tmp_path / "run", batch_size=24)

    def spoil(done: int) -> None:
        next(iter(retraining.optimizer.state.values()))["momentum_buffer"].fill_(INFINITY)

    retraining.progress = Watcher(spoil)
    with pytest.raises(NonFiniteError):
        train(retraining)
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["00000000"]


def test_a_score_that_is_no_number_is_not_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([{"top1": 50.0, "loss": 1.0}, {"top1": 50.0, "loss": NAN}])
    monkeypatch.setattr("spgsurgeon.training.loop.evaluate", lambda *_, **__: next(scores))
    with pytest.raises(NonFiniteError, match="the model after step 6 scores a loss of NaN"):
        train(tiny_retraining())


def test_half_precision_overflows_by_design_until_its_scale_collapses() -> None:
    settings = changed(SETTINGS, precision="float16", epochs=4)
    retraining = tiny_retraining(settings)
    train(retraining)
    assert retraining.counters.skipped == 0

    collapsing = tiny_retraining(settings)
    for at in range(1, 24):
        spoil_a_gradient(collapsing, at)
    collapsing.state.scaler.load_state_dict(collapsing.state.scaler.state_dict() | {"scale": 4.0})
    with pytest.raises(NonFiniteError, match="loss scale fell below 1") as caught:
        train(collapsing)
    assert collapsing.counters.step <= 6
    assert "bfloat16" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["sgd", "adamw", "adam", "lamb"])
def test_which_optimizers_leave_a_step_out_by_themselves(name: str) -> None:
    optimizer = make_optimizer(tiny_grafted(), OptimizerSection(name=name))
    assert getattr(optimizer, "_step_supports_amp_scaling", False) == (name != "lamb")


def test_nothing_is_read_from_the_device_in_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU a wait shows only as a tensor that is turned into a number."""
    retraining = tiny_retraining()
    retraining.grafted.train()
    batch, statistics = next(retraining._training.epoch(0)), _statistics(retraining)
    reads: list[str] = []
    for name in ("item", "__bool__", "tolist", "__float__", "__int__"):
        original = getattr(torch.Tensor, name)

        def counted(self: torch.Tensor, *arguments: Any, name: str = name, original: Any = original) -> Any:
            reads.append(name)
            return original(self, *arguments)

        monkeypatch.setattr(torch.Tensor, name, counted)
    for _ in range(2):
        retraining._stepper.apply(retraining._stepper.accumulate([batch]), statistics, update=True)
    assert reads == ["__float__"]  # of the first one, by the second


def _statistics(retraining: Retraining) -> Any:
    from spgsurgeon.training.statistics import EpisodeStatistics

    return EpisodeStatistics(retraining.grafted.steps, 4, retraining.processes)
