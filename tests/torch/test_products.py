"""Plain products with parameters, such as GPT-2's layers: counted, pruned, rounded and trained as others are."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import whit
from whit import Codebook, Data, Finetune, Int, OptimalBrain, Plan, Prune, Quantize, Rule, formats
from whit.data import Samples
from whit.decide import layer_names, weights_beside
from whit.formats import Format
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


def test_what_cannot_be_done_with_them_is_said() -> None:
    step = Quantize(activations=Int(bits=8, symmetric=False, per="tensor"))
    result = whit.compress(Products(), Plan(step), data=DATA)
    assert {(one.layer, one.reason) for one in result.skipped} == {
        (name, "only convolutions and linear layers run in integers, so its activations stay in floating point")
        for name in ("up", "down", "mixed", "head")
    }
    plan = Plan(Quantize(method=OptimalBrain(), rules=(Rule(layers="up|down", use=Quantize()),)))
    result = whit.compress(Products(), plan, data=DATA)
    assert result.ledger.rounded().keys() == {"up.weight", "down.weight"}
    assert {one.layer for one in result.skipped} == {"mixed", "head"}
    assert all("method=Nearest()" in one.reason for one in result.skipped)


def test_what_is_left_of_them_does_not_make_up_for_what_went() -> None:
    result = whit.compress(Products(), Plan(Prune(amount=0.5, compensate=True)), data=DATA)
    assert result.ledger.masks().keys() == NAMES
    assert [one.layer for one in result.skipped] == ["up", "down", "mixed", "head"]


def test_their_products_are_counted_and_rules_know_their_names() -> None:
    net = TorchNetwork.of(Products(), Samples((X[:2],), Y[:2]))
    assert net.graph().macs() == 5 * (8 * 12 + 12 * 8 + 8 * 6) + 6 * 2
    assert layer_names(net.graph(), weights_beside(net.graph(), net)) == ["up", "down", "mixed", "head"]


def test_channels_between_them_are_cut_until_a_share_is_left() -> None:
    plan = Plan(Prune(amount=0.9, unit="channel", scope="global", macs=0.6))
    result = whit.compress(Products(), plan, data=DATA)
    assert 0.4 < result.after.macs / result.before.macs <= 0.6
