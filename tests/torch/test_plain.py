"""Layers that compute their weights become plain ones, which can be cut and rounded like any other."""

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

import whit
from whit import Data, FoldBatchNorm, FoldParametrizations, Int, ModelError, Plan, PlanError, Prune, Quantize, Rewind
from whit.cli.inspection import describe
from whit.decide import plain, rounding
from whit.ledger import Ledger
from whit.ledger import Plain as PlainDecision
from whit.torch.network import TorchNetwork

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(64, 3, 9, 8)).astype(np.float32)
Y = RANDOM.integers(0, 4, 64)
DATA = Data.of(X, Y, X, Y)
INT8 = Quantize(weights=Int(bits=8, reduce_range=True), activations=Int(bits=8, symmetric=False, per="tensor"))


class Standardised(nn.Conv2d):
    """Every kernel has mean zero and a learned spread (Qiao et al. 2019, Brock et al. 2021)."""

    def __init__(self, *sizes: int, **settings: Any) -> None:
        super().__init__(*sizes, **settings)
        self.gain = nn.Parameter(torch.rand(self.out_channels, 1, 1, 1) + 0.5)

    def kernels(self) -> Tensor:
        mean, spread = self.weight.mean((1, 2, 3), keepdim=True), self.weight.std((1, 2, 3), keepdim=True)
        return (self.weight - mean) / (spread + 1e-6) * self.gain * 0.3

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.kernels(), self.bias)


class Same(Standardised):
    """Pads as TensorFlow does, by what it reads."""

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for size, kernel, stride in zip(reversed(x.shape[2:]), reversed(self.kernel_size), self.stride, strict=True):
            most = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [most // 2, most - most // 2]
        return F.conv2d(F.pad(x, pads), self.kernels(), self.bias, self.stride)


class Halved(Standardised):
    """Does more than multiply with the weight that it computes."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 2


class Net(nn.Module):
    """Weights computed in every way there is."""

    def __init__(self, last: type[Standardised] = Standardised) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = Standardised(3, 8, 3, padding=1, bias=False)
        self.same = Same(8, 12, 3, stride=2)
        self.norm = nn.BatchNorm2d(12)
        self.normed = parametrizations.weight_norm(nn.Conv2d(12, 16, 3, padding=1, groups=2))
        self.up = parametrizations.weight_norm(nn.ConvTranspose2d(16, 10, 2, stride=2))
        self.last = last(10, 6, 1)
        self.head = parametrizations.weight_norm(nn.Linear(6, 8))
        self.spectral = parametrizations.spectral_norm(nn.Linear(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.same(torch.relu(self.stem(x)))))
        x = torch.relu(self.last(torch.relu(self.up(torch.relu(self.normed(x))))))
        return self.spectral(torch.relu(self.head(x.mean((2, 3)))))


LAYERS = ["stem", "same", "normed", "up", "last", "head", "spectral"]


def test_each_becomes_a_plain_layer_and_the_network_computes_what_it_did() -> None:
    network = TorchNetwork.of(Net(), DATA.train)
    decisions, skipped = plain(network)
    assert skipped == []
    assert [one for one in decisions if isinstance(one, PlainDecision)] == [
        PlainDecision(layer=name, same=name == "same") for name in LAYERS
    ]
    expected = network.predict(DATA.train)
    network.apply_(decisions)
    np.testing.assert_allclose(network.predict(DATA.train), expected, atol=1e-5)
    assert [layer.name for layer in network.graph().layers()] == LAYERS
    weights = {f"{name}.{kind}" for name in LAYERS for kind in ("weight", "bias")} - {"stem.bias"}
    assert network.parameters().keys() == weights | {"norm.weight", "norm.bias"}
    assert plain(network) == ([], [])


def test_they_are_cut_and_rounded_then_and_come_back_from_a_file(tmp_path: Path) -> None:
    plan = Plan(FoldParametrizations(), FoldBatchNorm(), Prune(amount=0.5, unit="channel"), Prune(amount=0.3), INT8)
    result = whit.compress(Net(), plan, data=DATA)
    assert result.parity.agreement == 1
    assert result.ledger.rounded().keys() == {f"{name}.weight" for name in LAYERS}
    assert result.model.get_parameter("same.weight").shape == (6, 4, 3, 3)
    assert result.model.get_parameter("up.weight").shape == (8, 5, 2, 2)
    path = tmp_path / "net.whit"
    whit.save(result, path)
    again = whit.load(path, into=Net())
    with torch.no_grad():
        np.testing.assert_array_equal(again(torch.from_numpy(X)), result.model(torch.from_numpy(X)))
    found = describe(path)
    assert found["structure"]["plain"] == [{"layer": name, "same": name == "same"} for name in LAYERS]
    assert {
        "stem.gain",
        "spectral.parametrizations.weight.original",
        "up.parametrizations.weight.original0",
    }.isdisjoint(one["name"] for one in found["tensors"])


def test_without_the_step_they_are_listed_with_what_to_do() -> None:
    network = TorchNetwork.of(Net(), DATA.train)
    _, skipped = rounding(INT8, network, Ledger(), DATA.train, "cross_entropy")
    why = "its weights are computed, not parameters (FoldParametrizations makes them so), and stay in floating point"
    assert {one.layer: one.reason for one in skipped} == dict.fromkeys(LAYERS, why)
    advice = re.escape("stem: read by same, whose weight is computed of all it reads, not a parameter (FoldParametriz")
    with pytest.raises(PlanError, match=advice):
        whit.compress(Net(), Prune(amount=0.5, unit="channel"), data=DATA)


def test_a_layer_that_does_more_is_left_as_it_is() -> None:
    result = whit.compress(Net(Halved), FoldParametrizations(), data=DATA)
    assert [(one.layer, one.reason) for one in result.skipped] == [
        ("last", "its code does more in a call than multiply with the weight that it computes")
    ]
    assert [one.layer for one in result.ledger if isinstance(one, PlainDecision)] == [
        name for name in LAYERS if name != "last"
    ]


def test_a_network_without_any_stays_as_it_is() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 9 * 8, 4))
    result = whit.compress(net, FoldParametrizations(), data=DATA)
    assert result.skipped == ()
    assert result.after.quality == result.before.quality


def test_what_they_were_given_as_has_no_values_to_go_back_to() -> None:
    with pytest.raises(PlanError, match=r"step 2 \(Rewind\) comes after FoldParametrizations: .* that were computed"):
        Plan(FoldParametrizations(), Rewind())


def test_another_class_is_refused() -> None:
    network = TorchNetwork.of(nn.Sequential(nn.Flatten(), nn.Linear(3 * 9 * 8, 4)), DATA.train)
    for name in ("stem", "0"):
        with pytest.raises(ModelError, match=f"{name} is no layer of this Sequential that computes its weight"):
            network.apply_([PlainDecision(layer=name)])
    assert list(Ledger().record(PlainDecision(layer="a"))) == [PlainDecision(layer="a")]


@pytest.mark.parametrize("normed", [weight_norm, spectral_norm])
def test_weights_from_hooks_are_refused(normed: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        net = nn.Sequential(nn.Flatten(), normed(nn.Linear(3 * 9 * 8, 4)))
    with pytest.raises(ModelError, match=f"1 has its weight from torch.nn.utils.{normed.__name__}, which"):
        whit.compress(net, FoldParametrizations(), data=DATA)
