"""Pruning a module: every score, unit and scope; and zeros that stay zeros through every later step."""

from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

import whit
from whit import (
    L1,
    LAMP,
    NM,
    Block,
    Data,
    Equalize,
    Finetune,
    Fisher,
    FoldBatchNorm,
    Gradient,
    GroupLasso,
    GrowingPenalty,
    Hessian,
    Int,
    Magnitude,
    OptimalBrain,
    Plan,
    Prune,
    Quantize,
    Random,
    Regrow,
    Rewind,
    Taylor,
    Wanda,
    schedules,
)
from whit.decide import Weight, pruning
from whit.decide.scoring import Asked, Evidence, weigh
from whit.graph.coupling import couple
from whit.ledger import Ledger, Masked
from whit.metrics import Accuracy
from whit.progress import Progress
from whit.run import Run
from whit.steps import Step
from whit.torch.network import TorchNetwork

X = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
Y = X[:, :4].argmax(1)
DATA = Data.of(X, Y, X, Y)
PLAN = Plan(Prune(amount=0.5))  # what files say of a run that is made by hand
TRAIN = Finetune(epochs=1, batch_size=32)
SCORES = [Magnitude(norm=1), Gradient(), Taylor(), Fisher(), Wanda(), Hessian(), LAMP(), Random()]
UNITS = ["weight", NM(n=2, m=4), Block(rows=2, columns=2)]
SCOPES = ["row", "layer", "global", "erk"]
MASKED = ["0.weight", "3.weight", "5.weight"]


def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 12, bias=False), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4)
    )


def after(*steps: Step) -> Run:
    """The network after steps, as ``whit.compress`` has it, unmeasured."""
    original = TorchNetwork.of(module(), DATA.train)
    run = Run(original, PLAN, DATA, Accuracy(), Progress(), "small")
    for step in Plan(*steps).steps:
        run.take(step)
    return run


def weights(run: Run) -> dict[str, np.ndarray]:
    return {name: np.array(run.network.values()[name]) for name in MASKED}


@pytest.fixture(scope="module")
def weighed() -> dict[Asked, np.ndarray]:
    net = TorchNetwork.of(module(), DATA.train)
    evidence = Evidence(samples=DATA.train, most=64, loss="cross_entropy")
    return weigh(list(product(MASKED, SCORES)), net, evidence)


POSSIBLE = [
    (unit, scope)
    for unit, scope in product(UNITS, SCOPES)
    if not (isinstance(unit, NM) and scope != "layer") and not (isinstance(unit, Block) and scope == "row")
]


@pytest.mark.parametrize("score", SCORES, ids=repr)
@pytest.mark.parametrize(("unit", "scope"), POSSIBLE, ids=repr)
def test_every_score_prunes_every_unit_in_every_scope(weighed: dict, score, unit, scope) -> None:  # type: ignore[no-untyped-def]
    values = {name: array.detach().numpy() for name, array in module().named_parameters()}
    layers = [Weight(name.removesuffix(".weight"), name, values[name]) for name in MASKED]
    step = Prune(amount=0.5, unit=unit, scope=scope, score=score)
    masks, skipped = pruning.mask_weights(step, layers, lambda _: weighed)
    # Whatever the scores, a layer keeps its best; only where layers share one amount can one be left with these alone.
    assert all(scope == "global" and "so that it is not empty" in one.reason for one in skipped)
    gone, size = sum(int((~one.mask).sum()) for one in masks), sum(one.mask.size for one in masks)
    assert abs(gone - size / 2) <= 4 * len(masks)  # a block or a rounding a layer
    assert all(one.mask.shape == values[one.parameter].shape for one in masks)
    assert all(one.mask.any() for one in masks)


@pytest.mark.parametrize("unit", UNITS, ids=repr)
def test_weights_that_stay_make_up_for_those_that_go(unit) -> None:  # type: ignore[no-untyped-def]
    expected = TorchNetwork.of(module(), DATA.train).predict(DATA.train)
    step = Prune(amount=0.5, unit=unit)
    plain = after(FoldBatchNorm(), step)
    better = after(FoldBatchNorm(), Prune(amount=0.5, unit=unit, compensate=True))
    for name, masked in better.ledger.masks().items():
        assert np.array_equal(masked.mask, plain.ledger.masks()[name].mask)
        assert not weights(better)[name][~masked.mask].any()
    errors = [np.square(run.network.predict(DATA.train) - expected).mean() for run in (plain, better)]
    assert errors[1] < 0.8 * errors[0]


def test_a_layer_makes_of_what_it_reads_the_nearest_that_its_mask_allows() -> None:
    # One layer alone: least squares with the columns that stay, and a bias.
    torch.manual_seed(0)
    net = TorchNetwork.of(nn.Sequential(nn.Linear(8, 3)), DATA.train)
    run = Run(net, PLAN, Data.of(X, Y % 3, X, Y % 3), Accuracy(), Progress(), "small")
    run.take(Prune(amount=0.5, compensate=True))
    mask, found = run.ledger.masks()["0.weight"].mask, run.network.predict(DATA.train)
    wanted = net.predict(DATA.train)
    for row in range(3):
        columns = np.hstack([X[:, mask[row]], np.ones((len(X), 1), np.float32)])
        best = columns @ np.linalg.lstsq(columns, wanted[:, row], rcond=None)[0]
        least = np.square(best - wanted[:, row]).mean()
        assert np.square(found[:, row] - wanted[:, row]).mean() == pytest.approx(least, rel=0.01)


def sparsegpt(weights: np.ndarray, second: np.ndarray, unit: str | NM) -> np.ndarray:
    """Half of the weights gone by the column recursion of Frantar and Alistarh (2023), as its paper describes it."""
    left = weights.astype(np.float64)
    damped = second + 0.01 * second.diagonal().mean() * np.eye(len(second))
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    width = 4 if isinstance(unit, NM) else 16
    for begin in range(0, left.shape[1], width):
        score = np.square(left[:, begin : begin + width] / upper.diagonal()[begin : begin + width])
        among = np.sort(score, axis=1)[:, [1]] if isinstance(unit, NM) else np.sort(score, None)[score.size // 2 - 1]
        mask = score > among
        for column in range(begin, min(begin + width, left.shape[1])):
            kept = left[:, column] * mask[:, column - begin]
            error = (left[:, column] - kept) / upper[column, column]
            left[:, column:] -= error[:, None] * upper[column, column:]
            left[:, column] = kept
    return left


@pytest.mark.parametrize(("unit", "shares"), [("weight", (1.0,)), ("weight", (0.5, 0.8, 1.0)), (NM(n=2, m=4), (1.0,))])
def test_less_is_lost_than_by_the_recursion_of_sparsegpt(unit, shares) -> None:  # type: ignore[no-untyped-def]
    random = np.random.default_rng(0)
    mixed = random.standard_normal((48, 48)) / np.sqrt(np.arange(1, 49))[:, None]
    x = random.standard_normal((1024, 48)) @ mixed
    x = (x - x.mean(0)).astype(np.float32)  # so that a bias makes up for nothing
    torch.manual_seed(0)
    layer = nn.Linear(48, 32)
    data = Data.of(x, np.arange(1024) % 32, x[:8], np.arange(8))
    run = Run(TorchNetwork.of(nn.Sequential(layer), data.train), PLAN, data, Accuracy(), Progress(), "small")
    for share in shares:
        run.take(Prune(amount=0.5 * share, unit=unit, score=Hessian(), compensate=True, samples=1024))
    second, before = x.astype(np.float64).T @ x / len(x), layer.weight.detach().numpy()
    ours, theirs = (
        np.einsum("ri,ij,rj->", after - before, second, after - before)
        for after in (np.array(run.network.values()["0.weight"]), sparsegpt(before, second, unit))
    )
    assert ours < (0.5 if unit == "weight" else 0.95) * theirs


def test_what_is_chosen_in_rounds_is_as_much_as_was_asked_beside_what_was_gone() -> None:
    first = after(FoldBatchNorm(), Prune(amount=0.5)).ledger.masks()
    run = after(FoldBatchNorm(), Prune(amount=0.5), Prune(amount=0.6, score=Hessian(), compensate=True))
    for name, masked in run.ledger.masks().items():
        assert not (masked.mask & ~first[name].mask).any()
        assert (~masked.mask).sum() == round(0.6 * masked.mask.size)
        assert not weights(run)[name][~masked.mask].any()


# Zeros stay.

LATER: dict[str, Step] = {
    "finetune": TRAIN,
    "distil": Finetune(epochs=1, batch_size=32, distill=whit.Distill()),
    "penalty": Finetune(epochs=1, batch_size=32, penalty=L1(strength=0.1)),
    "fold": FoldBatchNorm(),
    "equalize": Equalize(),
    "weights": Prune(amount=0.6),
    "compensate": Prune(amount=0.6, compensate=True),
    "channels": Prune(amount=0.25, unit="channel"),
    "rewind": Rewind(),
    "quantize": Quantize(),
    "optimal": Quantize(method=OptimalBrain(rate=1e-4)),
}
ROUNDS = ("quantize", "optimal")


def pairs() -> list[tuple[str, str]]:
    """Every pair of later steps that a plan allows; what rounds reads folded layers."""
    found = []
    for one, other in product(LATER, LATER):
        if (one in ROUNDS and other not in (*ROUNDS, "finetune", "distil")) or one == other == "fold":
            continue
        found.append((one, other))
    return found


@pytest.mark.parametrize(("one", "other"), pairs())
def test_zeros_stay_through_every_pair_of_later_steps(one: str, other: str) -> None:
    first = [] if "fold" in (one, other) else [FoldBatchNorm()]
    run = after(*first, Prune(amount=0.5), LATER[one], LATER[other])
    found = weights(run)
    masks = run.ledger.masks()
    assert masks.keys() == set(MASKED)
    for name, masked in masks.items():
        assert masked.mask.shape == found[name].shape
        assert not found[name][~masked.mask].any()
    kept = [cut for cut in run.ledger.structure if type(cut).__name__ == "Kept"]
    if not kept:
        assert all((~masked.mask).mean() >= 0.5 for masked in masks.values())


@pytest.mark.parametrize("unit", [NM(n=2, m=4), Block(rows=2, columns=2)], ids=repr)
def test_zeros_stay_in_the_file_in_what_is_loaded_and_in_the_graph(unit, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    plan = Plan(FoldBatchNorm(), Prune(amount=0.5, unit=unit), TRAIN, Quantize(weights=Int(bits=4)), TRAIN)
    result = whit.compress(module(), plan, data=DATA)
    whit.save(result, tmp_path / "model.whit")
    loaded = whit.load(tmp_path / "model.whit", into=module())
    masks = result.ledger.masks()
    for name, masked in masks.items():
        for one in (result.model, loaded):
            assert not one.get_parameter(name).detach().numpy()[~masked.mask].any()
    graph = onnx.load_from_string(result.onnx).graph
    codes = [numpy_helper.to_array(one) for one in graph.initializer if len(one.dims) == 2]
    zeros = sum(int((np.asarray(one, np.float32) == 0).sum()) for one in codes)
    assert len(codes) >= len(masks)
    assert zeros >= sum(int((~masked.mask).sum()) for masked in masks.values())


# Giving back, going back.


def test_of_what_is_masked_what_the_loss_pulls_at_most_comes_back() -> None:
    run = after(Prune(amount=0.75), Regrow(amount=0.25))
    before = after(Prune(amount=0.75))
    evidence = Evidence(samples=DATA.train, most=512, loss="cross_entropy")
    scores = weigh([(name, Gradient()) for name in MASKED], before.network, evidence)
    for name, masked in run.ledger.masks().items():
        old = before.ledger.masks()[name].mask
        came = masked.mask & ~old
        assert masked.mask[old].all()
        assert came.sum() == round(0.25 * old.size)
        assert not weights(run)[name][came].any()
        score = scores[name, Gradient()]
        assert score[came].min() >= score[~masked.mask].max()


def test_what_came_back_is_trained_again() -> None:
    run = after(Prune(amount=0.75), Regrow(amount=1.0), TRAIN)
    assert all(masked.mask.all() for masked in run.ledger.masks().values())
    assert all((one != 0).mean() > 0.5 for one in weights(run).values())  # a quarter was left


def test_rewinding_gives_the_values_back_but_for_the_zeros() -> None:
    run = after(FoldBatchNorm(), Prune(amount=0.5), TRAIN, Rewind())
    folded = weights(after(FoldBatchNorm()))
    for name, masked in run.ledger.masks().items():
        np.testing.assert_array_equal(weights(run)[name], folded[name] * masked.mask)


@pytest.mark.parametrize("make", [schedules.gradual, schedules.rewinding, schedules.alternating, schedules.regrowing])
def test_every_schedule_ends_as_sparse_as_asked(make) -> None:  # type: ignore[no-untyped-def]
    run = after(*make(Prune(amount=0.75), Finetune(epochs=2, batch_size=32), rounds=2))
    for masked in run.ledger.masks().values():
        assert (~masked.mask).sum() == round(0.75 * masked.mask.size)


def test_masks_are_replaced_only_on_purpose() -> None:
    one, other = (Masked(parameter="w", mask=np.array(mask)) for mask in ([True, False, False], [False, True, True]))
    ledger = Ledger().record(one)
    assert not ledger.record(other).masks()["w"].mask.any()
    assert ledger.unmask([other]).masks()["w"].mask.tolist() == [False, True, True]


# Penalties.


def test_an_l1_penalty_makes_zeros() -> None:
    plain = after(Finetune(epochs=4, batch_size=32))
    run = after(Finetune(epochs=4, batch_size=32, learning_rate=0.01, penalty=L1(strength=2.0)))
    assert all((one != 0).all() for one in weights(plain).values())
    # 8 steps of at most 0.01 move weights by 0.08 with AdamW, and the penalty by up to twice that.
    assert all((one == 0).any() for one in weights(run).values())


def test_a_group_lasso_makes_whole_channels_zero() -> None:
    run = after(Finetune(epochs=8, batch_size=32, learning_rate=0.02, penalty=GroupLasso(strength=4.0)))
    values = weights(run)
    for group in couple(run.network.graph()).groups:
        rows = [
            np.moveaxis(values[key.parameter], key.axis, 0)[indices[:, 0]]
            for key, indices in group.cuts.items()
            if key.parameter in MASKED
        ]
        dead = [~row.any(axis=1) for row in rows]
        assert dead[0].any()
        assert all((one == dead[0]).all() for one in dead)  # what makes the channel, and what reads it


def test_a_growing_penalty_shrinks_what_was_smallest_and_leaves_the_rest() -> None:
    step = Finetune(epochs=4, batch_size=32, learning_rate=0.01)
    penalty = GrowingPenalty(strength=100.0, amount=0.5, unit="weight")
    before = weights(after(FoldBatchNorm()))
    found = weights(after(FoldBatchNorm(), Finetune(epochs=4, batch_size=32, learning_rate=0.01, penalty=penalty)))
    plain = weights(after(FoldBatchNorm(), step))
    for name, one in found.items():
        smallest = np.abs(before[name]) < np.quantile(np.abs(before[name]), 0.25)
        assert np.abs(one[smallest]).mean() < 0.8 * np.abs(plain[name][smallest]).mean()
