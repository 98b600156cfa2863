"""Recurrent layers: what they read and remember is cut, rounded, saved and exported like any other channels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import whit
from whit import Codebook, Data, Finetune, Int, OptimalBrain, Plan, Prune, Quantize, Rule, formats
from whit.cli.grouping import describe_groups
from whit.decide.proof import proven_cuts
from whit.decide.scoring import Evidence
from whit.formats import Format
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


KINDS = pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN], ids=lambda kind: kind.__name__)


@KINDS
def test_weights_are_masked_and_rounded_and_trained_so(kind: type[nn.RNNBase], tmp_path: Path) -> None:
    make = {"kind": kind, "both": True, "depth": 2}
    plan = Plan(Prune(amount=0.5), Quantize(weights=Int(bits=4)), Finetune(epochs=1, trains="both"))
    result = whit.compress(Recurrent(**make), plan, data=DATA)
    weights = {name for name, one in result.model.named_parameters() if one.dim() > 1}
    assert len(weights) == 10  # two of each direction of each layer, and two layers beside
    assert result.ledger.masks().keys() == result.ledger.rounded().keys() == weights
    assert result.skipped == ()
    values = dict(result.model.named_parameters())
    for name, decision in result.ledger.rounded().items():
        assert len(np.unique(decision.codes)) <= 15
        np.testing.assert_array_equal(values[name].detach().numpy(), decision.values())
        assert not decision.values()[~result.ledger.masks()[name].mask].any()
    assert result.parity.max_abs < 1e-5
    whit.save(result, tmp_path / "model.whit")
    x = torch.from_numpy(X)
    torch.testing.assert_close(whit.load(tmp_path / "model.whit", into=Recurrent(**make))(x), result.model(x))


FORMATS = (
    Int(bits=8),
    Int(bits=8, per="tensor", symmetric=False),
    Int(bits=4, per="group", group_size=4, symmetric=False),
    formats.NVFP4,
    formats.FP16,
    Codebook(k=16),
)


@KINDS
def test_the_smallest_are_rounded_too(kind: type[nn.RNNBase]) -> None:
    # Their gates have few enough bytes that the exporter would put them in order before the file is written.
    plan = Plan(Prune(amount=0.75, unit="channel"), Quantize(weights=Int(bits=8)))
    result = whit.compress(Recurrent(kind), plan, data=DATA)
    assert result.ledger.rounded()["rnn.weight_hh_l0"].shape[1] == 3
    assert result.parity.max_abs < 1e-5


@pytest.mark.parametrize(
    ("kind", "target"), [*((nn.LSTM, target) for target in FORMATS), (nn.GRU, FORMATS[0]), (nn.RNN, FORMATS[0])]
)
def test_the_file_holds_their_codes_in_every_format(kind: type[nn.RNNBase], target: Format) -> None:
    result = whit.compress(Recurrent(kind), Plan(Quantize(weights=target)), data=DATA)
    assert result.ledger.rounded().keys() >= {"rnn.weight_ih_l0", "rnn.weight_hh_l0"}
    assert result.parity.max_abs < 1e-5
    names = {one.name for one in onnx.load_model_from_string(result.onnx).graph.initializer}
    assert names.isdisjoint(result.ledger.rounded())  # codes stand there, and no floats beside them
    assert {"rnn.weight_ih_l0:codes", "rnn.weight_hh_l0:codes"} <= names


def test_methods_that_see_what_is_read_leave_them_and_say_so() -> None:
    by_eye = Quantize(method=OptimalBrain())
    result = whit.compress(Recurrent(nn.GRU), Plan(by_eye), data=DATA)
    assert result.ledger.rounded().keys() == {"up.weight", "head.weight"}
    (skipped,) = result.skipped
    assert (skipped.layer, "method=Nearest()" in skipped.reason) == ("rnn", True)
    plain = replace(by_eye, rules=(Rule(layers="rnn", use=Quantize()),))
    result = whit.compress(Recurrent(nn.GRU), Plan(plain), data=DATA)
    assert len(result.ledger.rounded()) == 4
    assert not result.skipped


def test_they_run_in_floating_point_and_that_is_said() -> None:
    step = Quantize(activations=Int(bits=8, symmetric=False, per="tensor"))
    result = whit.compress(Recurrent(nn.LSTM), Plan(step), data=DATA)
    assert len(result.ledger.rounded()) == 4
    reason = "only convolutions and linear layers run in integers, so its activations stay in floating point"
    assert ("rnn", reason) in {(one.layer, one.reason) for one in result.skipped}


def test_what_is_left_of_them_does_not_make_up_for_what_went() -> None:
    plan = Plan(Prune(amount=0.5, compensate=True))
    result = whit.compress(Recurrent(nn.LSTM), plan, data=DATA)
    assert len(result.ledger.masks()) == 4
    assert [one.layer for one in result.skipped] == ["rnn"]


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
