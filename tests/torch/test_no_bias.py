"""Convolutions without bias have none in exported files either."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from whit.data import Samples
from whit.ledger import Ledger
from whit.runtime import open_onnx
from whit.torch.network import TorchNetwork


@pytest.mark.parametrize(("kind", "axes"), [(nn.Conv1d, 1), (nn.Conv2d, 2), (nn.Conv3d, 3)])
def test_a_convolution_without_bias_has_none_in_the_file(kind: type[nn.Conv2d], axes: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(4, 2, *(6,) * axes)).astype(np.float32)
    module = nn.Sequential(kind(2, 6, 3, padding=1, bias=False), nn.ReLU(), kind(6, 3, 3, 2, 0, 2, 3, bias=False))
    net = TorchNetwork.of(module, Samples((x,), np.zeros(len(x), np.int64)))
    net.export(tmp_path / "model.onnx", Ledger())
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert [len(node.input) for node in graph.node if node.op_type == "Conv"] == [2, 2]
    assert {item.name for item in graph.initializer} == {"0.weight", "2.weight"}
    found = open_onnx(tmp_path / "model.onnx")(x)
    np.testing.assert_allclose(found, module(torch.from_numpy(x)).detach().numpy(), atol=1e-5)
