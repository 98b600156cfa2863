"""Cutting channels of networks that share, skip, wrap and hide their layers: sliced equals zeroed, or left alone."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from whit import ModelError, Prune
from whit.data import Samples
from whit.decide.proof import Proven, mask_, proven_cuts
from whit.decide.scoring import Evidence
from whit.ledger import Axis
from whit.torch.network import TorchNetwork

IMAGES = np.random.default_rng(0).normal(size=(4, 3, 6, 6)).astype(np.float32)


class Net(nn.Module):
    """A convolution, a part of its own and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def middle(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(F.relu(self.first(x))).mean((2, 3)))


class Twice(Net):
    """Uses a layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.again = nn.Conv2d(8, 8, 3, padding=1)

    def middle(self, x: Tensor) -> Tensor:
        return F.relu(self.again(F.relu(self.again(x))))


class Tied(Twice):
    """Two layers share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Conv2d(8, 8, 3, padding=1)
        self.other.weight = self.again.weight

    def middle(self, x: Tensor) -> Tensor:
        return F.relu(self.other(F.relu(self.again(x))))


class Idle(Twice):
    """Has a layer that it never calls, and a parameter that it never reads."""

    def __init__(self) -> None:
        super().__init__()
        self.unread = nn.Parameter(torch.zeros(8))

    def middle(self, x: Tensor) -> Tensor:
        return x


class Normalised(Twice):
    """A layer whose weight is computed from a direction and a length."""

    def __init__(self) -> None:
        super().__init__()
        parametrizations.weight_norm(self.again)
        self.last = nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6, 4)

    def middle(self, x: Tensor) -> Tensor:
        return F.relu(self.last(self.again(x)))


class Spectral(Normalised):
    """A layer whose weight is computed by a parametrisation of another kind."""

    def __init__(self) -> None:
        super().__init__()
        self.again = parametrizations.orthogonal(nn.Linear(8, 8))

    def middle(self, x: Tensor) -> Tensor:
        return F.relu(self.last(self.again(x.transpose(1, -1)).transpose(1, -1)))


class Attending(Net):
    """torch's own attention between pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)

    def middle(self, x: Tensor) -> Tensor:
        y = x.flatten(2).transpose(1, 2)
        y = y + self.attention(y, y, y, need_weights=False)[0]
        return (y + self.down(F.gelu(self.up(y)))).transpose(1, 2).reshape(x.shape)


EVERY: list[Callable[[], nn.Module]] = [Twice, Tied, Idle, Normalised, Spectral, Attending]


def prune(module: nn.Module, amount: float = 0.5, images: np.ndarray = IMAGES) -> tuple[TorchNetwork, Proven]:
    samples = Samples((images,), np.zeros(len(images), np.int64))
    network = TorchNetwork.of(module, samples)
    evidence = Evidence(samples=samples, most=4, loss="cross_entropy")
    proven = proven_cuts(Prune(amount=amount, unit="channel"), network, evidence)
    masked = network.copy()
    mask_(masked, proven.cuts)
    network.apply_(proven.decisions)
    tolerance = 1e-5 if images.dtype == np.float32 else 1e-2
    np.testing.assert_allclose(network.predict(samples), masked.predict(samples), atol=tolerance)
    return network, proven


@pytest.mark.parametrize("make", EVERY)
def test_what_is_cut_computes_what_zeros_would(make: Callable[[], nn.Module]) -> None:
    network, proven = prune(make())
    assert proven.cuts
    assert network.module.head.weight.shape[0] == 4


def test_a_shared_weight_is_cut_once_and_stays_shared() -> None:
    network, _ = prune(Tied())
    assert network.module.other.weight is network.module.again.weight
    assert network.module.again.weight.shape[:2] == (4, 4)


def test_what_is_never_used_stays_as_it_is() -> None:
    network, _ = prune(Idle())
    assert network.module.again.weight.shape == (8, 8, 3, 3)
    assert network.module.unread.shape == (8,)


def test_a_weight_that_is_computed_is_left_alone_with_the_reason() -> None:
    _, proven = prune(Normalised())
    assert [cut.group.name for cut in proven.cuts] == ["last"]
    reasons = {one.layer: one.reason for one in proven.skipped}
    assert (
        reasons["first"]
        == "read by conv in again, whose weight is computed, not a parameter (FoldParametrizations makes it one)"
    )


def test_however_much_is_asked_one_unit_of_every_group_stays_and_the_outputs_all() -> None:
    network, proven = prune(Twice(), amount=0.99)
    assert network.module.first.weight.shape[0] == 1
    assert network.module.head.weight.shape == (4, 1)
    assert not any(Axis("head.weight", 0) in one.axes for one in proven.decisions)


def test_a_network_in_half_precision_stays_in_half_precision() -> None:
    network, _ = prune(Twice().half(), images=IMAGES.astype(np.float16))
    assert network.module.first.weight.dtype == torch.float16
    assert network.module.first.weight.shape[0] == 4


class Branching(Net):
    """Decides by what it computes, which no graph can show."""

    def middle(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x
        return -x


def test_code_that_export_cannot_follow_is_refused_with_the_line() -> None:
    with pytest.raises(ModelError, match=r"torch.export cannot follow Branching .*test_awkward_channels.py:\d+"):
        prune(Branching())
