"""What scores see of a network, and what they make of it."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import whit
from whit import (
    LAMP,
    BatchNormScale,
    Fisher,
    GeometricMedian,
    Gradient,
    Hessian,
    Magnitude,
    Movement,
    Plan,
    PlanError,
    Random,
    Rule,
    Taylor,
    Wanda,
)
from whit.data import Samples
from whit.decide import pruning
from whit.decide.channels import Channels
from whit.decide.scoring import Evidence, weigh
from whit.ledger import Ledger
from whit.scores import Score
from whit.steps import Finetune, FoldBatchNorm, Prune
from whit.torch.evidence import energies, gradients
from whit.torch.network import TorchNetwork

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.normal(size=(96, 3, 8, 8)).astype(np.float32)
LABELS = RANDOM.integers(0, 4, 96)
SCORES = [Magnitude(norm=1), Magnitude(), Gradient(), Taylor(), Fisher(), Wanda(), Hessian(), LAMP(), Random()]
WHOLE = [BatchNormScale(), GeometricMedian()]
NAMES = ["plain.weight", "dilated.weight", "depthwise.weight", "grouped.weight", "head.weight"]


@pytest.fixture
def network(convolutions: Callable[[int], nn.Module]) -> TorchNetwork:
    return TorchNetwork.of(convolutions(0), Samples((IMAGES,), LABELS))


def evidence(**options: object) -> Evidence:
    return Evidence(samples=Samples((IMAGES,), LABELS), most=96, loss="cross_entropy", **options)  # type: ignore[arg-type]


def test_gradients_are_those_of_the_mean_loss_of_all_samples(network: TorchNetwork) -> None:
    found = network.gradients(NAMES, Samples((IMAGES,), LABELS), 96, "cross_entropy")
    loss = F.cross_entropy(network.module(torch.from_numpy(IMAGES)), torch.from_numpy(LABELS))
    expected = torch.autograd.grad(loss, [network.module.get_parameter(name) for name in NAMES])
    for name, gradient in zip(NAMES, expected, strict=True):
        np.testing.assert_allclose(found[name].mean, gradient.numpy(), atol=1e-6)
    assert all(one.grad is None for one in network.module.parameters())


def test_the_square_of_batches_of_one_is_fisher_information(network: TorchNetwork) -> None:
    module = network.module
    x, y = torch.from_numpy(IMAGES[:6]), torch.from_numpy(LABELS[:6])
    found = gradients(module, [((x[i : i + 1],), y[i : i + 1]) for i in range(6)], ["head.weight"], "cross_entropy")
    each = [
        torch.autograd.grad(F.cross_entropy(module(x[i : i + 1]), y[i : i + 1]), [module.head.weight])[0]
        for i in range(6)
    ]
    expected = torch.stack(each).square().mean(0)
    np.testing.assert_allclose(found["head.weight"].square, expected.numpy(), rtol=1e-5)


def test_parameters_that_are_frozen_or_not_used_have_gradients_too() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(4, 3), nn.Linear(4, 3)
            self.used.weight.requires_grad_(False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    module = Odd()
    batch = ((torch.ones(2, 4),), torch.tensor([0, 1]))
    found = gradients(module, [batch], ["used.weight", "unused.weight"], "cross_entropy")
    assert found["used.weight"].mean.any()
    assert not found["unused.weight"].mean.any()
    assert not module.used.weight.requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_energies_are_mean_squares_of_what_columns_are_multiplied_with(name: str, network: TorchNetwork) -> None:
    module = network.module
    layer = module.get_submodule(name.removesuffix(".weight"))
    read: list[torch.Tensor] = []
    layer.register_forward_hook(lambda _, args, out: read.append(args[0]))
    found = energies(module, [(torch.from_numpy(IMAGES),)], [name])[name]
    (x,) = read
    if isinstance(layer, nn.Linear):
        expected = x.square().mean(0)[None]
    else:
        pad = layer.padding if isinstance(layer.padding, tuple) else (2, 0)  # "same" for 3x1 with dilation 2
        windows = F.unfold(x, layer.kernel_size, layer.dilation, pad, layer.stride)
        expected = windows.square().mean((0, 2)).reshape(layer.groups, -1)
    np.testing.assert_allclose(
        found, expected.detach().numpy(), rtol=0.05, atol=1e-3
    )  # some of the places stand for all


def test_a_row_of_a_table_is_multiplied_with_how_often_it_is_looked_up() -> None:
    module = nn.Sequential(nn.Embedding(3, 2), nn.Flatten(), nn.Linear(4, 2))
    found = energies(module, [(torch.tensor([[0, 1], [1, 1]]),)], ["0.weight"])
    assert found["0.weight"].tolist() == [[0.25], [0.75], [0.0]]


def test_a_layer_that_cannot_be_seen_is_reported() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(x.mean((2, 3)).repeat(1, 3)[:, :8] @ (self.a.weight * 1).T)

    net = TorchNetwork.of(Hidden(), Samples((IMAGES,), LABELS))
    asked = [("a.weight", Wanda()), ("b.weight", Wanda()), ("a.weight", Magnitude())]
    assert weigh(asked, net, evidence()).keys() == {("b.weight", Wanda()), ("a.weight", Magnitude())}


@pytest.mark.parametrize("scope", ["row", "layer", "global"])
@pytest.mark.parametrize("score", SCORES, ids=repr)
def test_every_score_prunes_weights_in_every_scope(score: Score, scope: str, network: TorchNetwork) -> None:
    step = Prune(amount=0.5, score=score, scope=scope)  # type: ignore[arg-type]
    masks, skipped = pruning.single_weights(step, network, Ledger(), evidence())
    assert not skipped
    gone = sum(int((~one.mask).sum()) for one in masks)
    size = sum(one.mask.size for one in masks)
    if scope != "row":
        assert abs(gone - size / 2) <= len(masks)
    for one in masks if scope != "global" else ():
        rows = one.mask.reshape(len(one.mask), -1) if scope == "row" else one.mask.reshape(1, -1)
        assert ((~rows).sum(1) == round(rows.shape[1] / 2)).all()


class Chain(nn.Module):
    """Two convolutions with batch normalisations."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.second, self.after = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.first(x)))
        return self.head(F.relu(self.after(self.second(x))).mean((2, 3)))


def chain() -> nn.Module:
    torch.manual_seed(0)
    module = Chain()
    with torch.no_grad():
        module.norm.weight.copy_(torch.arange(1, 9))
        module.after.weight.copy_(-torch.arange(8, 0, -1.0))
    return module


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("score", [*SCORES, *WHOLE], ids=repr)
def test_every_score_prunes_channels_in_every_scope(score: Score, scope: str, network: TorchNetwork) -> None:
    net = TorchNetwork.of(chain(), Samples((IMAGES,), LABELS))
    step = Prune(amount=0.5, unit="channel", score=score, scope=scope)  # type: ignore[arg-type]
    cuts, skipped = Channels(step, net, net.graph(), evidence()).cuts()
    assert [one.layer for one in skipped] == ["head"]  # its channels are the output
    kept = [cut.units.size for cut in cuts]
    assert kept == [4, 4] if scope == "layer" else 2 <= sum(kept) <= 8


def test_channels_of_small_batch_normalisation_scales_go_first() -> None:
    net = TorchNetwork.of(chain(), Samples((IMAGES,), LABELS))
    step = Prune(amount=0.5, unit="channel", score=BatchNormScale())
    cuts, _ = Channels(step, net, net.graph(), evidence()).cuts()
    assert [cut.units.tolist() for cut in cuts] == [[4, 5, 6, 7], [0, 1, 2, 3]]
    with pytest.raises(
        PlanError, match=r"no channel could be cut; .*first: no batch normalisation scales its channels"
    ):
        whit.compress(chain(), Plan(FoldBatchNorm(), step), data=(IMAGES, LABELS))


def test_movement_looks_at_the_training_before() -> None:
    plan = Plan(Finetune(epochs=1, batch_size=16), Prune(amount=0.5, score=Movement()))
    result = whit.compress(chain(), plan, data=(IMAGES, LABELS))
    before = dict(chain().named_parameters())["second.weight"].detach().numpy()
    mask = result.ledger.masks()["second.weight"].mask
    after = result.model.second.weight.detach().numpy()
    assert mask.sum() == mask.size / 2
    grown = after[mask] ** 2 - before[mask] ** 2
    assert (grown > 0).mean() > 0.5  # of those that stay more moved away from zero than towards it


@pytest.mark.parametrize(
    "plan",
    [
        lambda: Plan(Prune(amount=0.5, score=Movement())),
        lambda: Plan(Finetune(epochs=1), FoldBatchNorm(), Prune(amount=0.5, score=Movement())),
        lambda: Plan(Prune(amount=0.5, rules=(Rule(layers="a", use=Prune(amount=0.5, score=Movement())),))),
    ],
)
def test_movement_needs_a_training_right_before(plan: object) -> None:
    with pytest.raises(PlanError, match="looks at what a training moved; put a Finetune right before it"):
        plan()  # type: ignore[operator]


@pytest.mark.parametrize("score", [Random(seed=1), Gradient(), Magnitude()], ids=repr)
def test_what_is_masked_counts_whatever_the_score_says(score: Score, network: TorchNetwork) -> None:
    first, _ = pruning.single_weights(Prune(amount=0.25, score=Random()), network, Ledger(), evidence())
    ledger = Ledger().record(*first)
    network.apply_(first)
    second, _ = pruning.single_weights(Prune(amount=0.5, score=score), network, ledger, evidence())
    for one in ledger.record(*second).masks().values():
        assert (~one.mask).sum() == one.mask.size / 2
