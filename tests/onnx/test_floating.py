"""A rounded network in floating point is the network that its codes and nothing else stand for."""

from typing import Any

import numpy as np
import onnx
import pytest
import torch

import whit
from whit import Codebook, Int, Quantize, decide
from whit.data import Samples
from whit.formats import Format
from whit.ledger import Ledger
from whit.onnx.floating import in_floating_point
from whit.runtime import Session
from whit.torch.activations import round_activations_
from whit.torch.network import TorchNetwork

BYTE = Int(bits=8, symmetric=False, per="tensor")


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.inner = torch.nn.Conv2d(8, 8, 3, padding=1)
        self.head = torch.nn.Linear(8, 4)

    def forward(self, x: Any) -> Any:
        x = torch.relu(self.conv(x))
        return self.head(torch.relu(self.inner(x) + x).mean((2, 3)))


@pytest.mark.parametrize(
    ("weights", "activations"),
    [
        (Int(bits=8), BYTE),
        (Int(bits=4, per="group", group_size=5), BYTE),  # codes of four bits, spread over groups
        (Int(bits=8), Int(bits=4, symmetric=False, per="tensor")),  # a Clip between the two
        (Int(bits=8), Int(bits=12, per="tensor")),  # and one before them
        (Codebook(k=5), None),
    ],
    ids=str,
)
def test_it_is_the_network_with_rounded_weights_and_activations_as_they_are(
    weights: Format, activations: Int | None, tmp_path: Any
) -> None:
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(16, 3, 6, 6)).astype(np.float32)
    samples = Samples((x,), np.zeros(16, np.int64))
    net = TorchNetwork.of(Net(), samples)
    decisions, _ = decide.rounding(
        Quantize(weights=weights, activations=activations), net, Ledger(), samples, "cross_entropy"
    )
    net.apply_(decisions)
    ledger = Ledger().record(*decisions)
    net.export(tmp_path / "rounded.onnx", ledger)
    content = in_floating_point((tmp_path / "rounded.onnx").read_bytes())
    model = onnx.load_model_from_string(content)
    onnx.checker.check_model(model)
    assert not {node.op_type for node in model.graph.node} & {"QuantizeLinear", "DequantizeLinear", "Gather"}
    round_activations_(net.module, {})
    expected = net.predict(samples)
    # The Clip before codes of many bits stays, and cuts off what lies beyond the last code by less than a step.
    np.testing.assert_allclose(Session(content, threads=1, name="floating")(x), expected, atol=1e-4)


def test_whit_compress_measures_it_where_activations_are_rounded() -> None:
    x = np.random.default_rng(0).normal(size=(40, 3, 6, 6)).astype(np.float32)
    data = whit.Data.split(x, np.zeros(40, np.int64))
    result = whit.compress(Net(), Quantize(weights=Int(bits=8, reduce_range=True), activations=BYTE), data=data)
    assert result.floating_ms is not None
    assert result.floating_ms.low <= result.floating_ms.median <= result.floating_ms.high
    assert result.faster_onnx == (result.onnx if result.slowdown is None else result.floating_onnx)
    assert whit.compress(Net(), Quantize(), data=data).floating_ms is None
