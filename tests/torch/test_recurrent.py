"""Recurrent layers: what they read and remember is cut, rounded, saved and exported like any other channels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import whit
from whit import Data, Finetune, Plan, Prune, Quantize
from whit.cli.grouping import describe_groups
from whit.decide.proof import proven_cuts
from whit.decide.scoring import Evidence
from whit.torch.network import TorchNetwork

X = np.random.default_rng(0).normal(size=(64, 7, 6)).astype(np.float32)
Y = (X.mean((1, 2)) > 0).astype(np.int64)
DATA = Data.of(X, Y, X[:16], Y[:16])


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], *, both: bool = False, depth: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up = nn.Linear(6, 8)
        self.rnn = kind(8, 12, depth, batch_first=True, bidirectional=both)
        self.head = nn.Linear(24 if both else 12, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(torch.relu(self.up(x)))[0][:, -1])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(("both", "depth"), [(False, 1), (True, 2)])
def test_what_is_read_and_remembered_is_cut(kind: type[nn.RNNBase], both: bool, depth: int, tmp_path: Path) -> None:
    make = {"kind": kind, "both": both, "depth": depth}
    plan = Plan(Prune(amount=0.5, unit="channel"), Finetune(epochs=1))
    result = whit.compress(Recurrent(**make), plan, data=DATA)
    assert (result.model.rnn.input_size, result.model.rnn.hidden_size) == (4, 6)
    assert result.model.head.in_features == (12 if both else 6)
    assert [one.layer for one in result.skipped] == ["head"]
    assert result.parity.max_abs < 1e-4
    whit.save(result, tmp_path / "model.whit")
    loaded = whit.load(tmp_path / "model.whit", into=Recurrent(**make))
    x = torch.from_numpy(X)
    torch.testing.assert_close(loaded(x), result.model(x))


def test_beside_a_recurrent_layer_weights_are_masked_and_rounded() -> None:
    plan = Plan(Prune(amount=0.5), Finetune(epochs=1), Quantize())
    result = whit.compress(Recurrent(nn.LSTM), plan, data=DATA)
    assert result.ledger.masks().keys() == result.ledger.rounded().keys() == {"up.weight", "head.weight"}
    assert result.parity.agreement >= 0.99
    assert [(one.step, one.layer, one.reason) for one in result.skipped] == [
        ("prune", "rnn", "weights of lstm are not masked one by one"),
        ("quantize", "rnn", "weights of lstm stay in floating point"),
    ]


class Raw(Recurrent):
    """What a recurrent layer remembers is the output of the network."""

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(torch.relu(self.up(x)))[0][:, -1]


class Projected(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(6, 8)
        self.rnn = nn.LSTM(8, 12, proj_size=3, batch_first=True)
        self.head = nn.Linear(3, 4)
        self.last = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.head(self.rnn(torch.relu(self.up(x)))[0][:, -1])))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN], ids=lambda kind: kind.__name__)
def test_a_recurrent_layer_that_cannot_be_cut_is_listed_with_the_reason(kind: type[nn.RNNBase]) -> None:
    samples = DATA.train
    found = describe_groups(Raw(kind), samples)
    assert found["frozen"] == [{"layer": "rnn", "reason": "its channels are the output of the network"}]
    network = TorchNetwork.of(Raw(kind), samples)
    evidence = Evidence(samples=samples, most=8, loss="mean_squared_error")
    proven = proven_cuts(Prune(amount=0.5, unit="channel"), network, evidence)
    assert [cut.group.name for cut in proven.cuts] == ["up"]
    assert [(one.layer, one.reason) for one in proven.skipped] == [("rnn", found["frozen"][0]["reason"])]


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_a_recurrent_layer_that_projects_is_listed_with_the_reason() -> None:
    found = {one["layer"]: one["reason"] for one in describe_groups(Projected(), DATA.train)["frozen"]}
    assert found == {
        "up": "read by aten.lstm.input in rnn, which whit cannot cut through",
        "rnn": "used by aten.lstm.input, which whit cannot cut through",
        "last": "its channels are the output of the network",
    }
