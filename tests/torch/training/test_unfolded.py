"""Trainings with the batch normalisations that were folded: they start as the identity, and fold again exactly."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call  # pyright: ignore[reportPrivateImportUsage]

import whit
from whit import Finetune, Float, FoldBatchNorm, Int, Plan, PlanError, Prune, Quantize
from whit.compress import begin
from whit.data import Data, Samples
from whit.ledger import Ledger, Rounded
from whit.metrics import Accuracy
from whit.progress import Progress
from whit.torch.network import TorchNetwork
from whit.torch.training.trainable import Held, Trainable

BYTE = Int(bits=8, symmetric=False, per="tensor")
STEP = Finetune(epochs=2, learning_rate=0.02, batch_size=32, trains="both", batch_norm=True)


class Branch(nn.Module):
    """Convolutions of all kinds, one of which a sum reads as it was normalised, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.one = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.depthwise, self.two = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8)
        self.up, self.three = nn.ConvTranspose2d(8, 6, 2, stride=2), nn.BatchNorm2d(6, affine=False)
        self.hidden, self.four = nn.Linear(6, 10), nn.BatchNorm1d(10)
        self.head = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.one(self.conv(x)))
        x = torch.relu(x + self.two(self.depthwise(x)))
        x = torch.relu(self.three(self.up(x))).mean((2, 3))
        return self.head(torch.relu(self.four(self.hidden(x))))


def problem() -> tuple[nn.Module, Samples]:
    """Images of three kinds, and a network whose normalisations have seen them."""
    module, random = Branch(), np.random.default_rng(0)
    y = random.integers(0, 3, 128)
    x = (random.normal(size=(128, 3, 6, 6)) + np.eye(3)[y][:, :, None, None]).astype(np.float32)
    module.train()(torch.from_numpy(x))
    return module.eval(), Samples((x,), y)


def rounded(*steps: Prune | Quantize) -> tuple[TorchNetwork, Ledger, Samples]:
    """The network folded, and what so many steps make of it."""
    module, samples = problem()
    plan = Plan(FoldBatchNorm(), *steps)
    run = begin(module, plan, data=Data(train=samples, test=samples), metric="accuracy")
    run.through(0, len(plan.steps))
    assert isinstance(run.network, TorchNetwork)
    return run.network, run.ledger, samples


FORMATS = {
    "floating": (),
    "int4": (Quantize(weights=Int(bits=4)),),
    "in groups": (Quantize(weights=Int(bits=4, per="group", group_size=4)),),
    "few bits": (Quantize(weights=Int(bits=2, symmetric=False), activations=BYTE, residual=BYTE),),
    "binary": (Quantize(weights=Int(bits=1)),),
    "fp8": (Quantize(weights=Float(exponent=4, mantissa=3)),),
    "masked": (Prune(amount=0.5), Quantize(weights=Int(bits=4))),
    "masked alone": (Prune(amount=0.5),),
}
formats = pytest.mark.parametrize("steps", FORMATS.values(), ids=FORMATS)


def outputs(held: Held, samples: Samples) -> Tensor:
    """Of the network as its training has it, evaluated."""
    held.module.eval()
    with torch.no_grad():
        return functional_call(held.module, held.effective(), (torch.from_numpy(samples.inputs[0]),))


@formats
def test_what_comes_back_starts_as_the_identity(steps: tuple[Prune | Quantize, ...]) -> None:
    network, ledger, samples = rounded(*steps)
    expected = network.predict(samples)
    step = STEP if ledger.rounded() else replace(STEP, trains="codes")
    held = Held(network.module, step, ledger, None, network.normalised(step, ledger, samples))
    assert len(held.normalised) == 4
    np.testing.assert_allclose(outputs(held, samples), expected, atol=2e-5)


@formats
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_it_folds_again_into_the_network_that_was_trained(steps: tuple[Prune | Quantize, ...], optimizer: Any) -> None:
    network, ledger, samples = rounded(*steps)
    before = network.predict(samples)
    step = replace(STEP, optimizer=optimizer, trains="both" if ledger.rounded() else "codes")
    trainable = Trainable(network.module, step, ledger, None, network.normalised(step, ledger, samples))
    network.module.train()
    for place in range(12):
        x = torch.from_numpy(samples.inputs[0][place * 8 : place * 8 + 32])
        y = torch.from_numpy(samples.targets[place * 8 : place * 8 + 32])
        nn.functional.cross_entropy(functional_call(network.module, trainable.effective(), (x,)), y).backward()
        trainable.take_step(0.02 if optimizer == "adamw" else 0.001)
    expected = outputs(trainable, samples)
    made = trainable.settle()
    network.apply_(made)
    found = network.predict(samples)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert np.abs(found - before).max() > 1e-3  # it learned something
    values = network.values()
    for decision in made:
        if isinstance(decision, Rounded):
            np.testing.assert_array_equal(values[decision.parameter], decision.values())
            assert (decision.scale > 0).all()
    for name, mask in ledger.masks().items():
        assert (values[name][~mask.mask] == 0).all()


def test_a_plan_delivers_what_it_trained() -> None:
    module, samples = problem()
    quantize = Quantize(weights=Int(bits=4), activations=BYTE, residual=BYTE)
    tune = replace(STEP, held_out=0.25, average=0.5)
    result = whit.compress(module, Plan(FoldBatchNorm(), quantize, tune), data=Data(train=samples, test=samples))
    assert result.parity.agreement == 1
    assert not any(isinstance(one, nn.modules.batchnorm._BatchNorm) for one in result.model.modules())  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        (Int(bits=4, per="tensor"), r"conv.weight is rounded to .* 8 output channels"),
        (Int(bits=4, per="group", group_size=4, scale="e8m0"), "float32"),
    ],
    ids=["one scale", "powers of two"],
)
def test_scales_that_take_no_factor_are_refused(step: Int, problem: str) -> None:
    network, ledger, samples = rounded(Quantize(weights=step))
    with pytest.raises(PlanError, match=problem):
        network.finetune_(STEP, samples, Accuracy(), ledger, network.copy(), Progress())


def test_a_network_of_which_nothing_was_folded_is_refused() -> None:
    module, samples = problem()
    network = TorchNetwork.of(module, samples)
    step = replace(STEP, trains="codes")
    with pytest.raises(PlanError, match="no layer into which FoldBatchNorm folded"):
        network.finetune_(step, samples, Accuracy(), Ledger(), network.copy(), Progress())


def test_a_plan_that_folds_nothing_before_is_refused() -> None:
    with pytest.raises(PlanError, match=r"step 2 \(Finetune with batch_norm=True\)"):
        Plan(Quantize(), STEP)


def test_a_training_in_shares_is_refused() -> None:
    with pytest.raises(PlanError, match="batch_norm=True"):
        replace(STEP, trains="codes", sharded=True)
