"""A network with every kind of layer, rounded in one step, as the ``.whit`` file that exports start from."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import whit
from whit import decide, store
from whit.data import Array, Samples
from whit.ledger import Ledger
from whit.onnx.qdq import store_codes_
from whit.torch.network import TorchNetwork


class Net(nn.Module):
    """Convolutions with and without padding, stride and groups, a residual, pools, a concatenation, linear layers.

    One of these has a weight of inputs by outputs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.inner = nn.Conv2d(16, 16, 3, padding=1)
        self.depth = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.down = nn.Conv2d(16, 32, 1, stride=2)
        self.hidden = nn.Linear(48, 64)
        self.turned, self.shift = nn.Parameter(torch.randn(64, 64) / 8), nn.Parameter(torch.randn(64))
        self.head = nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(self.depth(F.relu6(self.inner(x))) + x)
        x = torch.cat((F.max_pool2d(x, 2), F.relu(self.down(x))), 1)
        return self.head(F.relu(torch.addmm(self.shift, F.relu(self.hidden(x.mean((2, 3)))), self.turned)))


Rounded = Callable[[whit.Quantize], SimpleNamespace]


@pytest.fixture(scope="session")
def samples() -> Array:
    return np.random.default_rng(0).normal(size=(64, 3, 8, 8)).astype(np.float32)


def network(samples: Array) -> TorchNetwork:
    torch.manual_seed(0)
    return TorchNetwork.of(Net(), Samples((samples,), np.zeros(len(samples), np.int64)))


@pytest.fixture(scope="session")
def unrounded(samples: Array, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The network as ONNX with float32 weights: torch's exporter is slow, and the codes are put in after it."""
    path = tmp_path_factory.mktemp("unrounded") / "network.onnx"
    network(samples).export(path, Ledger())
    return path.read_bytes()


@pytest.fixture
def rounded(samples: Array, unrounded: bytes, tmp_path: Path) -> Rounded:
    """What ``whit.compress`` would leave of the network after one step: ``file`` (bytes), ``path`` and ``model``."""

    def make(step: whit.Quantize, metric: str = "mse") -> SimpleNamespace:
        net = network(samples)
        known = Samples((samples,), np.zeros(len(samples), np.int64))
        decisions, _ = decide.rounding(step, net, Ledger(), known, "cross_entropy")
        net.apply_(decisions)
        ledger = Ledger().record(*decisions)
        biases = decide.biases(net, ledger)
        net.apply_(biases)
        ledger = ledger.record(*biases)
        path = tmp_path / "network.onnx"
        if step.activations is None:
            model = onnx.load_model_from_string(unrounded)
            for item in model.graph.initializer:
                if item.name in ledger.rounded():
                    item.CopyFrom(onnx.numpy_helper.from_array(ledger.rounded()[item.name].values(), item.name))
            store_codes_(model, ledger)
            onnx.save_model(model, path)
        else:
            net.export(path, ledger)
        file = store.encode(ledger, path.read_bytes(), {"metric": metric})
        path.with_suffix(".whit").write_bytes(file)
        return SimpleNamespace(file=file, path=path.with_suffix(".whit"), onnx=path, model=net.module)

    return make
