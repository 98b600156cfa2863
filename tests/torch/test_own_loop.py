"""A training loop of the user's own: plain PyTorch between ``prepare`` and ``finish``."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import whit
import whit.torch
from whit import Data, Finetune, FoldBatchNorm, Int, Plan, Prune, Quantize, _core
from whit.torch.own_loop import Prepared

BYTE = Int(bits=8, symmetric=False, per="tensor")
TUNE = Finetune(epochs=1)


def problem(width: int = 16) -> tuple[nn.Module, Data]:
    """Points of three clouds, and a network that has learned them."""
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 400)
    x = (random.normal(size=(400, 6)) + 3 * np.eye(6)[y]).astype(np.float32)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 3))
    data = Data.split(x, y)
    loop(module, module, data, steps=80, rate=0.02)
    return module.eval(), data


def loop(module: Any, trained: nn.Module, data: Data, *, steps: int = 60, rate: float = 5e-3, sgd: bool = False) -> Any:
    """A plain training loop that knows nothing of whit but the regulariser and what comes after a step."""
    prepared = module if isinstance(module, Prepared) else None
    make = torch.optim.SGD if sgd else torch.optim.AdamW
    optimizer = make(trained.parameters(), lr=rate)
    random = np.random.default_rng(0)
    trained.train()
    for place in range(steps):
        chosen = random.integers(0, len(data.train), 64)
        (x,), y = data.train.take(chosen)
        loss = nn.functional.cross_entropy(trained(torch.from_numpy(x)), torch.from_numpy(y))
        if prepared is not None:
            loss = loss + prepared.regulariser()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if prepared is not None:
            prepared.after_step(learning_rate=rate, done=place / steps)


def loss_of(module: nn.Module, data: Data) -> float:
    (x,), y = data.train.take(slice(None))
    with torch.no_grad():
        return nn.functional.cross_entropy(module.eval()(torch.from_numpy(x)), torch.from_numpy(y)).item()


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(("trains", "sgd"), [("codes", False), ("codes", True), ("scales", True), ("both", False)])
def test_a_plain_loop_trains_through_rounding_and_masks_and_its_result_is_measured(
    trains: Any, sgd: bool, batch_norm: bool
) -> None:
    module, data = problem()
    plan = Plan(
        FoldBatchNorm(),
        Prune(amount=0.5),
        Quantize(weights=Int(bits=2), activations=BYTE),
        Finetune(epochs=1, trains=trains, batch_norm=batch_norm),
    )
    prepared = whit.torch.prepare(module, plan, data=data)
    untrained = loss_of(prepared.module, data)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    loop(prepared, prepared.module, data, rate=0.05 if sgd else 5e-3, sgd=sgd)
    trained = loss_of(prepared.module, data)
    result = prepared.finish()
    assert loss_of(result.model, data) == pytest.approx(trained, rel=0.01)  # biases are rounded when it is delivered
    values = result.model.state_dict()
    for name, decision in result.ledger.masks().items():
        assert (values[name].numpy()[~decision.mask] == 0).all()
    for name, rounded in result.ledger.rounded().items():
        np.testing.assert_array_equal(values[name].numpy(), rounded.values())
    assert type(result.model) is type(module)
    assert result.parity.agreement == 1
    assert loss_of(result.model, data) < 0.9 * untrained
    assert result.after.quality > 0.8
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_network_is_what_the_plan_made_of_it_until_it_is_trained() -> None:
    module, data = problem()
    plan = Plan(FoldBatchNorm(), Prune(amount=0.5), Quantize(weights=Int(bits=4), activations=BYTE))
    expected = whit.compress(module, plan, data=data)
    prepared = whit.torch.prepare(module, Plan(*plan.steps, TUNE), data=data)
    (x,), _ = data.test.take(slice(0, 32))
    with torch.no_grad():
        found, original = prepared.module.eval()(torch.from_numpy(x)), prepared.teacher(torch.from_numpy(x))
        wanted = expected.model(torch.from_numpy(x))
        assert torch.equal(original, module(torch.from_numpy(x)))
    torch.testing.assert_close(found, wanted, atol=0.05, rtol=0)  # biases are rounded last
    assert not torch.equal(found, original)
    result = prepared.finish()
    for name, rounded in expected.ledger.rounded().items():
        np.testing.assert_array_equal(result.ledger.rounded()[name].codes, rounded.codes)
    assert result.after.bytes == pytest.approx(expected.after.bytes, abs=60)  # the plan in the file has one more step


def test_weights_keep_their_unit_so_that_the_gradient_of_a_rounded_one_is_that_of_what_it_is_rounded_to() -> None:
    module, data = problem()
    prepared = whit.torch.prepare(module, Plan(FoldBatchNorm(), Quantize(weights=Int(bits=8)), TUNE), data=data)
    (x,), y = data.train.take(slice(0, 64))
    nn.functional.cross_entropy(prepared.module(torch.from_numpy(x)), torch.from_numpy(y)).backward()
    plain = prepared.teacher.train().requires_grad_(True)
    head = prepared.module.network[3].weight.grad  # type: ignore[index]
    plain.eval()
    nn.functional.cross_entropy(plain(torch.from_numpy(x)), torch.from_numpy(y)).backward()
    # Eight bits of weights: as good as the same, but for the rounding itself.
    torch.testing.assert_close(head, plain[3].weight.grad, atol=0.002, rtol=0.05)  # type: ignore[index]


def test_a_price_of_bits_makes_codes_cheaper_and_the_regulariser_says_what_they_cost() -> None:
    module, data = problem(width=256)
    rounding = FoldBatchNorm(), Quantize(weights=Int(bits=6))
    untrained = bits_of(whit.compress(module, Plan(*rounding), data=data))
    bits, prices = [], []
    for rate in (0.0, 2e-3):
        prepared = whit.torch.prepare(module, Plan(*rounding, Finetune(epochs=1, rate=rate)), data=data)
        prices.append(prepared.regulariser().item())
        loop(prepared, prepared.module, data, steps=150)
        bits.append(bits_of(prepared.finish()))
    assert prices == [0, pytest.approx(2e-3 * untrained, rel=0.01)]
    assert bits[1] < 0.985 * bits[0]  # 0.94 to 0.965 of three networks, on one thread and on two


def bits_of(result: whit.Result[Any]) -> float:
    """What the codec's model says of all codes."""
    return sum(_core.model_bits(one.codes) for one in result.ledger.rounded().values())


def test_a_penalty_shrinks_after_each_step_and_needs_to_know_the_learning_rate() -> None:
    module, data = problem()
    plan = Plan(Finetune(epochs=1, penalty=whit.L1(strength=0.05)), Prune(amount=0.5))
    prepared = whit.torch.prepare(module, plan, data=data)
    with pytest.raises(whit.PlanError, match=r"call after_step\(learning_rate=\.\.\., done=\.\.\.\)"):
        prepared.after_step()
    loop(prepared, prepared.module, data, rate=0.1, sgd=True)
    weights = prepared.module.network[0].weight  # type: ignore[index]
    assert (weights == 0).float().mean() > 0.2
    result = prepared.finish()  # with the steps that come after the training
    assert all(decision.mask.mean() == 0.5 for decision in result.ledger.masks().values())


def test_a_training_that_is_finished_cannot_be_finished_again() -> None:
    module, data = problem()
    prepared = whit.torch.prepare(module, TUNE, data=data)
    prepared.finish()
    with pytest.raises(whit.PlanError, match="this training is finished"):
        prepared.finish()


def test_a_plan_without_a_training_leaves_nothing_to_do() -> None:
    module, data = problem()
    with pytest.raises(whit.PlanError, match=r"this plan has nothing to train.*first Finetune, and it has none"):
        whit.torch.prepare(module, Plan(FoldBatchNorm(), Quantize()), data=data)


def test_a_network_whose_parameters_are_frozen_keeps_them() -> None:
    module, data = problem()
    module[3].requires_grad_(False)  # type: ignore[index]
    prepared = whit.torch.prepare(
        module, Plan(FoldBatchNorm(), Quantize(), Finetune(epochs=1, trains="scales")), data=data
    )
    assert [one.requires_grad for one in prepared.module.network.parameters()] == [False, True, False, False]
    result = prepared.finish()
    assert [one.requires_grad for one in result.model.parameters()] == [True, True, False, False]
