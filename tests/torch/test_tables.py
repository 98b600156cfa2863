"""A table of embeddings is looked up as codes: no runtime dequantizes all of it in every call."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from whit import Int, Quantize, decide, store
from whit.data import Samples
from whit.ledger import Ledger
from whit.runtime import open_onnx
from whit.torch.network import TorchNetwork


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.table(x).sum(1) + self.table(x + 1).mean(1))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_rows_are_looked_up_before_they_are_dequantized(per: str, symmetric: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    words = np.random.default_rng(0).integers(0, 49, (16, 5))
    samples = Samples((words,), np.zeros(16, np.int64))
    net = TorchNetwork.of(Twice(), samples)
    step = Quantize(weights=Int(bits=8, symmetric=symmetric, per=per))  # type: ignore[arg-type]
    decisions, _ = decide.rounding(step, net, Ledger(), samples, "cross_entropy")
    net.apply_(decisions)
    ledger = Ledger().record(*decisions)
    net.export(tmp_path / "m.onnx", ledger)
    readers = [node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node if "table.weight:codes" in node.input]
    assert readers == ["Gather", "Gather"]
    np.testing.assert_allclose(open_onnx(tmp_path / "m.onnx")(words), net.predict(samples), atol=1e-5)
    assert store.encode(ledger, (tmp_path / "m.onnx").read_bytes(), {})
