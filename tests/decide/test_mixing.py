"""Layers that choose their bits: what each choice costs, budgets that hold, and the best there is under them."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain, product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import whit
from whit import decide
from whit.data import Data
from whit.decide.footprint import Footprint
from whit.decide.mixing import LayerBits, mix
from whit.decide.sensitivity import Trials, predicted_growth
from whit.ledger import Rounded
from whit.metrics import named
from whit.moments import Moments
from whit.progress import Progress
from whit.search.standing import price_of_a_bit
from whit.steps import Quantize, Rule, settings
from whit.torch.network import TorchNetwork

BYTE = whit.Int(bits=8, symmetric=False, per="tensor")
WIDTHS = (2, 4, 8)


class Net(nn.Module):
    """Four layers, of which ``quiet`` hardly matters to the output."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(2, 8, 3, padding=1)
        self.loud = nn.Conv2d(8, 8, 3, padding=1)
        self.quiet = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)
        with torch.no_grad():
            self.head.weight *= 6

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.loud(x)) + 0.01 * torch.relu(self.quiet(x))
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def data() -> Data:
    random = np.random.default_rng(0)
    x = random.normal(size=(96, 2, 6, 6)).astype(np.float32) + random.normal(size=(96, 2, 1, 1)).astype(np.float32)
    return Data.split(x, random.integers(0, 4, 96))


@pytest.fixture(scope="module")
def network(data: Data) -> TorchNetwork:
    return TorchNetwork.of(Net(), data.train)


def step(**settings: Any) -> Quantize:
    return Quantize(**({"weights": whit.Int(bits=8), "samples": 64, "method": whit.Nearest(clip="mse")} | settings))


class Known:
    """Stands for a footprint, of steps instead of what they decide."""

    def __init__(self, time_of: Callable[[Quantize], float] | None) -> None:
        self.time_of = time_of

    def bytes(self, _: Quantize) -> int:
        raise AssertionError("neither bit operations nor times need a file")

    def share_of_time(self, step: Quantize) -> float:
        assert self.time_of is not None
        return self.time_of(step)


def mixed(
    network: TorchNetwork, data: Data, step: Quantize, time_of: Callable[[Quantize], float] | None = None
) -> tuple[Quantize, list[LayerBits]]:
    known: Any = Known(time_of)

    def itself(step: Quantize) -> Any:
        return step

    return mix(step, network, data.train, "cross_entropy", itself, known, profile="small", progress=Progress())


def macs(network: TorchNetwork) -> dict[str, int]:
    return {layer.name: layer.macs for layer in network.graph().layers()}


@pytest.mark.parametrize("share", [0.3, 0.45, 0.7, 1.0])
def test_the_choice_is_the_best_of_all_under_the_budget(network: TorchNetwork, data: Data, share: float) -> None:
    costs = macs(network)
    budget = int(share * 8 * 8 * sum(costs.values()))
    _, chosen = mixed(network, data, step(activations=BYTE, bits=whit.Mixed(choices=WIDTHS, bops=budget)))

    def cost(bits: tuple[int, ...]) -> int:
        return sum(costs[one.layer] * width * 8 for one, width in zip(chosen, bits, strict=True))

    def growth(bits: tuple[int, ...]) -> float:
        return sum(one.growths[width] for one, width in zip(chosen, bits, strict=True))

    best = min((bits for bits in product(WIDTHS, repeat=4) if cost(bits) <= budget), key=growth)
    found = tuple(one.bits for one in chosen)
    assert cost(found) <= budget
    assert growth(found) == pytest.approx(growth(best), rel=1e-12)
    assert all(one.growth == one.growths[one.bits] for one in chosen)


def test_what_hardly_matters_gets_the_fewest_bits(network: TorchNetwork, data: Data) -> None:
    budget = int(0.45 * 64 * sum(macs(network).values()))
    _, chosen = mixed(network, data, step(activations=BYTE, bits=whit.Mixed(choices=WIDTHS, bops=budget)))
    bits = {one.layer: one.bits for one in chosen}
    assert bits["quiet"] < bits["loud"]


def test_what_is_measured_is_the_divergence_with_that_layer_alone_rounded(network: TorchNetwork, data: Data) -> None:
    use = step(weights=whit.Int(bits=2))
    layers = network.graph().layers()
    found = Trials([use], layers, network, data.train, "cross_entropy", measured=True).run(Progress())
    logits = torch.from_numpy(network.predict(data.train, 64)).double()
    for layer, (trial,) in zip(layers, found, strict=True):
        alone = network.copy()
        alone.apply_(
            decide.round_weights(
                replace(use, rules=(Rule(layers=f"(?!{layer.name}$).*"),)),
                [decide.Weight(one.name, one.weight, network.values()[one.weight]) for one in layers],
            )[0]
        )
        found_logits = torch.from_numpy(alone.predict(data.train, 64)).double()
        expected = nn.functional.kl_div(
            found_logits.log_softmax(1), logits.log_softmax(1), log_target=True, reduction="batchmean"
        )
        assert trial.growth == pytest.approx(float(expected), rel=1e-6)


def test_workers_measure_the_same(data: Data) -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 4)]
    net = TorchNetwork.of(nn.Sequential(*layers), data.train)
    uses = [step(weights=whit.Int(bits=bits), activations=BYTE) for bits in WIDTHS]
    trials = Trials(uses, net.graph().layers(), net, data.train, "cross_entropy", measured=True)
    alone, shared = trials.run(Progress()), trials.run(Progress(), whit.Processes(2))
    assert [len(one) for one in shared] == [3, 3, 3]
    for one, other in zip(chain(*alone), chain(*shared), strict=True):
        assert (one.layer, one.use) == (other.layer, other.use)
        np.testing.assert_array_equal(one.rounded.codes, other.rounded.codes)
        assert other.growth == pytest.approx(one.growth, rel=1e-4)


def test_a_class_that_workers_cannot_import_is_an_error(data: Data) -> None:
    class Local(nn.Sequential):
        pass

    net = TorchNetwork.of(Local(nn.Flatten(), nn.Linear(72, 4)), data.train)
    trials = Trials([step()], net.graph().layers(), net, data.train, "cross_entropy", measured=True)
    with pytest.raises(whit.WorkersError, match="Define the network's class at the top of a module"):
        trials.run(Progress(), whit.Processes(2))


def test_a_prediction_falls_with_the_bits_as_what_is_measured_does(network: TorchNetwork, data: Data) -> None:
    # It takes errors at the places of an image for independent, which they are not where the network averages over
    # them: so layers are ranked, and the height of the growth is too low by up to the number of places.
    uses = [step(weights=whit.Int(bits=bits)) for bits in (3, 4, 6)]
    layers = network.graph().layers()
    measured, predicted = (
        np.array(
            [
                [trial.growth for trial in layer]
                for layer in Trials(uses, layers, network, data.train, "cross_entropy", measured=one).run(Progress())
            ]
        )
        for one in (True, False)
    )
    ratios = (measured[:, :-1] / measured[:, 1:]) / (predicted[:, :-1] / predicted[:, 1:])
    assert ((ratios > 0.25) & (ratios < 4)).all()
    assert (predicted < 2 * measured).all()
    assert (predicted > measured / 36 / 2).all()
    assert (measured.argmin(0) == 2).all()  # quiet
    assert (predicted.argmin(0) == 2).all()


class Grouped(Net):
    """Has a layer of which the groups multiply each row of the weight with other things."""

    def __init__(self) -> None:
        super().__init__()
        self.loud = nn.ConvTranspose2d(8, 8, 3, padding=1, groups=2)  # type: ignore[assignment]


def test_what_cannot_be_predicted_is_said_by_name_and_measured_for_a_search(data: Data) -> None:
    with pytest.raises(whit.PlanError, match=r"Quantize\(bits=...\): what loud reads could not be seen"):
        whit.compress(Grouped(), step(bits=whit.Mixed(choices=WIDTHS, bops=10**7, sensitivity="predicted")), data=data)
    metric = named("accuracy")
    price = price_of_a_bit(TorchNetwork.of(Grouped(), data.train), data, metric, Progress(), None)
    assert 1e-12 < price < 1


def test_a_predicted_growth_is_the_quadratic_form_of_the_error() -> None:
    weights = np.array([[[0.3, 1.0]], [[-1.0, 0.2]]], np.float32)
    weight = decide.Weight("a", "a.weight", weights)
    (rounded,), _ = decide.round_weights(Quantize(weights=whit.Int(bits=2)), [weight])
    second = np.array([[[2.0, 0.5], [0.5, 1.0]]])
    zero = np.zeros((1, 2))
    moments = Moments(second=second, cross=second, mean=zero, original=zero, sensitivity=np.array([3.0, 5.0]))
    # Ternary with the largest weight as step: (0, 1) and (-1, 0), errors (-0.3, 0) and (0, -0.2).
    assert predicted_growth(weight, rounded, moments) == pytest.approx(3 * 2 * 0.09 + 5 * 1 * 0.04, rel=1e-6)


IN_TIME = {"weights": whit.Int(bits=8), "activations": BYTE, "bits": whit.Mixed(choices=(8,), latency=0.7)}


def time_of(network: TorchNetwork) -> Callable[[Quantize], float]:
    """As if integers took 0.4 of the time, for every multiplication."""
    layers = macs(network)

    def known(step: Quantize) -> float:
        use = settings(step, list(layers))
        return sum(count * (0.4 if name in use else 1) for name, count in layers.items()) / sum(layers.values())

    return known


def test_the_fewest_layers_run_in_integers_that_keep_a_call_to_its_time(network: TorchNetwork, data: Data) -> None:
    found, bits = mixed(network, data, step(**IN_TIME), time_of(network))
    count = macs(network)
    assert {one.layer: one.bits for one in bits}.keys() == count.keys()
    assert all(one.growth == one.growths[one.bits] and one.growths[32] == 0 for one in bits)
    costs = {one.layer: one.growths[8] / count[one.layer] for one in bits}
    integers = [one.layer for one in bits if one.bits == 8]
    assert max(costs[name] for name in integers) <= min(costs[one.layer] for one in bits if one.bits == 32)
    assert time_of(network)(found) <= 0.7
    last = max(integers, key=lambda name: costs[name])
    fewer = replace(found, rules=(Rule(layers=last, use=None), *found.rules))
    assert time_of(network)(fewer) > 0.7


def test_a_time_that_integers_do_not_reach_is_an_error(network: TorchNetwork, data: Data) -> None:
    with pytest.raises(whit.PlanError, match=r"all layers in 8 bits a call takes 0\.800 of its time still; allow more"):
        mixed(network, data, step(**IN_TIME), lambda _: 0.8)


def test_what_stays_in_floating_point_for_a_time_does_so_in_the_file(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def share_of_time(_: Footprint, decisions: Sequence[Any]) -> float:
        tried.append(sum(isinstance(one, Rounded) for one in decisions))
        return 1 - tried[-1] / 5  # two of four layers are enough for 0.7

    monkeypatch.setattr(Footprint, "share_of_time", share_of_time)
    result = whit.compress(Net(), Quantize(**IN_TIME), data=data)
    assert sorted(one.bits for one in result.bits) == [8, 8, *[32] * (len(result.bits) - 2)]
    rounded = {name.removesuffix(".weight") for name in result.ledger.rounded()}
    assert rounded == {one.layer for one in result.bits if one.bits == 8}
    assert tried[0] == len(result.bits)
    assert result.parity.agreement == 1


def test_layers_with_rules_keep_their_settings_and_take_their_share(network: TorchNetwork, data: Data) -> None:
    costs = macs(network)
    rules = (Rule(layers="stem", use=Quantize(weights=BYTE, activations=BYTE)), Rule(layers="head"))
    fixed = costs["stem"] * 64 + costs["head"] * 32 * 32
    free = costs["loud"] + costs["quiet"]
    bits = whit.Mixed(choices=WIDTHS, bops=fixed + free * 8 * 3)
    found, chosen = mixed(network, data, step(activations=BYTE, rules=rules, bits=bits))
    assert {one.layer: one.bits for one in chosen} == {"loud": 4, "quiet": 2}
    assert found.bits is None
    assert found.rules[:2] == rules
    assert [rule.layers for rule in found.rules[2:]] == ["loud", "quiet"]
    with pytest.raises(whit.PlanError, match=re.escape(f"{fixed:,} are taken by what does not choose")):
        mixed(network, data, step(activations=BYTE, rules=rules, bits=replace(bits, bops=fixed + 1)))


def test_activations_can_take_the_bits_of_the_weights(network: TorchNetwork, data: Data) -> None:
    costs = macs(network)
    bits = whit.Mixed(choices=(2, 8), bops=64 * sum(costs.values()), activations=True)
    found, chosen = mixed(network, data, step(activations=BYTE, residual=BYTE, bits=bits))
    alone, _ = mixed(network, data, step(activations=BYTE, bits=replace(bits, activations=False))), None
    for rule in found.rules:
        assert rule.use is not None
        assert rule.use.weights == whit.Int(bits=8)
        assert rule.use.activations == BYTE
    for one, other in zip(chosen, alone[1], strict=True):
        assert one.growths[2] > other.growths[2] > 0  # two errors are more than one


def test_a_whole_run_keeps_to_its_bytes_and_says_what_was_chosen(data: Data) -> None:
    plain = whit.compress(Net(), step(weights=whit.Int(bits=8)), data=data)
    narrow = whit.compress(Net(), step(weights=whit.Int(bits=2)), data=data)
    assert not plain.bits
    for share in (0.2, 0.8):
        budget = int(len(narrow.file) + share * (len(plain.file) - len(narrow.file)))
        result = whit.compress(Net(), step(bits=whit.Mixed(bytes=budget)), data=data)
        assert 0.9 * budget < len(result.file) <= budget
        rounded = result.ledger.rounded()
        assert {f"{one.layer}.weight": one.bits for one in result.bits} == {
            name: decision.target.bits  # type: ignore[attr-defined]
            for name, decision in rounded.items()
        }
    from whit.cli.output import facts
    from whit.cli.table import notes

    assert facts(result)["bits"][0]["layer"] == "stem"
    said = "\n".join(notes(result))
    for one in result.bits:
        assert f"{one.layer} ({one.growth:.2g})" in said


def test_optimal_brain_codes_are_tried_as_they_will_be_made(network: TorchNetwork, data: Data) -> None:
    bits = whit.Mixed(choices=WIDTHS, bops=10**9)
    _, nearest = mixed(network, data, step(bits=bits))
    _, brain = mixed(network, data, step(bits=bits, method=whit.OptimalBrain()))
    assert sum(one.growths[2] for one in brain) < sum(one.growths[2] for one in nearest)


def test_a_budget_that_is_too_small_says_what_is_needed(data: Data) -> None:
    with pytest.raises(whit.PlanError, match=r"with the narrowest of .* bits everywhere the file has \d+ bytes"):
        whit.compress(Net(), step(bits=whit.Mixed(bytes=100)), data=data)


def test_rules_for_every_layer_leave_nothing_to_choose(network: TorchNetwork, data: Data) -> None:
    with pytest.raises(whit.PlanError, match="no layer is left to choose its bits"):
        mixed(network, data, step(rules=(Rule(layers=".*"),), bits=whit.Mixed(bops=1)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"choices": ()}, "name bit widths that rise"),
        ({"choices": (4, 2), "bops": 1}, "name bit widths that rise"),
        ({}, "give one of the three a budget"),
        ({"bytes": 1, "bops": 1}, "give one of the three a budget"),
        ({"bytes": 1, "latency": 0.5}, "give one of the three a budget"),
        ({"bytes": 0}, "a budget is at least 1"),
        ({"latency": 2.0, "choices": (8,)}, "a share of the time that a call takes now"),
        ({"latency": 0.5}, r"2, 4 and 8 bits take the same time.*take choices=\(8,\)"),
        ({"latency": 0.5, "choices": (16,)}, r"more are not faster than floating point"),
        ({"latency": 0.5, "choices": (8,), "sensitivity": "predicted"}, "only the errors of weights are predicted"),
        ({"bops": 1, "sensitivity": "guessed"}, 'choose "measured" or "predicted"'),
        ({"bops": 1, "activations": True, "sensitivity": "predicted"}, "only the errors of weights are predicted"),
    ],
)
def test_budgets_that_mean_nothing_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(whit.PlanError, match=message):
        whit.Mixed(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": whit.Codebook(k=4)}, "bits are chosen for integers"),
        ({"method": whit.OptimalBrain(rate=1e-6)}, "a price of a bit chooses the steps itself"),
        ({"method": whit.OptimalBrain(), "target_bytes": 9}, "two budgets"),
        ({"bits": whit.Mixed(bops=1, activations=True)}, "give the activations a format to take bits in"),
        ({"bits": whit.Mixed(choices=(8,), latency=0.5)}, "faster only where activations have at most 8 bits too"),
        ({"weights": whit.Int(bits=8, reduce_range=True)}, r"reduce_range=True\) would leave a single bit"),
        ({"rules": (Rule(layers="a", use=Quantize(bits=whit.Mixed(bops=1))),)}, "one budget is for all layers"),
    ],
)
def test_steps_that_cannot_choose_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(whit.PlanError, match=message):
        Quantize(**({"bits": whit.Mixed(bops=1)} | settings))


def test_nothing_is_left_of_a_trial(network: TorchNetwork, data: Data) -> None:
    before = {name: values.copy() for name, values in network.values().items()}
    bits = whit.Mixed(choices=WIDTHS, bops=10**9, activations=True)
    mixed(network, data, step(activations=BYTE, bits=bits))
    for name, values in network.values().items():
        np.testing.assert_array_equal(values, before[name])
