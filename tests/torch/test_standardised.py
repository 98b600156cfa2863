"""Convolutions that standardise their weights: kernels can go, what they read cannot."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from whit.data import Samples
from whit.decide import rounding
from whit.decide.channels import macs_after
from whit.decide.proof import proven_cuts
from whit.decide.pruning import single_weights
from whit.decide.scoring import Evidence
from whit.graph.coupling import couple
from whit.ledger import Axis, Ledger
from whit.steps import Prune, Quantize
from whit.torch.network import TorchNetwork

X = np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32)
COMPUTED = "its weights are computed, not parameters (FoldParametrizations makes them so)"
SAMPLES = Samples((X,), np.zeros(4, np.int64))


class Standardised(nn.Conv2d):
    """Every kernel has mean zero and a learned spread (Qiao et al. 2019, Brock et al. 2021)."""

    def __init__(self, read: int, made: int, groups: int = 1) -> None:
        super().__init__(read, made, 3, padding=1, groups=groups)
        self.gain = nn.Parameter(torch.rand(made, 1, 1, 1) + 0.5)

    def kernels(self) -> Tensor:
        rows, gain = self.weight.reshape(1, self.out_channels, -1), (self.gain * 0.7).view(-1)
        return F.batch_norm(rows, None, None, weight=gain, training=True, momentum=0.0, eps=1e-6).reshape_as(
            self.weight
        )

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.kernels(), self.bias)


class Centred(Standardised):
    """Kernels less their mean over all channels."""

    def kernels(self) -> Tensor:
        return self.weight - self.weight.mean((0, 1), keepdim=True)


class Net(nn.Module):
    def __init__(self, kind: type[Standardised] = Standardised) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = Standardised(3, 8)
        self.second = kind(8, 12, groups=2)
        self.plain = nn.Conv2d(12, 6, 1)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.second(torch.relu(self.stem(x))))
        return self.head(torch.relu(self.plain(x)).mean((2, 3)))


def test_kernels_are_cut_at_the_same_place_of_every_group_and_what_they_read_stays() -> None:
    found = couple(TorchNetwork.of(Net(), SAMPLES).graph())
    cuts = {group.name: {key: made.tolist() for key, made in group.cuts.items()} for group in found.groups}
    pairs = [[place, place + 6] for place in range(6)]
    names = [Axis("second.weight", 0), Axis("second.gain", 0), Axis("second.bias", 0), Axis("plain.weight", 1)]
    assert cuts["second"] == dict.fromkeys(names, pairs)
    assert cuts.keys() == {"second", "plain"}
    assert found.frozen == {
        "stem": "read by second, whose weight is computed of all it reads, not a parameter "
        "(FoldParametrizations makes it one): one less changes it",
        "head": "its channels are the output of the network",
    }


def test_a_cut_is_the_same_as_zeros_and_is_made_again_in_a_fresh_network() -> None:
    network = TorchNetwork.of(Net(), SAMPLES)
    evidence = Evidence(samples=SAMPLES, most=4, loss="cross_entropy")
    proven = proven_cuts(Prune(amount=0.5, unit="channel"), network, evidence)
    assert [(cut.group.name, cut.units.size) for cut in proven.cuts] == [("plain", 3), ("second", 3)]
    assert [one.layer for one in proven.skipped] == ["head", "stem"]
    expected = macs_after(proven.cuts, network.graph())
    network.apply_(proven.decisions)
    assert network.graph().macs() == expected
    assert network.module.second.out_channels == 6
    torch.manual_seed(1)
    fresh = TorchNetwork.of(Net(), SAMPLES)
    fresh.apply_(proven.decisions)
    fresh.module.load_state_dict(network.module.state_dict())
    np.testing.assert_array_equal(fresh.predict(SAMPLES), network.predict(SAMPLES))


def test_kernels_that_are_computed_from_one_another_stay() -> None:
    found = couple(TorchNetwork.of(Net(Centred), SAMPLES).graph())
    assert [group.name for group in found.groups] == ["plain"]
    assert found.frozen["second"] == "pooled together by mean in second"


def test_single_weights_of_kernels_that_are_computed_are_listed_as_left_alone() -> None:
    network = TorchNetwork.of(Net(), SAMPLES)
    evidence = Evidence(samples=SAMPLES, most=4, loss="cross_entropy")
    masks, skipped = single_weights(Prune(amount=0.5), network, Ledger(), evidence)
    assert [one.parameter for one in masks] == ["plain.weight", "head.weight"]
    reason = f"{COMPUTED}, and are not masked one by one"
    assert [(one.layer, one.reason) for one in skipped] == [("stem", reason), ("second", reason)]
    _, left = rounding(Quantize(activations=None), network, Ledger(), SAMPLES, "cross_entropy")
    reason = f"{COMPUTED}, and stay in floating point"
    assert [(one.layer, one.reason) for one in left] == [("stem", reason), ("second", reason)]
