"""What does nothing is taken out, and only that."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import whit
from whit import Data, Int, Plan, Prune, Quantize, RemoveDead, Rule
from whit.decide.dead import dead_branches, dead_channels
from whit.ledger import Axis, Kept, LeftOut
from whit.torch.network import TorchNetwork

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(96, 3, 8, 8)).astype(np.float32)
Y = X.mean((2, 3)).argmax(1)
DATA = Data.of(X[:64], Y[:64], X[64:], Y[64:])


class Net(nn.Module):
    """Three convolutions, the second of which is depthwise, a branch, and a head that is for training alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.each = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, groups=8, bias=False)
        self.third = nn.Conv2d(8, 6, 1)
        self.inner, self.outer = nn.Linear(6, 10), nn.Linear(10, 6)
        self.head, self.auxiliary = nn.Linear(6, 3), nn.Linear(6, 3)
        self.same = self.head

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.third(F.relu(self.each(F.relu(self.first(x))))))
        x = x.mean((2, 3))
        return self.same(x + self.outer(F.relu(self.inner(x))))


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def network(net: nn.Module) -> TorchNetwork:
    return TorchNetwork.of(net, DATA.train)


def test_a_channel_goes_that_nothing_is_made_of_but_not_one_that_a_bias_makes() -> None:
    net = Net()
    with torch.no_grad():
        net.first.weight[[1, 3, 5]] = 0
        net.first.bias[[1, 3, 5]] = torch.tensor([-0.5, 0.0, 0.7])
        net.each.weight[5] = net.each.weight[5].abs()  # negative, they would lead to a ReLU that lets nothing through
    [kept] = dead_channels(network(net), DATA.train)
    assert kept.axes[Axis("first.weight", 0)].tolist() == [0, 2, 4, 5, 6, 7]
    assert kept.groups == {"each.weight": 6}


@pytest.mark.parametrize("way", ["read", "made and read"])
def test_a_channel_goes_that_nothing_reads(way: str) -> None:
    net = Net()
    with torch.no_grad():
        net.third.weight[:, [2, 6]] = 0 if way == "read" else net.third.weight[:, [2, 6]]
        net.each.weight[[2, 6]] = 0
    [kept] = dead_channels(network(net), DATA.train)
    assert kept.axes[Axis("third.weight", 1)].tolist() == [0, 1, 3, 4, 5, 7]


def test_channels_that_a_transposed_convolution_makes_are_along_its_other_axis() -> None:
    net = nn.Sequential(nn.ConvTranspose2d(3, 6, 2, stride=2), nn.ReLU(), nn.Conv2d(6, 3, 1), Mean())
    with torch.no_grad():
        net[0].weight[:, [1, 4]] = 0
        net[0].bias[[1, 4]] = -1
    [kept] = dead_channels(network(net), DATA.train)
    assert kept.axes[Axis("0.weight", 1)].tolist() == [0, 2, 3, 5]


def test_a_layer_keeps_a_channel() -> None:
    net = Net()
    with torch.no_grad():
        for layer in (net.third, net.outer):
            layer.weight[:] = 0
            layer.bias[:] = 0
    axes = {axis: kept for one in dead_channels(network(net), DATA.train) for axis, kept in one.axes.items()}
    for axis in (Axis("third.weight", 1), Axis("third.weight", 0), Axis("inner.weight", 1), Axis("outer.weight", 1)):
        assert axes[axis].tolist() == [0]


def test_what_only_some_of_the_readers_leave_out_stays() -> None:
    net = Net()
    with torch.no_grad():
        net.inner.weight[:, 0] = 0  # the head reads it
        net.third.weight[2] = 0  # the branch adds to it
        net.third.bias[2] = 0
    assert dead_channels(network(net), DATA.train) == []


def test_where_no_weights_are_zero_nothing_goes() -> None:
    assert dead_channels(network(Net()), DATA.train) == []
    assert dead_branches(network(Net()), DATA.train) == []


@pytest.mark.parametrize(("bias", "gone"), [(0.0, True), (0.3, False)])
def test_a_branch_goes_that_adds_nothing(bias: float, gone: bool) -> None:
    net = Net()
    with torch.no_grad():
        net.outer.weight[:] = 0
        net.outer.bias[:] = bias
    found = dead_branches(network(net), DATA.train)
    assert [one.branch for one in found] == ["inner"] * gone


def test_channels_that_were_pruned_weight_by_weight_are_cut(tmp_path: Path) -> None:
    net = Net()
    with torch.no_grad():
        net.first.weight[4:] *= 1e-3
        net.first.bias[4:] = -1.0
    plan = Plan(
        Prune(amount=0.5, unit="weight", scope="layer", rules=(Rule(layers="(?!first).*"),)),
        RemoveDead(),
        Quantize(weights=Int(bits=8)),
    )
    result = whit.compress(net, plan, data=DATA)
    [kept] = [one for one in result.ledger.structure if isinstance(one, Kept)]
    assert kept.axes[Axis("first.weight", 0)].tolist() == [0, 1, 2, 3]
    assert result.ledger.masks()["first.weight"].mask.shape == (4, 3, 3, 3)
    # A kernel of 27 weights and a bias, one of 9, and a row of 6 for each of four channels.
    assert result.before.parameters - result.after.parameters == 4 * (27 + 1 + 9 + 6)
    whit.save(result, tmp_path / "model.whit")
    loaded = whit.load(tmp_path / "model.whit", into=Net())
    with torch.no_grad():
        outputs = loaded(torch.from_numpy(X)).numpy()
        np.testing.assert_array_equal(outputs, result.model(torch.from_numpy(X)))
    np.testing.assert_allclose(whit.runtime.load(tmp_path / "model.whit")(X), outputs, atol=1e-4)


def test_a_branch_of_zeros_is_in_no_file() -> None:
    net = Net()
    with torch.no_grad():
        net.inner.weight[:] = 0
        net.outer.bias[:] = 0
        net.inner.bias[:] = -1
    result = whit.compress(net, Plan(RemoveDead(), Quantize(weights=Int(bits=8))), data=DATA)
    assert [one.branch for one in result.ledger.structure if isinstance(one, LeftOut)] == ["inner"]
    assert not [name for name in result.ledger.given() if name.startswith(("inner", "outer"))]
    assert b"outer.weight" not in result.onnx
