"""A trained network, how far it is from itself once it is rounded, and an untrained one with every convolution."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from whit import Data, Plan, decide
from whit.decide.equalize import equalize
from whit.ledger import Ledger
from whit.metrics import divergence
from whit.steps import Equalize, FoldBatchNorm, Quantize, Step
from whit.torch.network import TorchNetwork

CLASSES = 6
SIZE = 12


class Trained(nn.Module):
    """A convolution, two depthwise ones with one of 1x1 behind each, and a linear layer; 17 thousand MACs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False)
        self.depthwise = nn.ModuleList(nn.Conv2d(n, n, 3, padding=1, groups=n, bias=False) for n in (8, 16))
        self.pointwise = nn.ModuleList(nn.Conv2d(n, 16, 1, bias=False) for n in (8, 16))
        self.norms = nn.ModuleList(nn.BatchNorm2d(n) for n in (8, 8, 16, 16, 16))
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norms[0](self.stem(x)))
        x = F.relu(self.norms[1](self.depthwise[0](x)))
        x = F.relu(self.norms[2](self.pointwise[0](x)))
        x = F.relu(self.norms[3](self.depthwise[1](x)))
        x = F.relu(self.norms[4](self.pointwise[1](x)))
        return self.head(x.mean((2, 3)))


def gratings(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of waves in one of six directions, of any phase and length, under noise; and the direction."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, count)
    angle = np.pi * (labels + random.uniform(-0.3, 0.3, count)) / CLASSES
    rows, columns = np.mgrid[:SIZE, :SIZE]
    across = np.cos(angle)[:, None, None] * columns + np.sin(angle)[:, None, None] * rows
    length, phase = random.uniform(3.5, 7, (count, 1, 1)), random.uniform(0, 2 * np.pi, (count, 1, 1))
    images = np.sin(2 * np.pi * across / length + phase) + random.normal(size=across.shape)
    return images[:, None].astype(np.float32), labels


@pytest.fixture(scope="session")
def gratings_data() -> Data:
    """2,048 samples to train on and 512 others."""
    return Data.of(*gratings(2048, 0), *gratings(512, 1))


@pytest.fixture(scope="session")
def trained(gratings_data: Data) -> nn.Module:
    """The network, right on more than four of five of the other samples."""
    torch.manual_seed(0)
    net, train, test = Trained(), gratings_data.train, gratings_data.test
    x, y = torch.from_numpy(train.inputs[0]), torch.from_numpy(train.targets)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=1e-3)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=320)
    for _ in range(10):
        for places in torch.randperm(len(x)).view(-1, 64):
            loss = F.cross_entropy(net(x[places]), y[places])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
    with torch.no_grad():
        right = (net.eval()(torch.from_numpy(test.inputs[0])).argmax(1).numpy() == test.targets).mean()
    assert right > 0.8
    return net


class Convolutions(nn.Module):
    """Plain, strided, dilated, grouped and depthwise convolutions, and a linear layer; not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.dilated = nn.Conv2d(8, 8, (3, 1), padding="same", dilation=(2, 1))
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.grouped = nn.Conv2d(8, 8, 1, groups=2, bias=False)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.dilated(F.relu(self.plain(x))))
        x = F.relu(self.grouped(F.relu(self.depthwise(x))))
        return self.head(x.mean((2, 3)))


@pytest.fixture
def convolutions() -> Callable[[int], nn.Module]:
    """``convolutions(seed)``: a network of every kind of convolution for images of three channels, four classes."""

    def make(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return Convolutions()

    return make


Taken = Callable[..., TorchNetwork]
Harm = Callable[..., float]


@pytest.fixture(scope="session")
def taken() -> Taken:
    """``taken(module, data, *steps)``: a copy of a network after the steps, as ``whit.compress`` has it, unmeasured."""

    def take(module: nn.Module, data: Data, *steps: Step) -> TorchNetwork:
        network, ledger = TorchNetwork.of(module, data.train), Ledger()
        for step in Plan(*steps).steps:
            match step:
                case FoldBatchNorm():
                    decisions = decide.folds(network)[0]
                case Equalize():
                    decisions = equalize(step, network, data.train, "cross_entropy")[0]
                case Quantize():
                    decisions = decide.rounding(step, network, ledger, data.train, "cross_entropy")[0]
                case _:
                    raise AssertionError(step)
            network.apply_(decisions)
            ledger = ledger.record(*decisions)
        network.apply_(decide.biases(network, ledger))
        return network

    return take


@pytest.fixture(scope="session")
def harm(taken: Taken) -> Harm:
    """``harm(module, data, *steps)``: the divergence of a network from itself after the steps, on the test samples."""

    def found(module: nn.Module, data: Data, *steps: Step) -> float:
        before = TorchNetwork.of(module, data.train).predict(data.test)
        return divergence("cross_entropy", before, taken(module, data, *steps).predict(data.test))

    return found
