"""Residual branches left out of eager modules: the same as a branch of zeros, in memory, in files and in runtimes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import whit
from whit import Data, Finetune, FoldBatchNorm, Int, ModelError, Plan, PlanError, Prune, Quantize, Rule
from whit.decide.depth import branches
from whit.decide.scoring import Evidence
from whit.graph.residuals import residuals
from whit.ledger import Ledger, LeftOut, Masked
from whit.metrics import divergence
from whit.progress import Progress
from whit.torch.edit import apply_
from whit.torch.network import TorchNetwork

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(128, 6, 8, 8)).astype(np.float32)
Y = X.mean((2, 3)).argmax(1)
DATA = Data.of(X, Y, X[:64], Y[:64])
EVIDENCE = Evidence(samples=DATA.train, most=64, loss="cross_entropy")


class Block(nn.Module):
    """``relu(x + f(x))`` in a module of its own."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.inner = nn.Conv2d(8, 12, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.outer = nn.Conv2d(12, 8, 1)
        for parameter in self.outer.parameters():
            parameter.data *= size

    def forward(self, x: Tensor) -> Tensor:
        y = self.outer(F.relu(self.norm(self.inner(x)), inplace=True))
        y += x
        return F.relu(y)


class Net(nn.Module):
    """Blocks of which the second makes least, and behind them branches without a module of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(6, 8, 3, padding=1)
        self.blocks = nn.Sequential(Block(1.0), Block(0.01), Block(3.0))
        self.norm = nn.LayerNorm(8)
        self.up, self.down = nn.Linear(8, 24), nn.Linear(24, 8)
        self.scale = nn.Parameter(torch.full((8,), 0.5))
        self.head = nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.stem(x)))
        x = x.flatten(2).transpose(1, 2)
        x = x + self.scale * self.down(F.gelu(self.up(self.norm(x))))
        return self.head(x.mean(1))


class Fixed(nn.Module):
    """Its code asks a layer of the branch for a number, so it cannot do without it."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Linear(6, 6)
        self.head = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = x.mean((2, 3))
        return self.head(x + self.only(x) * self.only.out_features)


def seeded(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval()


@pytest.fixture(scope="module")
def network() -> TorchNetwork:
    return TorchNetwork.of(seeded(Net), DATA.train)


def chosen(step: Prune, network: TorchNetwork) -> tuple[list[LeftOut], list[str]]:
    """What a step leaves out, and why it cannot leave out more."""
    decisions, skipped = branches(step, network, EVIDENCE, Progress())
    return decisions, [f"{one.layer}: {one.reason}" for one in skipped]


@pytest.fixture(scope="module")
def three(network: TorchNetwork) -> list[LeftOut]:
    """Three of four branches, in the order in which they go."""
    return chosen(Prune(amount=0.75, unit="residual"), network)[0]


def without(network: TorchNetwork, decisions: list[LeftOut]) -> TorchNetwork:
    other = network.copy()
    other.apply_(decisions)
    return other


def outputs(module: nn.Module) -> np.ndarray:
    with torch.no_grad():
        return module(torch.from_numpy(X)).numpy()


def with_zeros(*names: str) -> np.ndarray:
    """What the network computes with zeros in these parameters."""
    net = seeded(Net)
    for name in names:
        net.get_parameter(name).data.zero_()
    return outputs(net)


def test_branches_are_found_whether_or_not_they_are_modules(network: TorchNetwork) -> None:
    found = residuals(network.graph())
    assert [one.name for one in found] == ["blocks.0.inner", "blocks.1.inner", "blocks.2.inner", "up"]
    assert found[0].layers == ("blocks.0.inner", "blocks.0.outer")


def test_the_branch_that_makes_least_goes_first_and_its_module_hands_on_what_it_reads(
    network: TorchNetwork, three: list[LeftOut]
) -> None:
    assert three[0] == LeftOut(branch="blocks.1.inner", identity=("blocks.1",), zeros=())
    found = outputs(without(network, three[:1]).module)
    np.testing.assert_allclose(found, with_zeros("blocks.1.outer.weight", "blocks.1.outer.bias"), atol=1e-5)


def test_the_next_is_the_one_that_is_missed_least_beside_those_that_are_gone(
    network: TorchNetwork, three: list[LeftOut]
) -> None:
    before = network.predict(DATA.train, 64)
    left = chosen(Prune(amount=0.99, unit="residual"), network)[0]
    assert left == three  # 0.99 of four are three
    second = [[three[0], one] for one in (three[1], three[2])]
    nearer, farther = (
        divergence("cross_entropy", before, without(network, some).predict(DATA.train, 64)) for some in second
    )
    assert nearer <= farther


def test_a_branch_without_a_module_of_its_own_gives_zeros(network: TorchNetwork, three: list[LeftOut]) -> None:
    (plain,) = [one for one in three if one.zeros]
    assert plain == LeftOut(branch="up", identity=("norm", "up"), zeros=("down",))
    found = without(network, [plain])
    np.testing.assert_allclose(outputs(found.module), with_zeros("down.weight", "down.bias"), atol=1e-5)
    assert not {"zeros", "layer_norm", "gelu"} & {one.kind for one in found.graph().operations}


def test_a_budget_of_multiply_accumulates_is_kept_by_as_few_branches_as_it_takes(network: TorchNetwork) -> None:
    before, each = network.graph().macs(), 64 * 8 * 12 * (9 + 1)
    decisions, _ = chosen(Prune(amount=0.75, unit="residual", macs=1 - 1.5 * each / before), network)
    assert without(network, decisions).graph().macs() == before - 2 * each
    with pytest.raises(PlanError, match=r"without 1 of 4 branches the network still takes 0\.\d+ of its multiply"):
        chosen(Prune(amount=0.25, unit="residual", macs=0.1), network)


def test_what_the_code_cannot_do_without_stays_with_the_reason() -> None:
    decisions, skipped = chosen(Prune(amount=0.9, unit="residual"), TorchNetwork.of(seeded(Fixed), DATA.train))
    assert decisions == []
    assert skipped == ["only: the network's code cannot do without the branch that it begins"]


def test_layers_that_a_rule_leaves_alone_keep_their_branches(network: TorchNetwork, three: list[LeftOut]) -> None:
    rules = (Rule(layers=r"blocks\.1\.outer"),)
    decisions, _ = chosen(Prune(amount=0.7, unit="residual", rules=rules), network)
    assert len(decisions) == 2
    assert three[0] not in decisions


def test_it_goes_with_cut_channels_training_and_integers_and_comes_back_from_a_file(tmp_path: Path) -> None:
    plan = Plan(
        Prune(amount=0.75, unit="residual"),
        FoldBatchNorm(),
        Prune(amount=0.3, unit="channel"),
        Finetune(epochs=1),
        Quantize(weights=Int(bits=8, reduce_range=True), activations=Int(bits=8, symmetric=False, per="tensor")),
    )
    result = whit.compress(seeded(Net), plan, data=DATA)
    assert [type(one) for one in result.ledger.structure][:3] == [LeftOut] * 3
    assert result.parity.agreement >= 0.99
    kinds = [node.op_type for node in onnx.load_from_string(result.onnx).graph.node]
    assert kinds.count("Conv") == 3  # the stem and the one block that stays
    assert not {"Expand", "LayerNormalization", "Gelu"} & set(kinds)
    path = tmp_path / "model.whit"
    whit.save(result, path)
    again = whit.load(path, into=seeded(Net))
    np.testing.assert_array_equal(outputs(again), outputs(result.model))


def test_decisions_on_parameters_that_are_gone_are_gone(three: list[LeftOut]) -> None:
    masks = [Masked(parameter=f"blocks.{n}.inner.weight", mask=np.zeros(1, np.bool_)) for n in (1, 11)]
    assert list(Ledger().record(*masks, three[0])) == [three[0], masks[1]]


def test_another_network_than_was_compressed_is_refused(three: list[LeftOut]) -> None:
    with pytest.raises(ModelError, match=r"Sequential has no module blocks\.1, which the decision leaves out"):
        apply_(nn.Sequential(nn.ModuleDict({})), [replace(three[0], identity=("blocks.1",))])
