"""Bit widths for layers under one budget: each layer's trials become options, and the best choice becomes rules."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan

import numpy as np

from whit import store
from whit.allocate import Option, choose, least
from whit.data import Samples
from whit.decide.footprint import Footprint
from whit.decide.sensitivity import Trial, Trials
from whit.decide.weights import layer_names, weights_beside
from whit.errors import PlanError, listed
from whit.formats import Int
from whit.graph import Graph, Layer
from whit.ledger import Decision, Ledger
from whit.metrics import Loss
from whit.mixed import Mixed
from whit.network import Network
from whit.progress import Progress
from whit.steps import Quantize, Rule, setting, settings
from whit.store import Profile
from whit.workers import Workers

__all__ = ["LayerBits", "mix"]

_ATTEMPTS = 20
"""How often a file is made to see whether its bytes keep to the budget."""
_FLOAT = 32
"""Bits of what stays in floating point."""
_STAYS = -1
"""In place of a trial: the layer stays in floating point."""

Rounding = Callable[[Quantize], Sequence[Decision]]
"""What a step decides."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerBits:
    """The bits that a layer was given.

    Attributes:
        layer: Its name.
        bits: What was chosen.
        growth: What the loss grows by when this layer alone has so many bits; see ``Mixed.sensitivity``.
        growths: The same for every width that could have been chosen.
    """

    layer: str
    bits: int
    growth: float
    growths: Mapping[int, float]


def mix(
    step: Quantize,
    network: Network,
    samples: Samples,
    loss: Loss,
    rounded: Rounding,
    footprint: Footprint,
    *,
    profile: Profile,
    progress: Progress,
    workers: Workers | None = None,
) -> tuple[Quantize, list[LayerBits]]:
    """A step whose layers choose their bits as one that has a rule for each of them, and what each chose.

    Args:
        step: With ``bits``.
        network: Before it.
        samples: To observe on.
        loss: What is to grow least.
        rounded: What a step decides.
        footprint: What the whole network takes after that.
        profile: How codes are stored.
        progress: Shows how far it is.
        workers: Who tries the layers.

    Raises:
        PlanError: No layer chooses, or the narrowest widths exceed the budget, or all layers in integers do.
    """
    assert step.bits is not None
    graph = network.graph()
    layers = _choosing(step, graph, network)
    uses = [_use(step, bits) for bits in step.bits.choices]
    measured = step.bits.sensitivity == "measured"
    tried = Trials(uses, layers, network, samples, loss, measured=measured).run(progress, workers)
    if unseen := [one.layer.name for one, *_ in tried if isnan(one.growth)]:
        raise PlanError(
            f"Quantize(bits=...): what {listed(unseen)} reads could not be seen, so its growth is not predicted; "
            'take sensitivity="measured", or give the layer settings of its own by a rule'
        )
    mixture = _Mixture(step, step.bits, tried)
    if step.bits.latency is not None:
        choice = mixture.within_latency(step.bits.latency, lambda use: footprint.share_of_time(rounded(use)))
    elif step.bits.bops is not None:
        choice = mixture.within_bops(step.bits.bops, graph)
    else:
        choice = mixture.within_bytes(step.bits.bytes or 0, lambda use: footprint.bytes(rounded(use)), profile)
    return mixture.at(choice), mixture.report(choice)


def _choosing(step: Quantize, graph: Graph, network: Network) -> list[Layer]:
    """The layers that no rule speaks of."""
    values, every = network.values(), graph.layers()
    # So that a rule which matches no layer is an error.
    settings(step, layer_names(graph, weights_beside(graph, network)))
    matched = [layer for layer in every if any(re.fullmatch(rule.layers, layer.name) for rule in step.rules)]
    found = [layer for layer in every if layer not in matched and values[layer.weight].dtype == np.float32]
    if not found:
        raise PlanError(
            f"Quantize(bits={step.bits}): no layer is left to choose its bits; the rules speak of "
            f"{listed(layer.name for layer in matched)}, and others have no weights of float32"
        )
    return found


def _use(step: Quantize, bits: int) -> Quantize:
    """The settings of a layer of so many bits."""
    assert isinstance(step.weights, Int)
    assert step.bits is not None
    activations = step.activations
    if step.bits.activations and activations is not None:
        activations = replace(activations, bits=bits)
    return replace(step, bits=None, rules=(), weights=replace(step.weights, bits=bits), activations=activations)


class _Mixture:
    """The trials of every layer, of which a choice takes one each."""

    def __init__(self, step: Quantize, mixed: Mixed, tried: Sequence[Sequence[Trial]]) -> None:
        self.step, self.mixed, self.tried = step, mixed, tried

    def at(self, choice: Sequence[int]) -> Quantize:
        """The step with a rule for every layer that chose."""
        rules = [
            Rule(layers=re.escape(layer[0].layer.name), use=None if place == _STAYS else layer[place].use)
            for layer, place in zip(self.tried, choice, strict=True)
        ]
        return replace(self.step, bits=None, rules=(*self.step.rules, *rules))

    def report(self, choice: Sequence[int]) -> list[LayerBits]:
        """What every layer chose."""
        found: list[LayerBits] = []
        for layer, place in zip(self.tried, choice, strict=True):
            growths = {bits: trial.growth for bits, trial in zip(self.mixed.choices, layer, strict=True)}
            if self.mixed.latency is not None:
                growths[_FLOAT] = 0.0
            bits = _FLOAT if place == _STAYS else self.mixed.choices[place]
            found.append(LayerBits(layer=layer[0].layer.name, bits=bits, growth=growths[bits], growths=growths))
        return found

    def within_bops(self, budget: int, graph: Graph) -> list[int]:
        """The best choice whose bit operations, with those of layers that did not choose, keep to the budget."""
        choosing = {layer[0].layer.name for layer in self.tried}
        fixed = sum(
            _bops(layer, setting(self.step, layer.name)) for layer in graph.layers() if layer.name not in choosing
        )
        return self._choose(lambda trial: _bops(trial.layer, trial.use), budget, fixed)

    def within_bytes(self, budget: int, size_of: Callable[[Quantize], int], profile: Profile) -> list[int]:
        """The best choice with which the whole file keeps to the budget."""
        lengths = {
            id(trial): len(store.encode(Ledger().record(trial.rounded), None, {}, profile=profile))
            for layer in self.tried
            for trial in layer
        }

        def cost(trial: Trial) -> int:
            return lengths[id(trial)]

        narrowest = [min(range(len(layer)), key=lambda place, of=layer: cost(of[place])) for layer in self.tried]
        least = sum(cost(layer[place]) for layer, place in zip(self.tried, narrowest, strict=True))
        smallest = size_of(self.at(narrowest))
        if smallest > budget:
            raise PlanError(
                f"Quantize(bits=Mixed(bytes={budget})): with the narrowest of {self.mixed.choices} bits everywhere the "
                f"file has {smallest} bytes still; allow more, offer fewer bits, or prune channels first"
            )
        # What the file has beside these codes hardly depends on the choice; what it does is seen on whole files.
        beside = smallest - least
        for _ in range(_ATTEMPTS):
            if least + beside > budget:
                break
            choice = self._choose(cost, budget, beside)
            size = size_of(self.at(choice))
            if size <= budget:
                return choice
            taken = sum(cost(layer[place]) for layer, place in zip(self.tried, choice, strict=True))
            beside = max(beside + size - budget, budget - taken + 1)  # that choice is none any more
        return narrowest

    def within_latency(self, budget: float, share_of_time: Callable[[Quantize], float]) -> list[int]:
        """The fewest layers in integers with which a call keeps to its time, those that cost the loss least first."""
        costs = [layer[0].growth / max(layer[0].layer.macs, 1) for layer in self.tried]
        order = np.argsort(costs, kind="stable")

        def first(share: float) -> list[int]:
            choice = np.full(len(order), _STAYS)
            choice[order[: round(share * len(order))]] = 0
            return choice.tolist()

        if (all_of_them := share_of_time(self.at(first(1.0)))) > budget:
            raise PlanError(
                f"Quantize(bits=Mixed(latency={budget})): with all layers in {self.mixed.choices[0]} bits a call takes "
                f"{all_of_them:.3f} of its time still; allow more, or cut channels first, with Prune(latency=...)"
            )
        tries = len(order).bit_length()
        return first(least(lambda share: share_of_time(self.at(first(share))) <= budget, tries, low=1 / len(order)))

    def _choose(self, cost: Callable[[Trial], int], budget: int, fixed: int) -> list[int]:
        options = [[Option(cost=cost(trial), growth=trial.growth) for trial in layer] for layer in self.tried]
        try:
            return choose(options, budget - fixed)
        except PlanError as error:
            raise PlanError(
                f"Quantize(bits={self.mixed}): {fixed:,} are taken by what does not choose, and of the rest {error}; "
                "allow more, or offer fewer bits"
            ) from error


def _bops(layer: Layer, use: Quantize | None) -> int:
    """Bit operations of a layer for one sample."""
    weights = use.weights if use is not None else None
    read = use.activations if use is not None else None
    return layer.macs * (weights.bits if isinstance(weights, Int) else _FLOAT) * (read.bits if read else _FLOAT)
