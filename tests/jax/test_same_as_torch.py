"""The same plan gives the same decisions from both frontends, bit for bit."""

from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

import whit
import whit.jax
from whit import Int, Nearest, Plan, Prune, Quantize, Rule, decide
from whit.data import Samples
from whit.decide import pruning
from whit.decide.scoring import Evidence
from whit.formats import BF16, FP8_E4M3, MXFP6_E3M2, MXINT8, NVFP4, Codebook
from whit.ledger import Ledger
from whit.torch.network import TorchNetwork

BITS = tuple(range(2, 9))


class Net(nn.Module):
    """A linear layer for every width of a code, each of another size, and a convolution."""

    def __init__(self):
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(11 + bits, 12 + bits) for bits in BITS)
        self.conv = nn.Conv1d(3, 5, 2)

    def forward(self, x):
        for linear in self.linears:
            x = torch.relu(linear(x))
        return self.conv(x.reshape(-1, 1, x.shape[-1]).expand(-1, 3, -1))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    inputs = np.random.default_rng(0).normal(size=(4, 11 + BITS[0])).astype(np.float32)
    samples = Samples((inputs,), np.zeros((4, 1), np.float32))
    return TorchNetwork.of(Net(), samples), samples


def nested(module):
    """A module's state as the pytree whose paths are the state's names."""
    state = {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}
    linears = [{part: state[f"linears.{place}.{part}"] for part in ("weight", "bias")} for place in range(len(BITS))]
    return {"linears": linears, "conv": {"weight": state["conv.weight"], "bias": state["conv.bias"]}}


def torch_ledger(plan, network, samples):
    network = network.copy()
    ledger = Ledger()
    for step in plan.steps:
        if isinstance(step, Prune):
            evidence = Evidence(samples=samples, most=1, loss="cross_entropy")
            decisions, _ = pruning.single_weights(step, network, ledger, evidence)
        else:
            decisions, skipped = decide.rounding(step, network, ledger, samples, "cross_entropy")
            assert not skipped
        network.apply_(decisions)
        ledger = ledger.record(*decisions)
    return ledger, network.values()


def same(one, other):
    assert (one.dtype, one.shape) == (other.dtype, other.shape)
    assert np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes()


def same_decisions(one, other):
    assert one.masks().keys() == other.masks().keys()
    assert one.rounded().keys() == other.rounded().keys()
    for name, masked in one.masks().items():
        same(masked.mask, other.masks()[name].mask)
    for name, rounded in one.rounded().items():
        found = other.rounded()[name]
        assert (rounded.target, rounded.shape, rounded.axis) == (found.target, found.shape, found.axis)
        for part in ("codes", "scale", "zero_point"):
            same(getattr(rounded, part), getattr(found, part))
        assert (rounded.codebook is None) == (found.codebook is None)
        if rounded.codebook is not None:
            same(rounded.codebook, found.codebook)


GRIDS = ({"per": "tensor"}, {"per": "channel"}, {"per": "group", "group_size": 4})
PRUNES = (
    (),
    (Prune(amount=0.6),),
    (Prune(amount=0.6, scope="global"),),
    (Prune(amount=0.2, rules=(Rule(layers=r"conv(\.weight)?", use=Prune(amount=0.8)),)),),
)


@pytest.mark.parametrize("prune", PRUNES, ids=("dense", "layer", "global", "rules"))
@pytest.mark.parametrize("symmetric", [True, False], ids=("symmetric", "asymmetric"))
@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: grid["per"])
def test_every_grid_and_width(network, grid, symmetric, prune):
    network, samples = network
    rules = tuple(
        Rule(layers=rf"linears\.{place}(\.weight)?", use=Quantize(weights=Int(bits=bits, symmetric=symmetric, **grid)))
        for place, bits in enumerate(BITS)
    )
    plan = Plan(*prune, Quantize(weights=Int(bits=4, symmetric=symmetric, reduce_range=True, **grid), rules=rules))
    expected, values = torch_ledger(plan, network, samples)
    result = whit.jax.compress(nested(network.module), plan, channel_axis=0)
    assert len(expected.rounded()) == len(BITS) + 1
    assert len(expected.masks()) == (len(BITS) + 1 if prune else 0)
    same_decisions(expected, result.ledger)
    for name, leaf in whit.jax.pytree.arrays_of(result.params).items():
        np.testing.assert_array_equal(leaf, values[name])


@pytest.mark.parametrize(
    "target",
    [Int(bits=1), Int(bits=16), MXINT8, BF16, FP8_E4M3, MXFP6_E3M2, NVFP4, Codebook(k=5), Codebook(k=9, per="channel")],
    ids=str,
)
@pytest.mark.parametrize("clip", ["max", "mse"])
def test_every_format(network, target, clip):
    network, samples = network
    step = Quantize(weights=target, method=Nearest(clip=clip))
    expected, values = torch_ledger(Plan(step), network, samples)
    result = whit.jax.compress(nested(network.module), step, channel_axis=0)
    same_decisions(expected, result.ledger)
    for name, leaf in whit.jax.pytree.arrays_of(result.params).items():
        np.testing.assert_array_equal(leaf, values[name])


def test_a_transposed_kernel_gives_the_same_codes(network):
    """Flax keeps a dense kernel as ``(inputs, outputs)``, torch as ``(outputs, inputs)``."""
    network, _ = network
    weight = network.module.linears[0].weight.detach().numpy()
    for grid in GRIDS:
        step = Quantize(weights=Int(bits=3, symmetric=False, **grid))
        first = whit.jax.compress(weight, step, channel_axis=0).ledger.rounded()["weights"]
        last = whit.jax.compress(weight.T, step).ledger.rounded()["weights"]
        for part in ("codes", "scale", "zero_point"):
            same(getattr(first, part), getattr(last, part))


def test_whole_compress_and_each_others_files(tmp_path):
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    x = np.random.default_rng(1).normal(size=(20, 6)).astype(np.float32)
    data = (x, np.arange(20) % 3)
    plan = Plan(Prune(amount=0.5), Quantize(weights=Int(bits=5)))
    from_torch = whit.compress(module, plan, data=data)
    params = {
        str(place): {name: tensor.detach().numpy() for name, tensor in module[place].state_dict().items()}
        for place in (0, 2)
    }
    from_jax = whit.jax.compress(params, plan, channel_axis=0)
    same_decisions(from_torch.ledger, from_jax.ledger)

    whit.save(from_torch, tmp_path / "torch.whit")
    whit.save(from_jax, tmp_path / "jax.whit")
    loaded = whit.load(tmp_path / "torch.whit", into=params)
    module = whit.load(tmp_path / "jax.whit", into=module)
    for place, part in product((0, 2), ("weight", "bias")):
        np.testing.assert_array_equal(loaded[str(place)][part], from_jax.params[str(place)][part])
        expected = getattr(from_torch.model[place], part).detach().numpy()
        np.testing.assert_array_equal(getattr(module[place], part).detach().numpy(), expected)
