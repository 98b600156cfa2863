"""Rounding said by PyTorch's own operators computes the same, and can be merged reader by reader."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.ao.quantization.fx import _decomposed  # noqa: F401 (registers the operators, as compilers do)
from torch.nn import functional as F

import whit
from whit import Int, decide
from whit.data import Samples
from whit.ledger import Ledger
from whit.torch.decomposed import decomposed
from whit.torch.network import TorchNetwork


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = F.relu(self.body(x) + x)
        return self.head(torch.cat((x, y), 1).mean((2, 3)))


@pytest.mark.parametrize("weights", [Int(bits=8), Int(bits=4, per="tensor")], ids=str)
def test_the_program_computes_what_the_rounded_module_computes(weights: Int) -> None:
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(32, 3, 8, 8)).astype(np.float32)
    samples = Samples((x,), np.zeros(len(x), np.int64))
    net = TorchNetwork.of(Residual(), samples)
    step = whit.Quantize(weights=weights, activations=Int(bits=8, symmetric=False, per="tensor"))
    decisions, _ = decide.rounding(step, net, Ledger(), samples, "cross_entropy")
    net.apply_(decisions)
    one = torch.from_numpy(x[:1])
    program = decomposed(net.module, (one,), Ledger().record(*decisions))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(one), net.module(one), rtol=0, atol=1e-6)
    operators = torch.ops.quantized_decomposed
    kinds = [node.target for node in program.graph.nodes]
    assert torch.ops.whit.fake_quantize.default not in kinds
    assert kinds.count(operators.dequantize_per_channel.default) == 3
    read = [node for node in program.graph.nodes if node.target is operators.dequantize_per_tensor.default]
    assert read
    assert all(len(node.users) == 1 for node in read)
    # The sum, the body and the concatenation read what the stem makes, each by itself.
    assert len(read) > kinds.count(operators.quantize_per_tensor.default)
    cat = next(node for node in program.graph.nodes if node.target is torch.ops.aten.cat.default)
    grids = {part.args[1:3] for part in cat.args[0]}
    assert grids == {next(iter(cat.users)).args[1:3]}
