"""Methods by formats by kinds of layers that other tests leave out: one and three axes, groups, gaps, transposed."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import whit
from whit import (
    AWQ,
    Codebook,
    CrossLayer,
    Data,
    Equalize,
    HalfQuadratic,
    Int,
    LearnedRounding,
    Nearest,
    OptimalBrain,
    Quantize,
    Rule,
    SmoothQuant,
    decide,
    formats,
)
from whit.data import Samples
from whit.decide.equalize import equalize
from whit.formats import Format
from whit.ledger import Ledger, matrix
from whit.quantizers import Quantizer
from whit.scalings import Scaling
from whit.torch.network import TorchNetwork

KINDS = ["wide", "lone", "plain", "grouped", "dilated", "up", "volume", "turned", "head"]
INTEGERS: list[Format] = [
    Int(bits=3, per="tensor"),
    Int(bits=4),
    Int(bits=8, symmetric=False, per="group", group_size=5),
    Int(bits=16, symmetric=False),
]
OTHERS: list[Format] = [Int(bits=1), formats.FP8_E4M3, formats.MXFP4, formats.NVFP4, Codebook(k=6)]
BYTE = Int(bits=8, symmetric=False, per="tensor")
X = np.random.default_rng(0).normal(size=(40, 64)).astype(np.float32)


class Turned(nn.Module):
    """A linear layer whose weight has a row for each input."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) / inputs**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


class Branch(nn.Module):
    """Reads 64 numbers as a row of 16, an image of 4 by 4 and a cube, each with four channels."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv1d(4, 4, 3, padding=1)
        self.lone = nn.Conv1d(4, 4, 3, padding=1, groups=4)
        self.plain = nn.Conv2d(4, 4, 1)
        self.grouped = nn.Conv2d(4, 6, 3, padding=1, groups=2)
        self.dilated = nn.Conv2d(6, 4, 3, padding=2, dilation=2)
        self.up = nn.ConvTranspose2d(4, 4, 2, stride=2)
        self.volume = nn.Conv3d(4, 4, (1, 3, 3), stride=2, padding=(0, 1, 1))
        self.turned = Turned(32, 12)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.lone(F.relu(self.wide(x.unflatten(1, (4, 16))))))
        x = F.relu(self.grouped(F.relu(self.plain(x.unflatten(2, (4, 4))))))
        x = F.relu(self.up(F.relu(self.dilated(x))))
        return self.head(F.relu(self.turned(F.relu(self.volume(x.unflatten(2, (4, 2)))).flatten(1))))


class Net(nn.Module):
    """A branch for every format."""

    def __init__(self, count: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.branches = nn.ModuleList(Branch() for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


SAMPLES = Samples((X,), np.zeros((len(X), 3 * 9), np.float32))


@pytest.fixture(scope="module")
def network() -> TorchNetwork:
    """Branches for nine formats, whose graph is captured once for all tests."""
    return TorchNetwork.of(Net(9).eval(), SAMPLES)


def branches(step: Quantize, targets: Sequence[Format]) -> Quantize:
    """The step with a format for every branch; what has none is left alone."""
    known = [
        Rule(layers=rf"branches\.{place}\..*", use=replace(step, weights=target, samples=32))
        for place, target in enumerate(targets)
    ]
    return Quantize(method=step.method, rules=(*known, Rule(layers=".*", use=None)))


def check(network: TorchNetwork, targets: Sequence[Format], step: Quantize) -> None:
    """Round branches to one format each: every layer has codes, and the network computes what they stand for."""
    net = network.copy()
    decisions, skipped = decide.rounding(branches(step, targets), net, Ledger(), SAMPLES, "mean_squared_error")
    net.apply_(decisions)
    rounded = Ledger().record(*decisions).rounded()
    assert len(rounded) == len(KINDS) * len(targets)
    values = net.values()
    for place, target in enumerate(targets):
        for kind in KINDS:
            weight = rounded[f"branches.{place}.{kind}.weight"]
            assert weight.target == target
            np.testing.assert_array_equal(weight.values(), values[weight.parameter])
    assert np.isfinite(net.predict(SAMPLES)).all()
    transposed = [f"branches.{place}.up" for place in range(len(targets)) if step.activations is not None]
    assert [one.layer for one in skipped] == transposed
    assert all("no transposed convolution of integers" in one.reason for one in skipped)


@pytest.mark.parametrize(
    "step",
    [
        Quantize(method=Nearest(clip="mse")),
        Quantize(method=Nearest(), correct_biases=True),
        Quantize(method=HalfQuadratic()),
        Quantize(method=OptimalBrain()),
        Quantize(method=LearnedRounding(iterations=5)),
    ],
    ids=lambda step: f"{type(step.method).__name__}, corrected {step.correct_biases}",
)
def test_integers_by_every_method(step: Quantize, network: TorchNetwork) -> None:
    check(network, INTEGERS, step)


def test_other_formats_with_corrected_biases(network: TorchNetwork) -> None:
    check(network, OTHERS, Quantize(method=Nearest(clip="mse"), correct_biases=True))


@pytest.mark.parametrize("method", [Nearest(), OptimalBrain()], ids=lambda one: type(one).__name__)
def test_integers_that_runtimes_multiply(method: Quantizer, network: TorchNetwork) -> None:
    check(network, [Int(bits=8), Int(bits=4, per="tensor")], Quantize(method=method, activations=BYTE))


@pytest.mark.parametrize("scaling", [CrossLayer(), SmoothQuant(), AWQ()], ids=lambda one: type(one).__name__)
def test_every_format_behind_every_scaling(scaling: Scaling, network: TorchNetwork) -> None:
    net = network.copy()
    scaled, _ = equalize(Equalize(by=scaling, samples=32), net, SAMPLES, "mean_squared_error")
    before = net.predict(SAMPLES)
    net.apply_(scaled)
    np.testing.assert_allclose(net.predict(SAMPLES), before, atol=1e-5)
    check(net, [*INTEGERS, *OTHERS], Quantize(method=Nearest()))


def test_every_format_arrives_in_the_file() -> None:
    module = Net(9).eval()
    with torch.no_grad():
        outputs = module(torch.from_numpy(X)).numpy()
    data, targets = Data.of(X[:32], outputs[:32], X[32:], outputs[32:]), [*INTEGERS, *OTHERS]
    result = whit.compress(module, branches(Quantize(method=Nearest()), targets), data=data, metric="mse")
    assert result.parity.agreement == 1
    assert len(result.ledger.rounded()) == len(KINDS) * len(targets)


def test_a_weight_is_rounded_along_the_channels_that_it_makes() -> None:
    """Whatever the number of axes: one scale an output channel, of the largest magnitude in it."""
    module = nn.Sequential(nn.Unflatten(1, (4, 4, 2, 2)), nn.Conv3d(4, 6, (3, 1, 2), groups=2), nn.Flatten())
    outputs = module(torch.from_numpy(X)).detach().numpy()
    data = Data.of(X, outputs, X, outputs)
    result = whit.compress(module.eval(), Quantize(weights=Int(bits=8)), data=data, metric="mse")
    (weight,) = result.ledger.rounded().values()
    given = matrix(module[1].weight.detach().numpy())
    assert given.shape == (6, 2 * 3 * 2)
    np.testing.assert_allclose(weight.scale[:, 0], np.abs(given).max(1) / 127, rtol=1e-6)
