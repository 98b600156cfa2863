"""Early stopping: samples that are held out tell which state of a training comes out."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

import whit
from whit.data import Samples
from whit.ledger import Ledger
from whit.metrics import Accuracy, MeanAbsoluteError, Metric
from whit.progress import Progress
from whit.steps import Finetune
from whit.torch.network import TorchNetwork
from whit.torch.training.held_out import parted

STEP = Finetune(epochs=30, learning_rate=0.05, batch_size=16, held_out=0.25)


def memorised() -> tuple[TorchNetwork, Samples]:
    """More weights than samples, and targets that are mostly noise: a network gets worse after it got better."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    x = random.normal(size=(64, 8)).astype(np.float32)
    y = (x[:, :1] + random.normal(size=(64, 1))).astype(np.float32)
    samples = Samples((x,), y)
    return TorchNetwork.of(nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 1)), samples), samples


def trained(step: Finetune, metric: Metric | None = None) -> tuple[TorchNetwork, Samples]:
    net, samples = memorised()
    net.finetune_(step, samples, metric or MeanAbsoluteError(), Ledger(), net.copy(), Progress())
    return net, samples


def error(net: TorchNetwork, samples: Samples, places: Any) -> float:
    return float(np.abs(net.predict(samples) - samples.targets)[places].mean())


@dataclass(frozen=True, slots=True)
class Written(Metric):
    """Says what is written for each judgement in turn."""

    name: ClassVar[str] = "written"
    higher_is_better: ClassVar[bool] = True
    loss: ClassVar[Any] = "mean_squared_error"
    qualities: list[float]

    def __call__(self, outputs: Any, targets: Any) -> float:
        return self.qualities.pop(0)


def test_what_is_held_out_is_a_share_that_the_seed_chooses_and_no_sample_is_in_both() -> None:
    samples = Samples((np.zeros((40, 2), np.float32),), np.zeros(40))
    inside, out = parted(STEP, samples)
    assert (len(inside), len(out)) == (30, 10)
    assert sorted([*inside, *out]) == list(range(40))
    assert out.tolist() == parted(STEP, samples)[1].tolist()
    assert out.tolist() != parted(replace(STEP, seed=1), samples)[1].tolist()
    inside, out = parted(replace(STEP, samples=20), samples)
    assert sorted([*inside, *out]) == list(range(20))
    assert parted(replace(STEP, held_out=0.0), samples)[0].tolist() == list(range(40))


@pytest.mark.parametrize(
    ("share", "message"),
    [(0.001, "of 64 samples none is held out"), (0.999, "of 64 samples none is left to train on")],
)
def test_a_share_that_is_nothing_or_everything_is_an_error(share: float, message: str) -> None:
    with pytest.raises(whit.DataError, match=message):
        trained(replace(STEP, held_out=share))


@pytest.mark.parametrize("average", [0.0, 0.5])
def test_the_state_that_is_best_on_what_is_held_out_comes_out(average: float) -> None:
    step = replace(STEP, average=average)
    net, samples = trained(step)
    inside, out = parted(step, samples)
    # The last state of the very same training: a metric that always says the latest is better keeps that.
    last, _ = trained(step, Written(list(map(float, range(30)))))
    assert error(net, samples, out) < error(last, samples, out)
    assert error(net, samples, inside) > error(last, samples, inside)


def test_it_ends_after_so_many_judgements_without_anything_better_and_the_best_comes_out() -> None:
    # The third judgement is the best, the fifth the second in a row that is not better: equal is not.
    written = Written([1.0, 2.0, 3.0, 3.0, 2.0, 9.0])
    net, _ = trained(replace(STEP, patience=2), written)
    assert written.qualities == [9.0]
    expected, _ = trained(STEP, Written([1.0, 2.0, 3.0, *[0.0] * 27]))
    for name, values in expected.values().items():
        np.testing.assert_array_equal(net.values()[name], values)


def test_it_is_judged_as_often_as_the_step_says_and_at_the_end() -> None:
    # 48 samples in batches of 16 are 3 steps a pass; every 2 steps of 9 and the last: 5 judgements.
    written = Written([1.0] * 6)
    trained(replace(STEP, epochs=3, judge_every=2 / 3), written)
    assert len(written.qualities) == 1


def test_a_judgement_leaves_the_training_as_it_is() -> None:
    # What is judged twice as often but always better ends where one judgement at the end does, dropout included.
    found = []
    for often in (1.0, 10.0):
        _, samples = memorised()
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.Linear(16, 1))
        net = TorchNetwork.of(module, samples)
        step = replace(STEP, epochs=10, judge_every=often, average=0.9)
        net.finetune_(step, samples, Written(list(map(float, range(10)))), Ledger(), net.copy(), Progress())
        found.append(net.values())
    for name, values in found[0].items():
        np.testing.assert_array_equal(found[1][name], values)


def test_a_quality_that_is_no_number_is_an_error() -> None:
    with pytest.raises(whit.DataError, match=r"the written of the 16 samples that are held out is nan"):
        trained(STEP, Written([float("nan")]))


def test_a_plan_with_a_share_held_out_goes_through_rounding_and_masks() -> None:
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 200)
    x = (random.normal(size=(200, 6)) + 3 * np.eye(6)[y]).astype(np.float32)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    step = Finetune(epochs=8, learning_rate=0.02, batch_size=16, held_out=0.2, patience=3, trains="both")
    step = replace(step, distill=whit.Distill(weight=0.0))  # the network that is given knows nothing yet
    plan = whit.Plan(whit.Prune(amount=0.5), whit.Quantize(weights=whit.Int(bits=4)), step)
    result = whit.compress(module, plan, data=(x, y), metric=Accuracy())
    for name, decision in result.ledger.masks().items():
        assert (result.model.get_parameter(name).detach().numpy()[~decision.mask] == 0).all()
    for name, rounded in result.ledger.rounded().items():
        np.testing.assert_array_equal(result.model.get_parameter(name).detach().numpy(), rounded.values())
    assert result.after.quality > 0.6  # a guess is right a third of the time
