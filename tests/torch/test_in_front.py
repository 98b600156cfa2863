"""Channels that are divided in front of layers: which, what it leaves the same, what it is worth, and where it runs."""

import copy
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import whit
from whit import (
    AWQ,
    Equalize,
    Finetune,
    Int,
    LearnedRounding,
    Plan,
    PlanError,
    Prune,
    Quantize,
    Rule,
    SmoothQuant,
    runtime,
)
from whit.cli.inspection import describe
from whit.data import Samples
from whit.decide.equalize import equalize
from whit.export import exporters
from whit.graph import placement
from whit.graph.coupling import couple
from whit.ledger import Scaled, Span
from whit.scalings import Channels, Scaling
from whit.torch.network import TorchNetwork

RANDOM = np.random.default_rng(0)
WORDS = RANDOM.integers(0, 12, (48, 6))
LABELS = RANDOM.integers(0, 3, 48)
WIDE = 20
BYTE = Int(bits=8, symmetric=False, per="tensor")
INTEGERS = Quantize(weights=Int(bits=8), activations=BYTE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Halves(Scaling):
    """Every other channel is divided by two."""

    def factors(self, channels: Channels) -> np.ndarray:
        return 2.0 ** (np.arange(channels.largest.size) % 2)


class Encoder(nn.Module):
    """Two layers of attention's kind read what a shortcut reads, so does a convolution; one channel is wide."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(12, 8)
        self.norms = nn.ModuleList(nn.LayerNorm(8) for _ in range(3))
        self.query, self.key, self.out = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.conv = nn.Conv1d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 3)
        with torch.no_grad():
            for norm in self.norms[:2]:
                norm.weight[3] = WIDE
            for layer in (self.query, self.key, self.conv):
                layer.weight[:, 3] /= WIDE

    def forward(self, words: Tensor) -> Tensor:
        x = self.norms[0](self.table(words))
        x = self.norms[1](x + self.out(torch.tanh(self.query(x)) * torch.tanh(self.key(x))))
        y = x.transpose(1, 2)
        return self.head(self.norms[2]((y + torch.tanh(self.conv(y))).transpose(1, 2)).mean(1))


def network(kind: type[nn.Module] = Encoder, seed: int = 0) -> tuple[TorchNetwork, Samples]:
    torch.manual_seed(seed)
    samples = Samples((WORDS,), LABELS)
    return TorchNetwork.of(kind(), samples), samples


def divided(net: TorchNetwork, samples: Samples, by: Scaling, layers: str) -> list[Scaled]:
    """The decisions in front of layers, taken by the network too."""
    decisions = equalize(Equalize(by=by, in_front=layers, samples=48), net, samples, "cross_entropy")[0]
    net.apply_(decisions)
    return [one for one in decisions if one.inputs]


LAYERS = "query|key|conv"


def test_layers_that_read_one_value_are_divided_alike_and_those_whose_makers_can_be_are_not() -> None:
    net, samples = network()
    found = divided(net, samples, Halves(), ".*")
    assert [(one.group, one.made, one.read) for one in found] == [
        ("query", (), (Span("query.weight", 1), Span("key.weight", 1))),
        ("out", (), (Span("out.weight", 1),)),
        ("conv", (), (Span("conv.weight", 1),)),
    ]
    assert [sorted(one.inputs.values()) for one in found] == [[0, 0], [0], [1]]
    assert found[0].quarters.tolist() == [0, 4] * 4


@pytest.mark.parametrize("by", [SmoothQuant(), SmoothQuant(alpha=1.0), AWQ(), Halves()], ids=str)
def test_the_network_computes_the_same(by: Scaling) -> None:
    net, samples = network()
    before, graph = net.predict(samples), net.graph()
    assert divided(net, samples, by, LAYERS)
    np.testing.assert_allclose(net.predict(samples), before, rtol=1e-4, atol=1e-5)
    # What was there has the name that it had, and what is divided has that of what the layers read.
    more = [one for one in net.graph().operations if one.output not in graph.tensors]
    assert [one.kind for one in more] == ["mul", "mul", "mul"]
    assert {one.output for one in more} == {
        one.own_input for one in net.graph().matrix_operations() if one.layer in ("query", "key", "conv")
    }
    assert {one.output for one in graph.operations} < {one.output for one in net.graph().operations}


def test_factors_in_front_of_a_layer_add_up() -> None:
    net, samples = network()
    before, weight = net.predict(samples), np.array(net.values()["query.weight"])
    for _ in range(2):
        divided(net, samples, Halves(), "query")
    np.testing.assert_array_equal(net.values()["query.weight"], weight * np.array([1, 4] * 4))
    np.testing.assert_allclose(net.predict(samples), before, rtol=1e-4, atol=1e-5)


def test_what_is_divided_is_rounded_for_its_layers_alone() -> None:
    net, samples = network()
    names = {one.layer: one.own_input for one in net.graph().matrix_operations()}
    source = next(one.inputs[0] for one in net.graph().matrix_operations() if one.layer == "query")
    divided(net, samples, SmoothQuant(), "query|key")
    assert {names["query"], names["key"]} <= (
        rounded := placement.rounded_activations(net.graph(), {"query.weight", "key.weight"})
    ).keys()
    assert source not in rounded  # so that the shortcut reads it as it is


@pytest.mark.parametrize("seed", range(4))
def test_a_wide_channel_costs_the_others_nearly_nothing(seed, taken) -> None:
    torch.manual_seed(seed)
    module, data = Encoder(), whit.Data.of(WORDS, LABELS, WORDS, LABELS)
    before = TorchNetwork.of(module, data.train).predict(data.test)
    only = Quantize(weights=None, activations=BYTE, rules=(Rule(layers="out|head"),))
    plain, scaled = (
        np.square(taken(module, data, *more, only).predict(data.test) - before).mean()
        for more in ((), (Equalize(by=SmoothQuant(alpha=1.0), in_front=LAYERS),))
    )
    # A channel that is twenty times as wide costs the others steps as much coarser: errors 400 times as large. Over ten
    # seeds the share was 0.00008 to 0.0014.
    assert scaled < plain / 50


# What cannot be.


class Odd(nn.Module):
    """A layer used twice and a convolution in groups, beside shortcuts."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.norm = nn.Embedding(12, 8), nn.LayerNorm(8)
        self.twice, self.grouped, self.head = nn.Linear(8, 8), nn.Conv1d(8, 8, 1, groups=2), nn.Linear(8, 3)

    def forward(self, words: Tensor) -> Tensor:
        x = self.norm(self.table(words))
        x = x + torch.tanh(self.twice(torch.tanh(self.twice(x))))
        x = self.norm(x)
        y = x.transpose(1, 2)
        return self.head((y + torch.tanh(self.grouped(y))).mean(2))


def test_layers_that_cannot_be_divided_in_front_of_are_named() -> None:
    net, samples = network(Odd)
    found, skipped = equalize(Equalize(by=Halves(), in_front=".*"), net, samples, "cross_entropy")
    assert [one.group for one in found] == ["head"]
    reasons = {one.layer: one.reason for one in skipped}
    assert reasons["twice"] == "it is used more than once, and what it reads each time may need other factors"
    assert reasons["grouped"] == "its groups share columns"


def test_an_expression_that_matches_no_layer_is_an_error() -> None:
    with pytest.raises(
        PlanError, match=r"in_front='table' matches no layer; the layers are query, key, out, conv, hea"
    ):
        equalize(Equalize(by=SmoothQuant(), in_front="table"), *network(), "cross_entropy")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Equalize(by=SmoothQuant(), in_front="("), r"Equalize\(in_front='\('\) is not a regular expression"),
        (lambda: Equalize(in_front="a"), r"nothing that makes the channels can be scaled there.*by=SmoothQuant\(\)"),
    ],
)
def test_settings_that_cannot_be_are_refused(make, message) -> None:
    with pytest.raises(PlanError, match=message):
        make()


def test_channels_that_are_divided_in_front_of_a_layer_are_not_cut() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.one, self.two = nn.Embedding(12, 8), nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, words: Tensor) -> Tensor:
            return self.two(torch.tanh(self.one(self.table(words)))).mean(1)

    net, samples = network(Plain)
    assert "one" in {group.name for group in couple(net.graph()).groups}
    divided(net, samples, Halves(), "two")
    found = couple(net.graph())
    assert "one" not in {group.name for group in found.groups}
    assert "one" in found.frozen


# Steps that follow, and files.


def delivered(*steps: whit.steps.Step) -> whit.Result[Encoder]:
    torch.manual_seed(0)
    plan = Plan(Equalize(by=SmoothQuant(), in_front=LAYERS, samples=48), *steps)
    return whit.compress(Encoder(), plan, data=whit.Data.of(WORDS, LABELS, WORDS, LABELS))


@pytest.fixture(scope="module")
def result() -> whit.Result[Encoder]:
    return delivered(INTEGERS)


def replays(result: whit.Result[Encoder], folder: Path) -> None:
    """The file holds the network that the result is."""
    assert result.parity.agreement == 1.0
    whit.save(result, folder / "model.whit")
    torch.manual_seed(1)
    loaded = whit.load(folder / "model.whit", into=Encoder())
    words = torch.from_numpy(WORDS)
    with torch.no_grad():
        assert torch.equal(loaded(words), result.model(words))
    found = describe(folder / "model.whit")["structure"]["scaled"]
    assert [one["inputs"] for one in found] == [list(one.inputs) for one in result.ledger.structure]


def test_the_delivered_network_is_the_same_and_replays(result, tmp_path) -> None:
    replays(result, tmp_path)
    alone = runtime.load(tmp_path / "model.whit")
    np.testing.assert_allclose(alone(WORDS), result.model(torch.from_numpy(WORDS)).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize(
    "steps",
    [
        (Quantize(weights=Int(bits=4), activations=BYTE, method=LearnedRounding(iterations=20)),),
        (Prune(amount=0.3), INTEGERS, Finetune(epochs=1)),
    ],
    ids=["learned rounding", "training"],
)
def test_what_later_steps_make_of_it_replays(steps, tmp_path) -> None:
    replays(delivered(*steps), tmp_path)


def test_in_the_file_one_division_and_one_rounding_serve_all_layers_that_read_a_value(result) -> None:
    nodes = onnx.load_model_from_string(result.onnx).graph.node
    makers = {node.output[0]: node for node in nodes}
    inputs = [node.input[0] for node in nodes if node.op_type == "MatMul"]
    assert inputs[0] == inputs[1]
    rounded = makers[makers[inputs[0]].input[0]]
    assert (rounded.op_type, makers[rounded.input[0]].op_type) == ("QuantizeLinear", "Mul")


@pytest.mark.parametrize(
    ("to", "package"),
    [("openvino", "openvino"), ("litert", "ai_edge_litert"), ("executorch", "executorch")],
    ids=["openvino", "litert", "executorch"],
)
def test_other_runtimes_divide_too(to, package, result, tmp_path) -> None:
    if find_spec(package) is None:
        pytest.skip(f"pip install 'whit[{to}]'")
    path = (tmp_path / "model").with_suffix(exporters()[to].suffix)
    made = whit.export(result, path, to=to, samples=WORDS)
    assert made.parity is not None
    assert made.parity.agreement == 1.0


def test_a_copy_divides_on_its_own_and_another_path_is_an_error() -> None:
    net, samples = network()
    words = torch.from_numpy(WORDS)
    divided(net, samples, Halves(), "query")
    twin = copy.deepcopy(net.module)
    assert torch.equal(twin(words), net.module(words))
    twin.forward = lambda words: F.relu(twin.table(words)).mean()
    with pytest.raises(whit.ModelError, match=r"no longer computes 2.linear.input, which this network rounds or divid"):
        twin(words)
