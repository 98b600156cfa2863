"""Recurrent layers: what they read and remember is cut, rounded, saved and exported like any other channels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import whit
from whit import Data, Finetune, Plan, Prune, Quantize

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
