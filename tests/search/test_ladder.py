"""What a search tries next, on a made-up network whose every figure is a formula."""

from dataclasses import replace
from math import log

import numpy as np
import pytest
import torch
from torch import nn

from whit.data import Samples
from whit.plan import Plan
from whit.search.budget import Budget, Spent
from whit.search.candidates import Candidate, Family
from whit.search.front import best, front
from whit.search.ladder import LONG, MIDDLE, ROUNDING, SHORT, Ladder
from whit.search.seen import Seen
from whit.search.trials import Outcome, Round, Trial
from whit.steps import Factorize, Finetune, Prune
from whit.target import Target
from whit.torch.network import TorchNetwork

PRICE = 1e-6


def costs(candidate):
    """Bits fall by one each time the price is four times as high; training wins a drop back, cutting it costs more.

    Leaving out branches, and products in place of layers, cost half of what channels do.
    """
    price = candidate.price or PRICE / 100
    bits = max(3 - log(price / PRICE) / log(4), 0.5)
    damage = 0.004 * (price / PRICE) + 0.02 * (1 / candidate.keep - 1)
    damage += 0.01 * (1 / candidate.depth - 1) + 0.01 * (1 / candidate.ranks - 1)
    drop = damage / (1 + 3 * candidate.epochs) ** 0.8 + (0.4 * (candidate.keep < 1) if not candidate.epochs else 0)
    size = round(1000 + 10_000 * candidate.keep**0.7 * bits)
    latency = candidate.ranks * candidate.depth * candidate.keep**0.6 * (0.5 if candidate.integers else 1.0)
    macs = round(1e6 * candidate.keep * candidate.depth * candidate.ranks)
    memory = round(1e6 * candidate.keep * (0.5 if candidate.integers else 1.0))
    return Spent(drop=drop, relative_drop=drop, bytes=size, latency_ms=latency, macs=macs, memory=memory)


def seconds(candidate):
    return 10 + 100 * candidate.epochs * (0.3 + 0.7 * candidate.keep)


def climb(budget, *, limit=None, controlled=True, at_once=1, rounds=(), **family):
    """All rounds of a search, from those that are done."""
    budget = Budget.of(budget)
    family = replace(Family.of(budget, "cross_entropy", Target(), 0), **family)
    ladder = Ladder(family=family, budget=budget, price=PRICE, controlled=controlled, limit=limit, at_once=at_once)
    rounds, gone = list(rounds), 0.0
    while True:
        seen = Seen(rounds=rounds, spent=lambda trial: costs(trial.candidate), guess=100.0)
        decided = ladder.next(seen, None if limit is None else limit - gone)
        if decided is None or (limit is not None and gone >= limit):
            return rounds, gone
        name, candidates = decided
        trials = [
            Trial(candidate=one, plan=family.plan(one), hash=str(one), outcome=Outcome(seconds=seconds(one)))
            for one in candidates
        ]
        took = [seconds(one) for one in candidates]
        gone += max(sum(took) / at_once, *took)
        rounds.append(Round(name=name, seconds=gone, trials=tuple(trials)))


def tried(rounds):
    points = [trial.candidate for one in rounds for trial in one.trials if not trial.candidate.control]
    return [(one, costs(one)) for one in points]


def test_the_rounds_go_from_many_short_trainings_to_few_long_ones():
    rounds, _ = climb("drop<=1%, minimize=bytes")
    assert [one.name for one in rounds] == [ROUNDING, ROUNDING, SHORT, SHORT, SHORT, MIDDLE, LONG, LONG]
    epochs = [max(trial.candidate.epochs for trial in one.trials) for one in rounds]
    assert epochs == [0, 0, 1, 1, 1, 3, 9, 9]
    controls = [sum(trial.candidate.control for trial in one.trials) for one in rounds]
    assert controls == [0, 0, 1, 0, 0, 1, 0, 0]


def test_what_is_found_keeps_to_the_limit_and_comes_close_to_it():
    budget = Budget.of("drop<=1%, minimize=bytes")
    rounds, _ = climb(budget)
    chosen, spent = best(tried(rounds), budget)
    assert 0.5 * 0.01 < spent.drop <= 0.01
    # Rounding alone can pay for 2.5 times PRICE: 1000 + 10,000 * (3 - log4(2.5)) bytes.
    assert spent.bytes < 0.8 * 24_390
    assert chosen.epochs == 9


def test_the_same_rounds_lead_to_the_same_rounds():
    whole, _ = climb("drop<=1%, minimize=bytes")
    for done in (1, 3, 5):
        again, _ = climb("drop<=1%, minimize=bytes", rounds=whole[:done])
        assert [one.trials for one in again] == [one.trials for one in whole]


@pytest.mark.parametrize("limit", [60, 200, 1000, 5000])
@pytest.mark.parametrize("at_once", [1, 2])
def test_a_limit_is_planned_for(limit, at_once):
    rounds, gone = climb("drop<=1%, minimize=bytes", limit=limit, at_once=at_once)
    assert gone <= limit
    assert rounds[0].name == ROUNDING
    if limit >= 1000:
        assert rounds[-1].name == LONG
        assert gone > 0.6 * limit


def test_more_time_finds_smaller_networks():
    budget = Budget.of("drop<=1%, minimize=bytes")
    sizes = [best(tried(climb(budget, limit=limit)[0]), budget)[1].bytes for limit in (60, 1000, 5000)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1]


def test_for_latency_it_is_the_cut_that_is_tuned():
    budget = Budget.of("drop<=1%, minimize=latency")
    rounds, _ = climb(budget, controlled=False)
    chosen, spent = best(tried(rounds), budget)
    assert all(trial.candidate.price is None for one in rounds for trial in one.trials)
    assert chosen.integers
    assert chosen.keep < 0.5
    assert 0.4 * 0.01 < spent.drop <= 0.01


def test_for_memory_networks_are_cut_and_run_in_integers():
    budget = Budget.of("drop<=1%, minimize=memory")
    chosen, spent = best(tried(climb(budget)[0]), budget)
    assert chosen.integers
    assert spent.memory < 0.25e6
    assert spent.drop <= 0.01


def test_a_limit_of_bytes_with_the_least_drop_is_kept():
    budget = Budget.of("bytes<=15KB, minimize=drop")
    _, spent = best(tried(climb(budget)[0]), budget)
    assert spent.bytes <= 15_000


def test_a_network_that_cannot_be_cut_is_not_cut_again():
    budget = Budget.of("drop<=1%, minimize=bytes")
    family = Family.of(budget, "cross_entropy", Target(), 0)
    ladder = Ladder(family=family, budget=budget, price=PRICE, controlled=True, limit=None, at_once=1)
    rounds = climb(budget)[0][:2]
    seen = Seen(
        rounds=rounds, spent=lambda trial: None if trial.candidate.keep < 1 else costs(trial.candidate), guess=1.0
    )
    decided = ladder.next(seen, None)
    assert decided is not None
    assert {one.keep for one in decided[1]} == {1.0}


OTHERS = pytest.mark.parametrize(("others", "name"), [("shortens", "depth"), ("factors", "ranks")])


@pytest.mark.parametrize("what", ["latency", "macs"])
@OTHERS
def test_branches_are_left_out_and_products_made_where_there_can_be_any(what, others, name):
    budget = Budget.of(f"drop<=1%, minimize={what}")
    found = [best(tried(climb(budget, **{others: there})[0]), budget) for there in (False, True)]
    assert [getattr(one, name) < 1 for one, _ in found] == [False, True]
    assert all(spent.drop <= 0.01 for _, spent in found)
    assert budget.least(found[1][1]) < budget.least(found[0][1])
    controls = [trial.candidate for one in climb(budget, **{others: True})[0] for trial in one.trials]
    assert all(one.whole for one in controls if one.control)
    assert max(getattr(one, name) for one in controls) == 1


@OTHERS
def test_what_comes_to_nothing_is_not_tried_again(others, name):
    budget = Budget.of("drop<=1%, minimize=macs")
    family = replace(Family.of(budget, "cross_entropy", Target(), 0), **{others: True})
    ladder = Ladder(family=family, budget=budget, price=0.0, controlled=True, limit=None, at_once=1)
    rounds = climb(budget, **{others: True})[0][:1]
    assert [getattr(trial.candidate, name) for trial in rounds[0].trials] == [1.0, 1.0, 0.7]
    seen = Seen(
        rounds=rounds,
        spent=lambda trial: None if getattr(trial.candidate, name) < 1 else costs(trial.candidate),
        guess=1.0,
    )
    decided = ladder.next(seen, None)
    assert decided is not None
    assert {getattr(one, name) for one in decided[1]} == {1.0}


@pytest.mark.parametrize(("what", "share"), [("bytes", "parameters"), ("macs", "macs")])
def test_products_are_made_of_networks_that_are_mostly_linear_layers(what, share):
    samples = Samples((np.zeros((2, 12), np.float32),), np.zeros(2, np.int64))
    budget = Budget.of(f"drop<=1%, minimize={what}")
    linear = TorchNetwork.of(nn.Sequential(nn.Linear(12, 40), nn.ReLU(), nn.Linear(40, 3)), samples).graph()
    family = Family.of(budget, "cross_entropy", Target(), 0, linear)
    assert "ranks" in family.ranges(1.0)
    factorize, *_ = family.plan(Candidate(ranks=0.7)).steps
    assert isinstance(factorize, Factorize)
    assert getattr(factorize, share) == 0.7
    images = Samples((np.zeros((2, 3, 6, 6), np.float32),), np.zeros(2, np.int64))
    convolutions = TorchNetwork.of(Residual(12), images).graph()
    assert "ranks" not in Family.of(budget, "cross_entropy", Target(), 0, convolutions).ranges(1.0)


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.stem, self.inner = nn.Conv2d(3, width, 3), nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        return self.head((x + self.inner(x)).mean((2, 3)))


@pytest.mark.parametrize(("width", "multiple"), [(12, 1), (16, 8)])
def test_layers_wide_enough_keep_as_many_channels_as_kernels_work_on_and_branches_go_first(width, multiple):
    samples = Samples((np.zeros((2, 3, 6, 6), np.float32),), np.zeros(2, np.int64))
    graph = TorchNetwork.of(Residual(width), samples).graph()
    family = Family.of(Budget.of("drop<=1%, minimize=latency"), "cross_entropy", Target(), 0, graph)
    shorten, cut, recover, _, _, train = family.plan(Candidate(depth=0.7, keep=0.5, epochs=10.0)).steps
    assert isinstance(shorten, Prune)
    assert isinstance(cut, Prune)
    assert (shorten.unit, shorten.macs) == ("residual", 0.7)
    assert (cut.unit, cut.macs, cut.multiple_of) == ("channel", 0.5, multiple)
    assert recover.epochs + train.epochs == pytest.approx(10.0)
    # Where only bytes count, neither is of use.
    plain = Family.of(Budget.of("drop<=1%, minimize=bytes"), "cross_entropy", Target(), 0, graph)
    assert (plain.shortens, plain.multiple_of) == (False, 1)
    assert "depth" in family.ranges(1.0).keys() - plain.ranges(1.0).keys()
    # Cut as far as they may be, to 1 and to 8 channels of those that stem and inner share; a tenth above it is tried.
    left = {12: (432 + 144 + 5) / (5184 + 20736 + 60), 16: (3456 + 9216 + 40) / (6912 + 36864 + 80)}[width]
    assert family.ranges(1.0)["keep"].low == pytest.approx(1.1 * left)


def test_a_plan_is_as_its_candidate_says():
    family = Family.of(Budget.of("drop<=1%, minimize=bytes"), "cross_entropy", Target(), 5)
    [candidate] = [trial.candidate for trial in climb("drop<=1%")[0][2].trials if trial.candidate.keep == 0.4]
    prune, recover, _, _, train = family.plan(replace(candidate, epochs=10.0)).steps
    assert isinstance(prune, Prune)
    assert isinstance(recover, Finetune)
    assert isinstance(train, Finetune)
    assert prune.macs == 0.4
    assert recover.epochs + train.epochs == pytest.approx(10.0)
    assert train.rate == pytest.approx(16 * candidate.price)  # a divergence at temperature 4 counts by its square
    assert (recover.seed, train.seed) == (5, 5)
    assert isinstance(family.plan(replace(candidate, keep=1.0, epochs=0.0)), Plan)


def test_the_front_holds_what_no_other_beats():
    budget = Budget.of("drop<=1%, minimize=bytes")
    points = tried(climb(budget)[0])
    kept = front(points, budget)
    for _, spent in points:
        assert any(one.bytes <= spent.bytes and one.drop <= spent.drop for _, one in kept)
    for _, spent in kept:
        assert not any(one.bytes < spent.bytes and one.drop < spent.drop for _, one in kept)
