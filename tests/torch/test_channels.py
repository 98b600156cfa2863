"""Cutting channels out of eager modules: sliced output equals zero-masked output, for every kind of coupling."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import whit
from whit.data import Samples
from whit.decide import Skipped
from whit.decide.channels import Channels, Cut, cutting, macs_after
from whit.decide.proof import proven_cuts
from whit.decide.scoring import Evidence
from whit.errors import PlanError
from whit.graph.coupling import couple
from whit.ledger import Axis, Kept
from whit.steps import Prune, Rule
from whit.torch.edit import tensor_of
from whit.torch.network import TorchNetwork


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 12, 3, padding=1)
        self.outer = nn.Conv2d(12, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.stem(x)))
        y = self.outer(F.relu(self.inner(x)))
        y += x
        return self.head(F.adaptive_avg_pool2d(F.relu(y), 1).flatten(1))


class Branches(nn.Module):
    """Two branches side by side, flattened with their positions into a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 6, 3, padding=1)
        self.right = nn.Conv2d(3, 4, 1)
        self.bn = nn.BatchNorm2d(10)
        self.head = nn.Linear(10 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.left(x), torch.tanh(self.right(x))], dim=1)
        x = F.max_pool2d(torch.sigmoid(self.bn(x)), 2)
        return self.head(x.view(x.size(0), -1))


class Depthwise(nn.Module):
    """A depthwise convolution with two outputs a channel, and one with groups."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.depth = nn.Conv2d(8, 16, 3, groups=8, padding=1)
        self.point = nn.Conv2d(16, 12, 1)
        self.grouped = nn.Conv2d(12, 16, 3, groups=4)
        self.head = nn.Conv2d(16, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.depth(F.relu(self.stem(x))))
        x = F.relu(self.grouped(F.relu(self.point(x))))
        return self.head(F.avg_pool2d(x, 2).mean((2, 3), keepdim=True)).flatten(1)


class Gated(nn.Module):
    """A squeeze-and-excite gate, a scale for every channel, and one layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.down = nn.Linear(8, 4)
        self.up = nn.Linear(4, 8)
        self.scale = nn.Parameter(torch.rand(8, 1, 1) + 0.5)
        self.twice = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        gate = torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3))))))
        x = x * gate.unsqueeze(-1).unsqueeze(-1) * self.scale
        x = F.relu(self.twice(F.relu(self.twice(x))))
        return self.head(x.mean((2, 3)))


class Attention(nn.Module):
    """Heads of one fused layer, counted by numbers that the module keeps, between sequences of pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.features = 2, 6
        self.stem = nn.Linear(3, 10)
        self.qkv = nn.Linear(10, 36)
        self.project = nn.Linear(12, 10)
        self.head = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.flatten(2).transpose(1, 2))
        qkv = self.qkv(x).reshape(*x.shape[:2], 3, self.heads, self.features).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        weights = (query @ key.transpose(-2, -1) * 0.3).softmax(-1)
        mixed = (weights @ value).transpose(1, 2).reshape(*x.shape[:2], self.heads * self.features)
        return self.head(torch.relu(x + self.project(mixed)).mean(1))


class Fused(Attention):
    """Attention in one call, which is scaled by how many features there are: whole heads are cut."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.features = 6, 2

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.flatten(2).transpose(1, 2))
        query, key, value = (
            one.unflatten(-1, (self.heads, self.features)).transpose(1, 2) for one in self.qkv(x).chunk(3, dim=-1)
        )
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return self.head(torch.relu(x + self.project(mixed)).mean(1))


class Columns(nn.Module):
    """A weight stored input by output, as those of GPT-2; its module counts what it makes, not what it reads."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        self.weight = nn.Parameter(torch.randn(inputs, outputs) / 3)
        self.bias = nn.Parameter(torch.randn(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.view(-1, x.shape[-1]), self.weight).view(*x.shape[:-1], self.outputs)


class Square(Attention):
    """As many numbers go into a layer as come out of it, and only those that go in are cut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.qkv, self.project = nn.Linear(3, 12), Columns(12, 36), Columns(12, 12)
        self.head = nn.Linear(12, 5)


class Parts(nn.Module):
    """Halves that gate each other, normalised groups, channels that become pixels, a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.GroupNorm(4, 8)
        self.wide = nn.Conv2d(8, 24, 1)
        self.up = nn.ConvTranspose2d(6, 8, 2, stride=2)
        self.head = nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.stem(x).chunk(2, dim=1)
        x = F.pixel_shuffle(self.wide(self.norm(value * torch.sigmoid(gate))), 2)
        return self.head(F.interpolate(F.relu(self.up(x)), scale_factor=0.5)).sum((2, 3)) / 99


class Selective(nn.Module):
    """Branches on top of each other, weighed against each other for every channel, as in selective kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 8, 3, padding=1)
        self.right = nn.Conv2d(3, 8, 1)
        self.choose = nn.Conv2d(8, 16, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.stack([self.left(x), F.relu(self.right(x))], dim=1)
        chances = self.choose(both.sum(1).mean((2, 3), keepdim=True)).view(len(x), 2, -1, 1, 1).softmax(1)
        return self.head((both * chances).sum(1).mean((2, 3)))


class Windows(nn.Module):
    """Windows as columns and back, windows that slide along an axis, and indices that are repeated."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.point = nn.Conv2d(8, 12, 1)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.fold(torch.tanh(F.unfold(x, (2, 4), stride=2)), x.shape[2:], (2, 4), stride=2)
        x = self.point(x).unfold(2, 4, 2).unfold(3, 4, 4).amax((-2, -1))
        return self.head(x.repeat_interleave(2, dim=3).tile(2, 1).mean((2, 3)))


class Blurred(nn.Module):
    """A filter that is made anew with the network, features of length one, and a part without automatic casts."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.register_buffer("filter", torch.rand(8, 1, 3, 3), persistent=False)
        self.register_buffer("places", torch.randn(1, 8, 2, 2), persistent=False)
        self.point = nn.Conv2d(8, 12, 1)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(self.stem(x), self.filter, stride=2, groups=self.filter.shape[0])
        with torch.autocast("cpu", enabled=False), torch.no_grad():
            x = torch.relu(self.point(x + self.places))
        return self.head(F.normalize(x, dim=1).mean((2, 3)))


class Pooled(Attention):
    """A bias of parts of which one is a buffer, and heads that are treated like samples by a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.features = 6, 2
        self.qkv = nn.Linear(10, 36, bias=False)
        self.query_bias, self.value_bias = (nn.Parameter(torch.randn(12)) for _ in range(2))
        self.register_buffer("key_bias", torch.zeros(12), persistent=False)
        self.pool = nn.Conv2d(2, 2, 3, groups=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.flatten(2).transpose(1, 2))
        qkv = F.linear(x, self.qkv.weight, torch.cat((self.query_bias, self.key_bias, self.value_bias)))
        query, key, value = qkv.reshape(*x.shape[:2], 3, self.heads, self.features).permute(2, 0, 3, 1, 4)
        image = query.reshape(len(x) * self.heads, 8, 8, self.features).permute(0, 3, 1, 2)
        query = self.pool(image).reshape(len(x), self.heads, self.features, 64).transpose(2, 3)
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return self.head(torch.relu(x + self.project(mixed)).mean(1))


def chain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8, affine=False), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 16), nn.Dropout(0.5), nn.ReLU(), nn.Linear(16, 5),
    )  # fmt: skip


EVERY: list[Callable[[], nn.Module]] = [
    chain, Residual, Branches, Depthwise, Gated, Attention, Fused, Parts, Selective, Windows, Blurred, Pooled
]  # fmt: skip


def network(make: Callable[[], nn.Module]) -> tuple[TorchNetwork, Samples]:
    torch.manual_seed(0)
    module = make()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    x = np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32)
    samples = Samples((x,), np.zeros(4, np.int64))
    return TorchNetwork.of(module, samples), samples


def prune_(net: TorchNetwork, step: Prune) -> tuple[list[Kept], list[Skipped]]:
    samples = Samples(tuple(x.numpy() for x in net.examples), np.zeros(len(net.examples[0]), np.int64))
    graph = net.graph()
    cuts, skipped = Channels(step, net, graph, Evidence(samples=samples, most=4, loss="cross_entropy")).cuts()
    decisions = cutting(cuts, graph)
    net.apply_(decisions)
    return decisions, skipped


@pytest.mark.parametrize("make", EVERY)
def test_sliced_output_equals_zero_masked_output_in_every_group(make: Callable[[], nn.Module]) -> None:
    net, samples = network(make)
    groups = couple(net.graph()).groups
    assert groups
    for group in groups:
        removed = np.arange(group.size)[:: max(2, group.size // 3)]
        masked, cut = net.copy(), net.copy()
        for key, indices in group.cuts.items():
            with torch.no_grad():
                tensor = tensor_of(masked.module, key.parameter)
                tensor[(slice(None),) * key.axis + (indices[removed].reshape(-1),)] = 0
        cut.apply_(cutting([Cut(group, np.setdiff1d(np.arange(group.size), removed))], net.graph()))
        np.testing.assert_allclose(cut.predict(samples), masked.predict(samples), atol=1e-5)


@pytest.mark.parametrize("make", EVERY)
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_pruning_channels_makes_a_smaller_network_that_runs(make: Callable[[], nn.Module], scope: str) -> None:
    net, samples = network(make)
    before = net.graph().macs()
    prune_(net, Prune(amount=0.5, unit="channel", scope=scope))  # type: ignore[arg-type]
    assert net.predict(samples).shape == (4, 5)
    assert net.graph().macs() < 0.75 * before


def test_a_buffer_that_the_state_does_not_have_is_cut_again_in_a_fresh_network() -> None:
    net, samples = network(Blurred)
    torch.manual_seed(0)
    fresh = TorchNetwork.of(Blurred(), samples)
    decisions, _ = prune_(net, Prune(amount=0.5, unit="channel"))
    fresh.apply_(decisions)
    fresh.module.load_state_dict(net.module.state_dict())
    assert fresh.module.filter.shape == (4, 1, 3, 3)
    assert fresh.module.places.shape == (1, 4, 2, 2)
    np.testing.assert_array_equal(fresh.predict(samples), net.predict(samples))


class Turning(Attention):
    """Features turned by angles that a buffer and the places make, the same for all layers: heads are cut."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.features = 3, 4
        self.register_buffer("speeds", torch.tensor([1.0, 0.1]), persistent=False)

    def turned(self, x: Tensor) -> Tensor:
        angles = torch.arange(x.shape[2])[:, None] * torch.cat((self.speeds, self.speeds))
        left, right = x.chunk(2, dim=-1)
        return x * angles.cos() + torch.cat((-right, left), dim=-1) * angles.sin()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.flatten(2).transpose(1, 2))
        qkv = self.qkv(x).reshape(*x.shape[:2], 3, self.heads, self.features).permute(2, 0, 3, 1, 4)
        weights = (self.turned(qkv[0]) @ self.turned(qkv[1]).transpose(-2, -1) * 0.3).softmax(-1)
        mixed = (weights @ qkv[2]).transpose(1, 2).reshape(*x.shape[:2], self.heads * self.features)
        return self.head(torch.relu(x + self.project(mixed)).mean(1))


def test_features_that_are_turned_by_a_table_stay_and_whole_heads_go() -> None:
    net, samples = network(Turning)
    group = next(one for one in couple(net.graph()).groups if one.name == "qkv")
    assert group.size == 3
    assert group.cuts[Axis("qkv.weight", 0)].shape == (3, 12)
    assert Axis("speeds", 0) not in group.cuts
    evidence = Evidence(samples=samples, most=4, loss="cross_entropy")
    proven = proven_cuts(Prune(amount=0.4, unit="channel"), net, evidence)
    assert "qkv" in [cut.group.name for cut in proven.cuts]


class Halves(nn.Module):
    """Is split by half of a number that it keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.channels = 12
        self.stem = nn.Conv2d(3, 12, 1)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.stem(x).split(self.channels // 2, dim=1)
        return self.head((left * torch.sigmoid(right)).mean((2, 3)))


def test_a_number_of_which_half_is_split_off_follows_the_cut() -> None:
    net, samples = network(Halves)
    evidence = Evidence(samples=samples, most=4, loss="cross_entropy")
    net.apply_(proven_cuts(Prune(amount=0.5, unit="channel"), net, evidence).decisions)
    assert net.module.channels == 6
    assert net.module.head.weight.shape == (5, 3)
    assert net.predict(samples).shape == (4, 5)


def test_half_of_every_layer_leaves_exactly_half_of_its_channels() -> None:
    net, _ = network(chain)
    prune_(net, Prune(amount=0.5, unit="channel"))
    sizes = [
        layer.weight.shape[0] for layer in net.module.modules() if hasattr(layer, "weight") and layer.weight is not None
    ]
    assert sizes == [4, 4, 4, 8, 5]


def test_sizes_that_layers_remember_are_mended() -> None:
    net, _ = network(Depthwise)
    prune_(net, Prune(amount=0.5, unit="channel"))
    depth = net.module.depth
    assert (depth.groups, depth.in_channels, depth.out_channels) == (4, 4, 8)
    grouped = net.module.grouped
    assert grouped.groups == 4
    assert grouped.in_channels == 4 * grouped.weight.shape[1]
    assert "in_channels" not in repr(net.module) or "Conv2d(4, 8" in repr(net.module)


def test_the_weakest_channels_go_first() -> None:
    net, _ = network(chain)
    with torch.no_grad():
        net.module[0].weight[[1, 5]] *= 1e-3
        net.module[3].weight[:, [1, 5]] *= 1e-3
    decisions, _ = prune_(net, Prune(amount=0.25, unit="channel"))
    kept = {decision.group: decision for decision in decisions}
    assert kept["0"].axes[Axis("0.weight", 0)].tolist() == [0, 2, 3, 4, 6, 7]


def test_the_output_of_the_network_is_never_cut_and_the_reason_is_given() -> None:
    net, _ = network(Residual)
    decisions, skipped = prune_(net, Prune(amount=0.5, unit="channel"))
    assert all(Axis("head.weight", 0) not in decision.axes for decision in decisions)
    assert [(one.layer, one.reason) for one in skipped] == [("head", "its channels are the output of the network")]


def test_channels_coupled_to_a_layer_that_a_rule_leaves_alone_stay() -> None:
    net, _ = network(Residual)
    step = Prune(amount=0.5, unit="channel", rules=(Rule(layers="outer"),))
    decisions, skipped = prune_(net, step)
    assert [decision.group for decision in decisions] == ["inner"]
    assert ("stem", "its channels are coupled to outer, which a rule leaves alone") in [
        (one.layer, one.reason) for one in skipped
    ]


def test_kept_channels_are_rounded_up_to_a_multiple() -> None:
    net, _ = network(Residual)
    decisions, _ = prune_(net, Prune(amount=0.7, unit="channel", multiple_of=4))
    kept = {decision.group: decision for decision in decisions}
    assert kept["inner"].axes[Axis("inner.weight", 0)].size == 4
    assert kept["stem"].axes[Axis("stem.weight", 0)].size == 4


@pytest.mark.parametrize("make", EVERY)
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_channels_are_cut_until_the_network_takes_a_share_of_its_work(
    make: Callable[[], nn.Module], scope: str
) -> None:
    net, _ = network(make)
    before = net.graph().macs()
    prune_(net, Prune(amount=0.9, unit="channel", scope=scope, macs=0.6))  # type: ignore[arg-type]
    after = net.graph().macs()
    assert 0.2 * before < after <= 0.6 * before  # one channel of eight is much


# Not Pooled, whose heads are the samples of a convolution: that their work goes with them is seen afterwards only.
@pytest.mark.parametrize("make", EVERY[:-1])
def test_the_work_after_a_cut_is_known_before_it(make: Callable[[], nn.Module]) -> None:
    net, samples = network(make)
    graph = net.graph()
    evidence = Evidence(samples=samples, most=4, loss="cross_entropy")
    cuts, _ = Channels(Prune(amount=0.5, unit="channel"), net, graph, evidence).cuts()
    net.apply_(cutting(cuts, graph))
    assert macs_after(cuts, graph) == pytest.approx(net.graph().macs())


def test_a_share_that_the_amount_does_not_reach_is_refused() -> None:
    net, _ = network(chain)
    with pytest.raises(PlanError, match="cut as far as its amount allows, the network still takes"):
        prune_(net, Prune(amount=0.1, unit="channel", macs=0.5))


class FixedWidth(nn.Module):
    """Code that fixes a width, which the exported graph cannot show."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 4, 3, padding=1)
        self.head = nn.Linear(4 * 64, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.second(F.relu(self.first(x))))
        return self.head(x.view(-1, 256))


def test_a_width_that_the_code_fixes_is_found_by_trying_and_left_alone() -> None:
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(40, 3, 8, 8)).astype(np.float32)
    result = whit.compress(FixedWidth(), Prune(amount=0.5, unit="channel"), data=(x, np.arange(40) % 5))
    assert result.model.first.out_channels == 4
    assert result.model.second.out_channels == 4
    assert ("second", "the network's code fixes its width") in [(one.layer, one.reason) for one in result.skipped]
    assert result.parity.max_abs < 1e-4


@pytest.mark.parametrize(("left_alone", "inputs", "outputs"), [("qkv", 12, 6), ("stem", 6, 12)])
def test_which_of_as_many_channels_a_number_counts_is_found_by_trying(
    left_alone: str, inputs: int, outputs: int
) -> None:
    net, samples = network(Square)
    step = Prune(amount=0.5, unit="channel", rules=(Rule(layers=left_alone),))
    proven = proven_cuts(step, net, Evidence(samples=samples, most=4, loss="cross_entropy"))
    net.apply_(proven.decisions)
    assert net.module.project.weight.shape == (inputs, outputs)
    assert net.module.project.outputs == outputs


class Opaque(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.second = nn.Linear(8, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.logcumsumexp(self.first(x), dim=1)
        return self.head(F.relu(self.second(x)))


def test_an_operation_that_nobody_taught_freezes_what_it_reads_and_says_so() -> None:
    module = Opaque()
    samples = Samples((np.ones((2, 6), np.float32),), np.zeros(2, np.int64))
    coupling = couple(TorchNetwork.of(module, samples).graph())
    assert [group.name for group in coupling.groups] == ["second"]
    assert coupling.frozen["first"] == "read by aten.logcumsumexp.default in the network, which whit cannot cut through"
