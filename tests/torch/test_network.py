"""A torch module as the middle sees it."""

import numpy as np
from torch import nn

from whit import Data
from whit.ledger import Folded
from whit.torch import network as networks
from whit.torch.network import TorchNetwork

SAMPLES = Data.of(
    np.zeros((4, 2, 5, 5), np.float32), np.zeros(4), np.zeros((4, 2, 5, 5), np.float32), np.zeros(4)
).train


def test_a_graph_is_captured_once_between_edits(monkeypatch) -> None:
    captured = []
    capture = networks.capture
    monkeypatch.setattr(networks, "capture", lambda *args: captured.append(1) or capture(*args))
    network = TorchNetwork.of(nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)), SAMPLES)
    before = network.graph()
    (fold,) = network.foldable()
    assert isinstance(fold, Folded)
    assert network.copy().graph() is before
    assert len(captured) == 1
    network.apply_([fold])
    assert [operation.kind for operation in network.graph().operations] == ["conv"]
    assert [operation.kind for operation in before.operations] == ["conv", "batch_norm"]
    assert len(captured) == 2
