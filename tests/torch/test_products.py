"""Plain products with parameters, such as GPT-2's layers: counted, pruned, rounded and trained as others are."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import whit
from whit import (
    Codebook,
    Data,
    Equalize,
    Finetune,
    Int,
    OptimalBrain,
    Plan,
    Prune,
    Quantize,
    Rule,
    SmoothQuant,
    Taylor,
    formats,
)
from whit.data import Samples
from whit.decide import layer_names, weights_beside
from whit.formats import Format
from whit.ledger import Scaled
from whit.torch.network import TorchNetwork

X = np.random.default_rng(0).normal(size=(64, 5, 8)).astype(np.float32)
Y = (X.mean((1, 2)) > 0).astype(np.int64)
DATA = Data.of(X, Y, X[:16], Y[:16])


class Product(nn.Module):
    """What it reads times a matrix of inputs by outputs."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) / inputs**0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight).reshape(*x.shape[:-1], -1)


class Products(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down = Product(8, 12), Product(12, 8)
        self.mixed = nn.Parameter(torch.randn(6, 8) / 3)  # outputs by inputs, for einsum
        self.head = nn.Parameter(torch.randn(6, 2) / 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.down(torch.relu(self.up(x)))
        return torch.relu(torch.einsum("bnk,mk->bnm", x, self.mixed)).mean(1) @ self.head


class Experts(nn.Module):
    """Three experts and two heads, each with a matrix of its own; one parameter holds those of all."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down = nn.Parameter(torch.randn(3, 8, 12) / 3), nn.Parameter(torch.randn(3, 12, 8) / 3)
        self.heads = nn.Parameter(torch.randn(8, 2, 4) / 3)
        self.gate, self.head = nn.Linear(8, 3), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        made = torch.relu(x.unsqueeze(1) @ self.up) @ self.down
        shared = torch.einsum("bend,bne->bnd", made, torch.softmax(self.gate(x), -1))
        heads = torch.einsum("bnd,dhk->bnhk", x, self.heads)
        return self.head((shared + heads.flatten(2)).mean(1))


NAMES = {"up.weight", "down.weight", "mixed", "head"}
FORMATS = (Int(bits=8), Int(bits=4, per="group", group_size=4, symmetric=False), formats.NVFP4, Codebook(k=16))


@pytest.mark.parametrize("target", FORMATS, ids=lambda target: target.name)
def test_they_are_rounded_by_output_channel(target: Format, tmp_path: Path) -> None:
    result = whit.compress(Products(), Plan(Quantize(weights=target)), data=DATA)
    found = result.ledger.rounded()
    assert found.keys() == NAMES
    assert {name: one.axis for name, one in found.items()} == {"up.weight": 1, "down.weight": 1, "mixed": 0, "head": 1}
    assert [found[name].codes.shape for name in ("up.weight", "mixed")] == [(12, 8), (6, 8)]
    assert not result.skipped
    assert result.parity.max_abs < 1e-5
    whit.save(result, tmp_path / "model.whit")
    loaded = whit.load(tmp_path / "model.whit", into=Products())
    torch.testing.assert_close(loaded(torch.from_numpy(X)), result.model(torch.from_numpy(X)))


@pytest.mark.parametrize("target", FORMATS, ids=lambda target: target.name)
def test_several_matrices_in_one_parameter_share_the_scales_of_what_they_make(target: Format) -> None:
    result = whit.compress(Experts(), Plan(Quantize(weights=target)), data=DATA)
    found = result.ledger.rounded()
    assert {name: (found[name].axis, found[name].codes.shape) for name in ("up", "down", "heads")} == {
        "up": (2, (12, 3 * 8)),
        "down": (2, (8, 3 * 12)),
        "heads": (2, (4, 8 * 2)),
    }
    assert not result.skipped
    assert result.parity.max_abs < 1e-5


def test_several_matrices_in_one_parameter_are_counted_pruned_and_trained() -> None:
    plan = Plan(Prune(amount=0.5), Quantize(weights=Int(bits=4)), Finetune(epochs=1, trains="both"))
    result = whit.compress(Experts(), plan, data=DATA)
    assert result.before.macs == 5 * (8 * 3 + 3 * 8 * 12 + 3 * 12 * 8 + 8 * 2 * 4) + 8 * 2
    assert result.ledger.masks().keys() == {"gate.weight", "head.weight", "up", "down", "heads"}
    assert result.parity.max_abs < 1e-5
    cut = whit.compress(Experts(), Plan(Prune(amount=0.9, unit="channel", scope="global", macs=0.6)), data=DATA)
    assert 0.4 < cut.after.macs / cut.before.macs <= 0.6


def test_they_are_masked_and_trained_through_their_rounding() -> None:
    plan = Plan(Prune(amount=0.5), Quantize(weights=Int(bits=4)), Finetune(epochs=2, trains="both"))
    result = whit.compress(Products(), plan, data=DATA)
    masks = result.ledger.masks()
    assert masks.keys() == result.ledger.rounded().keys() == NAMES
    for name, decision in result.ledger.rounded().items():
        assert not decision.values()[~masks[name].mask].any()
    assert result.parity.max_abs < 1e-5


INT8 = Quantize(activations=Int(bits=8, symmetric=False, per="tensor"))


def test_they_run_in_integers_and_einsum_in_floating_point() -> None:
    result = whit.compress(Products(), Plan(INT8), data=DATA)
    assert [(one.layer, one.reason) for one in result.skipped] == [
        ("mixed", "only convolutions and linear layers run in integers, so its activations stay in floating point")
    ]
    assert list(result.ledger.activations()) == ["input.0", "3.relu", "10.mean"]  # what up, down and head read
    assert result.ledger.biases().keys() == {"up.bias", "down.bias"}
    assert result.parity.max_abs < 1e-5


@pytest.mark.parametrize("runtime", ["openvino", "litert"])
def test_their_codes_are_those_of_the_file_in_every_runtime(runtime: str, tmp_path: Path) -> None:
    pytest.importorskip({"openvino": "openvino", "litert": "ai_edge_litert"}[runtime])
    net = nn.Sequential(Product(8, 12), nn.ReLU(), Product(12, 2))
    data = Data.of(X[:, 0], Y, X[:16, 0], Y[:16])
    result = whit.compress(net, Plan(INT8), data=data)
    path = tmp_path / f"model.{'xml' if runtime == 'openvino' else 'tflite'}"
    exported = whit.export(result, path, to=runtime, samples=X[:, 0])
    assert exported.parity is not None
    assert exported.parity.agreement == 1


def test_their_codes_make_up_for_one_another() -> None:
    def off(step: Quantize) -> float:
        result = whit.compress(Products(), Plan(step), data=DATA)
        with torch.no_grad():
            return float((result.model(torch.from_numpy(X)) - Products()(torch.from_numpy(X))).square().mean())

    simple = Quantize(weights=Int(bits=3), rules=(Rule(layers="mixed"),))
    careful = Quantize(weights=Int(bits=3), method=OptimalBrain(), rules=(Rule(layers="mixed"),))
    assert off(careful) < 0.7 * off(simple)
    result = whit.compress(Products(), Plan(Quantize(method=OptimalBrain())), data=DATA)
    assert result.ledger.rounded().keys() == NAMES - {"mixed"}
    assert [one.layer for one in result.skipped] == ["mixed"]
    assert "method=Nearest()" in result.skipped[0].reason


def test_what_is_left_of_them_makes_up_for_what_went() -> None:
    result = whit.compress(Products(), Plan(Prune(amount=0.5, compensate=True)), data=DATA)
    assert result.ledger.masks().keys() == NAMES
    assert [one.layer for one in result.skipped] == ["mixed"]
    given = result.ledger.given()
    assert {"up.weight", "up.bias", "down.weight", "down.bias", "head"} <= given
    for name, one in result.ledger.masks().items():
        assert not result.model.get_parameter(name).detach().numpy()[~one.mask].any()


def test_what_they_read_is_divided_in_front_of_them_and_between_them() -> None:
    result = whit.compress(Products(), Plan(Equalize(by=SmoothQuant(), in_front="up|head")), data=DATA)
    scaled = [one for one in result.ledger.structure if isinstance(one, Scaled)]
    assert {(span.name, span.axis) for one in scaled for span in one.read} >= {("up.weight", 0), ("down.weight", 0)}
    expected = Products()(torch.from_numpy(X))
    torch.testing.assert_close(result.model(torch.from_numpy(X)), expected, rtol=1e-4, atol=1e-5)


class Twice(Products):
    """Its first weight stands on the left once, and its second product is weighed against what is added."""

    def forward(self, x: Tensor) -> Tensor:
        x = x + torch.relu(x @ self.up.weight) @ self.up.weight.T
        x = torch.addmm(self.down.bias, x[:, 0].repeat(1, 2)[:, :12], self.down.weight, beta=0.5)
        return x[:, :6] @ self.head


def test_weights_that_something_else_is_done_with_are_no_layers() -> None:
    net = TorchNetwork.of(Twice(), Samples((X[:2],), Y[:2]))
    assert [layer.name for layer in net.graph().layers()] == ["head"]
    result = whit.compress(Twice(), Plan(INT8), data=DATA)
    assert result.ledger.rounded().keys() == {"up.weight", "down.weight", "head"}
    assert result.parity.max_abs < 1e-5


class Filters(nn.Module):
    """Fixed filters in front, which the network's state holds."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.register_buffer("bank", torch.randn(12, 8))
        self.register_buffer("table", torch.randn(12, 12))
        self.head = nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(
            torch.relu(nn.functional.linear(x, self.get_buffer("bank")) @ self.get_buffer("table")).mean(1)
        )


@pytest.mark.parametrize(
    "step", [INT8, Quantize(method=OptimalBrain()), Prune(amount=0.5, score=Taylor())], ids=["int8", "seen", "pruned"]
)
def test_buffers_are_no_weights(step: Quantize | Prune) -> None:
    result = whit.compress(Filters(), Plan(step), data=DATA)
    assert {*result.ledger.rounded(), *result.ledger.masks()} == {"head.weight"}
    before = Filters().state_dict()
    assert all(torch.equal(result.model.state_dict()[name], before[name]) for name in ("bank", "table"))
    assert ["its weights are a buffer, not parameters" in one.reason for one in result.skipped] == [True, True]


def test_their_products_are_counted_and_rules_know_their_names() -> None:
    net = TorchNetwork.of(Products(), Samples((X[:2],), Y[:2]))
    assert net.graph().macs() == 5 * (8 * 12 + 12 * 8 + 8 * 6) + 6 * 2
    assert layer_names(net.graph(), weights_beside(net.graph(), net)) == ["up", "down", "head", "mixed"]


def test_channels_between_them_are_cut_until_a_share_is_left() -> None:
    plan = Plan(Prune(amount=0.9, unit="channel", scope="global", macs=0.6))
    result = whit.compress(Products(), plan, data=DATA)
    assert 0.4 < result.after.macs / result.before.macs <= 0.6
