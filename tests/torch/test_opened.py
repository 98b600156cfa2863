"""torch's own attention is a function that calls others; whit sees these, as it does where users write them out."""

import numpy as np
import torch
from torch import Tensor, nn

import whit
from whit import Data, Factorize, Int, OptimalBrain, Plan, Prune, Quantize
from whit.data import Samples
from whit.ledger import Factored
from whit.metrics import named
from whit.torch.network import TorchNetwork

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(64, 5, 8)).astype(np.float32)
Y = RANDOM.integers(0, 4, 64)
DATA = Data.of(X, Y, X, Y)
INTEGERS = Int(bits=8, symmetric=False, per="tensor")


class Net(nn.Module):
    """A layer of torch's own transformer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(x).mean(1))


ATTENTION = ["block.self_attn.in_proj_weight", "block.self_attn.out_proj.weight"]


def test_what_its_projections_read_is_seen() -> None:
    network = TorchNetwork.of(Net(), Samples((X,), Y))
    layers = {layer.weight: layer for layer in network.graph().layers()}
    costs = network.sensitivities(ATTENTION, DATA.train, 64, named("accuracy").loss)
    assert list(costs) == ATTENTION
    moments = network.moments(layers[ATTENTION[0]], network, DATA.train, 64, costs[ATTENTION[0]])
    assert moments is not None
    norm = Net().block.norm1
    rows = norm(torch.from_numpy(X)).detach().numpy().reshape(-1, 8)
    np.testing.assert_allclose(moments.second[0], 5 * np.cov(rows.T, bias=True), atol=1e-4)  # of five places a sample


def test_they_are_done_in_integers() -> None:
    step = Quantize(weights=Int(bits=8, reduce_range=True), activations=INTEGERS, method=OptimalBrain())
    result = whit.compress(Net(), step, data=DATA)
    assert result.ledger.rounded().keys() >= set(ATTENTION)
    names = [name.split(".", 1)[1] for name in result.ledger.activations()]
    assert names.count("layer_norm") == 2
    assert "scaled_dot_product_attention" in names
    assert result.parity.agreement == 1


def test_heads_go_and_products_stand_for_layers_that_its_code_looks_at() -> None:
    plan = Plan(Prune(amount=0.5, unit="channel"), Factorize(energy=0.8))
    result = whit.compress(Net(), plan, data=DATA)
    factored = [one.layer for one in result.ledger if isinstance(one, Factored)]
    assert {"block.linear1", "block.linear2"} <= set(factored)
    layer = result.model.block.linear1
    assert layer.weight.shape == (layer.out_features, layer.in_features) == (8, 8)
    torch.testing.assert_close(layer.bias, layer[1].bias)
    x = torch.from_numpy(X)
    with torch.no_grad():
        torch.testing.assert_close(nn.functional.linear(x, layer.weight, layer.bias), layer(x), rtol=0, atol=1e-6)
        fast = result.model(x)  # by the product, without gradients
    torch.testing.assert_close(result.model(x), fast, rtol=0, atol=1e-5)
