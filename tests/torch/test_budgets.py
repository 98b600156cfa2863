"""Prune under budgets that are measured, and layers that an amount would empty."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import whit
from whit import Block, Data, Int, Plan, PlanError, Prune, Quantize, Random, Rule
from whit.decide.channels import Channels, cutting
from whit.decide.footprint import Footprint
from whit.decide.scoring import Evidence
from whit.ledger import Decision
from whit.metrics import Accuracy
from whit.progress import Progress
from whit.run import Run
from whit.torch.network import TorchNetwork

X = np.random.default_rng(0).normal(size=(64, 16)).astype(np.float32)
Y = X[:, :4].argmax(1)
DATA = Data.of(X, Y, X, Y)
PLAN = Plan(Prune(amount=0.5))  # what files say of a run that is made by hand


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.relu(self.up(x)))


def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), Residual(), Residual(), Residual(), nn.ReLU(), nn.Linear(32, 4)).eval()


def run() -> Run:
    return Run(TorchNetwork.of(module(), DATA.train), PLAN, DATA, Accuracy(), Progress(), "small")


def by_size(footprint: Footprint, decisions: Sequence[Decision]) -> float:
    """A time that is known: as long as there are parameters."""
    before, after = footprint.network.parameters(), footprint._after(decisions)[0].parameters()  # pyright: ignore[reportPrivateUsage]
    return sum(x.size for x in after.values()) / sum(x.size for x in before.values())


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is exported to be measured."""
    monkeypatch.setattr(Footprint, "share_of_time", by_size)
    monkeypatch.setattr(Footprint, "share_of_bytes", by_size)


def parameters(one: Run) -> int:
    return sum(x.size for x in one.network.parameters().values())


@pytest.mark.parametrize("unit", ["weight", "channel"])
def test_as_much_goes_as_a_share_of_the_files_bytes_asks_for(unit: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(16, 256), nn.ReLU(), nn.Linear(256, 4)).eval()
    one = Run(TorchNetwork.of(network, DATA.train), PLAN, DATA, Accuracy(), Progress(), "small")
    before = one._footprint().bytes()  # pyright: ignore[reportPrivateUsage]
    one.take(Prune(amount=0.9, unit=unit, bytes=0.7))  # type: ignore[arg-type]
    after = one._footprint().bytes()  # pyright: ignore[reportPrivateUsage]
    assert 0.64 * before < after <= 0.7 * before  # the amount is found to 0.9 / 64, and masks take bytes themselves


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("budget", ["bytes", "latency"])
@pytest.mark.parametrize(("unit", "least"), [("channel", 0.65), ("residual", 0.35)])  # a third of the branches is much
def test_as_much_is_cut_as_a_measured_budget_asks_for(budget: str, unit: str, least: float) -> None:
    one = run()
    before = parameters(one)
    one.take(Prune(amount=0.99, unit=unit, **{budget: 0.7}))  # type: ignore[arg-type]
    assert least * before < parameters(one) <= 0.7 * before


@pytest.mark.usefixtures("known")
def test_the_tightest_of_several_budgets_is_kept() -> None:
    macs = []
    for budgets in ({"macs": 0.4, "bytes": 0.9}, {"macs": 0.4}):
        one = run()
        before = one.network.graph().macs()
        one.take(Prune(amount=0.9, unit="channel", **budgets))  # type: ignore[arg-type]
        macs.append(one.network.graph().macs())
    assert macs[0] == macs[1] <= 0.4 * before


def test_times_are_measured_in_turns_on_what_is_delivered() -> None:
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise([16, 1024, 1024, 1024, 4])]
    x = TorchNetwork.of(nn.Sequential(*layers).eval(), DATA.train)
    footprint = Run(x, PLAN, DATA, Accuracy(), Progress(), "small")._footprint()  # pyright: ignore[reportPrivateUsage]
    graph = x.graph()
    evidence = Evidence(samples=DATA.train, most=8, loss="cross_entropy")
    cuts, _ = Channels(Prune(amount=0.95, unit="channel"), x, graph, evidence).cuts()
    # Of 2 million multiply-accumulates one in 300 is left; what a call takes beside them is no half of its time.
    assert footprint.share_of_time(cutting(cuts, graph)) < 0.75


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("unit", ["channel", "residual"])
def test_a_budget_that_the_amount_does_not_reach_is_refused(unit: str) -> None:
    with pytest.raises(PlanError, match=r"still takes 0\.\d+ of its bytes; give it a larger amount"):
        run().take(Prune(amount=0.4, unit=unit, bytes=0.1))  # type: ignore[arg-type]


def test_a_rule_has_no_budget_of_its_own() -> None:
    with pytest.raises(PlanError, match="has bytes of its own; a network has one budget"):
        Prune(amount=0.5, rules=(Rule(layers="a", use=Prune(amount=0.5, bytes=0.5)),))


# Layers that would be empty.


def quiet() -> nn.Module:
    """Its second layer is so small that it would go whole."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).eval()
    net[2].weight.data *= 1e-3
    return net


@pytest.mark.parametrize("unit", ["weight", Block(rows=2, columns=2)], ids=repr)
def test_a_layer_that_would_lose_everything_keeps_its_best_with_a_warning(unit) -> None:  # type: ignore[no-untyped-def]
    result = whit.compress(quiet(), Prune(amount=0.5, unit=unit, scope="global"), data=DATA)
    kept = result.ledger.masks()["2.weight"].mask
    assert kept.sum() == (1 if unit == "weight" else 4)
    assert abs(quiet()[2].weight.detach().numpy()[kept]).max() == abs(quiet()[2].weight.detach().numpy()).max()
    assert [(one.layer, one.reason) for one in result.skipped] == [
        ("2", "all of its weights would have gone; the best stay, so that it is not empty")
    ]


def test_a_share_that_rounds_to_all_weights_leaves_one() -> None:
    result = whit.compress(quiet(), Prune(amount=0.999), data=DATA)
    assert [int(masked.mask.sum()) for masked in result.ledger.masks().values()] == [1, 1, 1]
    assert [one.layer for one in result.skipped] == ["0", "2", "4"]


def test_a_group_of_channels_that_would_go_whole_keeps_one_with_a_warning() -> None:
    class Lowest(nn.Module):
        """The channels between the second and third layer are worth nothing beside those of the first."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 4))
            self.layers[2].weight.data.zero_()
            self.layers[4].weight.data.zero_()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers(x)

    result = whit.compress(Lowest(), Plan(Prune(amount=0.5, unit="channel", scope="global")), data=DATA)
    assert result.model.layers[2].weight.shape == (1, 6)  # six of twelve channels stay: one more than the share says
    reasons = {one.layer: one.reason for one in result.skipped}
    assert reasons["layers.2"] == "all of its channels would have gone; some stay, so that it is not empty"


def test_a_layer_that_keeps_one_weight_can_be_rounded() -> None:
    plan = Plan(Prune(amount=0.999, score=Random()), Quantize(weights=Int(bits=4)))
    result = whit.compress(quiet(), plan, data=DATA)
    assert all((one.values() != 0).sum() <= 1 for one in result.ledger.rounded().values())
