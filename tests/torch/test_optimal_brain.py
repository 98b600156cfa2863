"""Optimal-brain rounding of whole networks: what it sees, what it minimises, and how it reaches a size."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import whit
from whit import Finetune, Int, Nearest, OptimalBrain, Plan, PlanError, Prune, Quantize, Rule
from whit.data import Samples
from whit.moments import Moments
from whit.torch.moments import moments, sensitivities
from whit.torch.network import TorchNetwork

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.normal(size=(96, 3, 8, 8)).astype(np.float32)
LABELS = RANDOM.integers(0, 4, 96)


SAMPLES = Samples((IMAGES,), LABELS)
Convolutions = Callable[[int], nn.Module]


@pytest.fixture
def network(convolutions: Convolutions) -> TorchNetwork:
    return TorchNetwork.of(convolutions(0), SAMPLES)


def seen(network: TorchNetwork) -> dict[str, Moments]:
    layers = network.graph().layers()
    costs = network.sensitivities([layer.weight for layer in layers], SAMPLES, 96, "cross_entropy")
    # Every place counts here, also where all that is made of it is cut off.
    costs = {name: replace(one, places=tuple(map(np.ones_like, one.places))) for name, one in costs.items()}
    found = {layer.name: network.moments(layer, network, SAMPLES, 96, costs[layer.weight]) for layer in layers}
    return {name: one for name, one in found.items() if one is not None}


@pytest.mark.parametrize("name", ["plain", "dilated", "depthwise", "grouped", "head"])
def test_moments_give_the_energy_of_what_a_layer_makes(name: str, network: TorchNetwork) -> None:
    layer = network.module.get_submodule(name)
    made: list[Tensor] = []
    layer.register_forward_hook(lambda _, args, out: made.append(out.detach()))
    network.predict(SAMPLES)
    one = seen(network)[name]
    weight = layer.weight.detach().double().reshape(layer.weight.shape[0], -1)
    groups = len(one.second)
    rows = weight.reshape(groups, -1, weight.shape[1])
    energy = torch.einsum("grc,gcd,grd->gr", rows, torch.from_numpy(one.second), rows).reshape(-1)
    out = torch.cat([x for x in made if x.shape[0] == 96][-1:]).double()
    flat = (out if out.dim() == 4 else out[:, :, None, None]).permute(1, 0, 2, 3).reshape(out.shape[1], -1)
    centred = flat - flat.mean(1, keepdim=True) if layer.bias is not None else flat
    expected = centred.square().sum(1) / 96
    torch.testing.assert_close(energy, expected, rtol=1e-4, atol=1e-7)


def test_sensitivities_foretell_how_the_loss_grows(network: TorchNetwork) -> None:
    module, x = network.module, torch.from_numpy(IMAGES)
    found = sensitivities(module, [(x,)], ["head.weight"], "cross_entropy")["head.weight"]
    likely = torch.softmax(module(x).detach() / 4, 1)
    # For the last layer the curvature is that of the softmax at temperature 4 itself: half of E[p (1 - p)],
    # with one probe a sample.
    expected = (likely * (1 - likely)).mean(0).numpy() / 2
    assert np.allclose(found.rows, expected, rtol=0.5)


def test_what_lies_behind_a_mask_counts_nothing() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            there = torch.tensor([1.0, 0.0])
            return (self.layer(x) * there[:, None]).sum(1)

    torch.manual_seed(0)
    x = RANDOM.normal(size=(64, 2, 3)).astype(np.float32)
    samples = Samples((x,), np.zeros((64, 2), np.float32))
    net = TorchNetwork.of(Masked(), samples)
    layer = net.graph().layers()[0]
    cost = net.sensitivities([layer.weight], samples, 64, "mean_squared_error")[layer.weight]
    one = moments(net.module, net.module, [(torch.from_numpy(x),)], layer, cost)
    assert one is not None
    np.testing.assert_allclose(one.mean[0], x[:, 0].mean(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("target", [Int(bits=3), Int(bits=3, symmetric=False), Int(bits=4, per="tensor")])
def test_without_a_price_it_beats_rounding_to_nearest(target: Int, network: TorchNetwork) -> None:
    matrix = network.values()["dilated.weight"].reshape(8, -1)
    one = seen(network)["dilated"]

    def loss(codes: whit.formats.Codes) -> float:  # type: ignore[name-defined]
        error = (matrix - target.dequantize(*codes)).astype(np.float64)
        return float(np.einsum("rc,cd,rd->", error, one.second[0], error))

    assert loss(OptimalBrain().quantize(matrix, target, one)) < loss(Nearest().quantize(matrix, target))


def test_a_higher_price_takes_fewer_bits(network: TorchNetwork) -> None:
    matrix = network.values()["plain.weight"].reshape(8, -1)
    one = seen(network)["plain"]
    bits = [
        whit._core.model_bits(OptimalBrain(rate=rate).quantize(matrix, Int(bits=8), one).codes)
        for rate in (1e-10, 1e-9, 1e-8, 1e-7)
    ]
    assert bits == sorted(bits, reverse=True)
    assert bits[-1] < 0.5 * bits[0]


def test_zeros_stay_zero(network: TorchNetwork) -> None:
    matrix = np.array(network.values()["plain.weight"].reshape(8, -1))
    matrix[::2, ::3] = 0
    for target in (Int(bits=8), Int(bits=4, symmetric=False)):
        codes = OptimalBrain(rate=1e-7).quantize(matrix, target, seen(network)["plain"])
        assert (target.dequantize(*codes)[matrix == 0] == 0).all()


def nothing(rows: int, columns: int) -> Moments:
    zeros = np.zeros((1, columns, columns))
    return Moments(second=zeros, cross=zeros, mean=zeros[:, 0], original=zeros[:, 0], sensitivity=np.zeros(rows))


@pytest.mark.parametrize("rate", [0.0, 1e-3])
@pytest.mark.parametrize("weights", [np.zeros((2, 3)), np.full((2, 3), 0.5), np.full((2, 3), 1e30)])
def test_a_singular_second_moment_and_constant_weights_have_a_result(weights: np.ndarray, rate: float) -> None:
    codes = OptimalBrain(rate=rate).quantize(weights.astype(np.float32), Int(bits=8), nothing(2, 3))
    assert np.isfinite(Int(bits=8).dequantize(*codes)).all()
    if rate == 0:
        np.testing.assert_allclose(Int(bits=8).dequantize(*codes), weights, rtol=0.01)


def test_without_moments_it_says_so() -> None:
    with pytest.raises(PlanError, match="needs to see what a layer reads"):
        OptimalBrain().quantize(np.ones((2, 2), np.float32), Int(bits=8))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OptimalBrain(rate=-1.0), "rate=-1.0"),
        (lambda: OptimalBrain(damping=0.0), "damping=0.0.*positive"),
        (lambda: OptimalBrain(sweeps=0), "sweeps=0"),
        (lambda: Quantize(target_bytes=100), "only OptimalBrain"),
        (lambda: Quantize(method=OptimalBrain(), target_bytes=0), "target_bytes=0"),
        (lambda: Finetune(epochs=1, rate=1e-8, trains="scales"), "only codes take bits"),
        (lambda: Finetune(epochs=1, samples=0), "samples=0"),
        (lambda: Finetune(epochs=1, augment=("turn",)), "augment='turn'"),  # type: ignore[arg-type]
        (lambda: Plan(Finetune(epochs=1, rate=1e-8), Quantize()), "after Quantize"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        make()


@pytest.fixture
def problem(convolutions: Convolutions) -> tuple[nn.Module, whit.Data]:
    return convolutions(1), whit.Data.of(IMAGES[:64], LABELS[:64], IMAGES[64:], LABELS[64:])


def test_a_file_of_the_size_that_was_asked_for(problem: tuple[nn.Module, whit.Data]) -> None:
    module, data = problem
    result = whit.compress(module, Quantize(method=OptimalBrain(), samples=64, target_bytes=1500), data=data)
    assert 1400 < len(result.file) <= 1500


def test_training_at_a_price_shrinks_the_codes_and_masks_hold(problem: tuple[nn.Module, whit.Data]) -> None:
    module, data = problem
    quantize = Quantize(method=OptimalBrain(rate=1e-12), samples=64)
    teach = whit.Distill(temperature=1.0)
    train = Finetune(
        epochs=20, rate=1e-3, trains="both", learning_rate=5e-3, batch_size=32, distill=teach, augment=("flip", "shift")
    )
    prune = Prune(amount=0.3)
    before, after = (
        whit.compress(module, Plan(prune, *steps), data=data) for steps in ((quantize,), (quantize, train))
    )
    bits = [
        sum(whit._core.model_bits(one.codes) for one in result.ledger.rounded().values()) for result in (before, after)
    ]
    assert bits[1] < 0.9 * bits[0]
    for name, masked in after.ledger.masks().items():
        assert (after.ledger.rounded()[name].values()[~masked.mask] == 0).all()
    for one in after.ledger.rounded().values():
        assert whit.formats.is_short(one.scale)  # type: ignore[attr-defined]


def test_scales_alone_leave_the_codes(problem: tuple[nn.Module, whit.Data]) -> None:
    module, data = problem
    quantize = Quantize(method=OptimalBrain(rate=1e-9), samples=64)
    step = Finetune(epochs=5, learning_rate=0.05, batch_size=16, trains="scales", samples=40, distill=whit.Distill())
    before, after = (whit.compress(module, Plan(*steps), data=data) for steps in ((quantize,), (quantize, step)))
    for name, one in after.ledger.rounded().items():
        np.testing.assert_array_equal(one.codes, before.ledger.rounded()[name].codes)
    assert any(
        not np.array_equal(one.scale, before.ledger.rounded()[name].scale)
        for name, one in after.ledger.rounded().items()
    )


class Words(nn.Module):
    """A table of embeddings before a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.table(words).mean(1))


def test_a_table_of_embeddings_is_quantized_exported_and_run() -> None:
    torch.manual_seed(0)
    words, labels = RANDOM.integers(0, 15, (80, 5)), RANDOM.integers(0, 3, 80)
    data = whit.Data.of(words[:60], labels[:60], words[60:], labels[60:])
    result = whit.compress(Words(), Quantize(method=OptimalBrain(rate=1e-6), samples=60), data=data)
    assert set(result.ledger.rounded()) == {"table.weight", "head.weight"}
    assert result.parity.agreement == 1.0


def test_rules_mix_methods(problem: tuple[nn.Module, whit.Data]) -> None:
    module, data = problem
    rules = (Rule(layers="head", use=Quantize(weights=Int(bits=8))), Rule(layers="plain"))
    plan = Plan(Quantize(method=OptimalBrain(), samples=32, rules=rules))
    result = whit.compress(module, plan, data=data)
    assert "plain.weight" not in result.ledger.rounded()
    head = module.get_parameter("head.weight").detach().numpy()
    nearest = Nearest().quantize(head, Int(bits=8))
    np.testing.assert_array_equal(result.ledger.rounded()["head.weight"].codes, nearest.codes)
