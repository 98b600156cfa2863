"""What each step chooses: from a network and a step to decisions, without changing anything."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from whit.allocate import keep_units, keep_weights
from whit.coupling import Group, couple
from whit.data import Array, Samples
from whit.errors import PlanError
from whit.formats import Floats, Int, short
from whit.graph import Graph, Layer
from whit.labels import is_depthwise
from whit.ledger import (
    Assigned,
    Axis,
    Folded,
    Kept,
    Ledger,
    Masked,
    Rounded,
    RoundedActivation,
    RoundedBias,
    matrix,
)
from whit.metrics import Loss
from whit.moments import Moments
from whit.network import Network
from whit.placement import integer_inputs, rounded_activations
from whit.plan import Prune, Quantize, settings
from whit.ranges import Histogram, Range

__all__ = [
    "Cut",
    "Skipped",
    "Weight",
    "activation_grid",
    "biases",
    "channels",
    "check_masks",
    "cutting",
    "folds",
    "mask_weights",
    "observed_codes",
    "reasons",
    "round_weights",
    "rounding",
    "runs_in_integers",
    "single_weights",
]


class Weight(NamedTuple):
    """A layer's weight, whichever framework holds it.

    Attributes:
        layer: Name of the layer, which rules match.
        parameter: Name of the weight.
        values: Two or more axes, floating point, finite; not to be written to.
        axis: The output channels' axis, 0 or more.
    """

    layer: str
    parameter: str
    values: Array
    axis: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Skipped:
    """Something that a step could not do, and why.

    Attributes:
        step: The step's kind.
        layer: Name of the layer that stays as it is.
        reason: Why.
    """

    step: str
    layer: str
    reason: str


def folds(network: Network) -> Sequence[Folded]:
    """Every batch normalisation that can be folded.

    Raises:
        PlanError: There is none.
    """
    found = network.foldable()
    if not found:
        raise PlanError("FoldBatchNorm: no batch normalisation follows a convolution or linear layer; drop the step")
    return found


def single_weights(step: Prune, network: Network) -> list[Masked]:
    """Masks over the weights of every layer that the step prunes."""
    return mask_weights(step, _weights(network.graph().layers(), network))


def mask_weights(step: Prune, weights: Sequence[Weight]) -> list[Masked]:
    """Masks over the weights that a step with ``unit="weight"`` prunes.

    Raises:
        PlanError: A rule matches none of the layers.
    """
    chosen = settings(step, [weight.layer for weight in weights])
    scores: dict[str, Floats] = {}
    amounts: dict[str, float] = {}
    for weight in weights:
        if weight.layer in chosen:
            use = chosen[weight.layer]
            scores[weight.parameter] = use.score.weights(np.asarray(weight.values, np.float32))
            amounts[weight.parameter] = use.amount
    masks = keep_weights(scores, amounts, together=step.scope == "global")
    return [Masked(parameter=name, mask=mask) for name, mask in masks.items()]


def round_weights(
    step: Quantize, weights: Sequence[Weight], chosen: Mapping[str, Quantize] | None = None
) -> tuple[list[Rounded], list[Skipped]]:
    """Codes of the weights that a step quantizes, and the weights that cannot hold what codes stand for.

    Args:
        step: With its rules.
        weights: Of layers.
        chosen: The settings by layer, where they are known already.

    Raises:
        PlanError: A rule matches none of the layers.
    """
    chosen = settings(step, [weight.layer for weight in weights]) if chosen is None else chosen
    decisions: list[Rounded] = []
    skipped: list[Skipped] = []
    for layer, parameter, values, axis in weights:
        target = chosen[layer].weights if layer in chosen else None
        if layer in chosen and values.dtype != np.float32:
            reason = f"its weights are {values.dtype}, not float32"
            skipped.append(Skipped(step="quantize", layer=layer, reason=reason))
        elif target is not None:
            codes = chosen[layer].method.quantize(matrix(values, axis), target)
            decisions.append(Rounded.of(parameter, target, values.shape, codes, axis))
    return decisions, skipped


def check_masks(rounded: Sequence[Rounded], ledger: Ledger) -> None:
    """Raise ``PlanError`` if a weight that was pruned would be something else than zero once it is rounded."""
    masks = ledger.masks()
    for decision in rounded:
        if decision.parameter in masks and decision.values()[~masks[decision.parameter].mask].any():
            raise PlanError(
                f"Quantize: {decision.parameter} was pruned, and {decision.target.name} has no zero; take Int(bits=2), "
                "whose codes are -1, 0 and 1, or leave the layer out of one of the two by a rule"
            )


def runs_in_integers(weight: Rounded, activation: RoundedActivation) -> bool:
    """Whether runtimes have kernels for products of these: integers of at most 8 bits, a scale a tensor or channel."""
    target = weight.target
    return isinstance(target, Int) and target.per != "group" and max(target.bits, activation.target.bits) <= 8


def reasons(skipped: Sequence[Skipped]) -> str:
    """Why nothing could be done, for a message."""
    return "; ".join(f"{one.layer}: {one.reason}" for one in skipped) or "no layer was chosen"


class Cut(NamedTuple):
    """A group of coupled channels, and the units of it that stay (rising, int64)."""

    group: Group
    units: NDArray[np.int64]


def channels(
    step: Prune, network: Network, graph: Graph, broken: frozenset[str] = frozenset()
) -> tuple[list[Cut], list[Skipped]]:
    """Which channels every group of coupled channels keeps; groups that keep all are left out.

    Args:
        step: With ``unit="channel"``.
        network: As it is now.
        graph: What it computes.
        broken: Names of groups that turned out not to be cuttable.
    """
    layers = graph.layers()
    chosen = settings(step, [layer.name for layer in layers])
    coupling = couple(graph)
    skipped = [
        Skipped(step="prune", layer=name, reason=reason) for name, reason in coupling.frozen.items() if name in chosen
    ]
    groups: dict[str, Group] = {}
    uses: dict[str, Prune] = {}
    for place, group in enumerate(coupling.groups):
        makers = _makers(group, layers)
        left_alone = [name for name in makers if name not in chosen]
        if broken.intersection(makers):
            skipped += [Skipped(step="prune", layer=makers[0], reason="the network's code fixes its width")]
        elif left_alone:
            reason = f"its channels are coupled to {left_alone[0]}, which a rule leaves alone"
            skipped += [Skipped(step="prune", layer=name, reason=reason) for name in makers if name in chosen]
        else:
            key = f"{place}.{group.name}"
            groups[key] = group
            uses[key] = min((chosen[name] for name in makers), key=lambda use: use.amount)
    values = network.values()
    scores = {key: uses[key].score.units(_slices(group, values)) for key, group in groups.items()}
    kept = keep_units(
        scores,
        {key: use.amount for key, use in uses.items()},
        {key: use.multiple_of for key, use in uses.items()},
        together=step.scope == "global",
    )
    return [Cut(groups[key], units) for key, units in kept.items() if units.size < groups[key].size], skipped


def cutting(cuts: Sequence[Cut], graph: Graph) -> list[Kept]:
    """The decisions that make cuts one after the other: each speaks of the indices that those before it leave."""
    left: dict[Axis, NDArray[np.int64]] = {}
    decisions: list[Kept] = []
    for group, units in cuts:
        removed = np.setdiff1d(np.arange(group.size), units)
        axes: dict[Axis, NDArray[np.int64]] = {}
        for key, indices in group.cuts.items():
            before = left.get(key, np.arange(graph.shape(key.parameter)[key.axis]))
            axes[key] = np.flatnonzero(~np.isin(before, indices[removed]))
            left[key] = before[axes[key]]
        decisions.append(Kept(group=group.name, axes=axes, groups=_depthwise_groups(axes, graph)))
    return decisions


def rounding(
    step: Quantize, network: Network, ledger: Ledger, samples: Samples, loss: Loss
) -> tuple[list[Rounded | RoundedActivation | Assigned], list[Skipped]]:
    """Grids of activations, codes of weights, and the biases that make up for what codes miss.

    Raises:
        PlanError: A layer is followed by a batch normalisation that runtimes would merge into its codes.
    """
    graph = network.graph()
    layers = {layer.name: layer for layer in graph.layers()}
    chosen = settings(step, list(layers))
    if unfolded := [fold.into for fold in network.foldable() if fold.into in chosen]:
        raise PlanError(
            f"Quantize: {unfolded[0]} is followed by a batch normalisation, which a runtime would multiply into the "
            "rounded weights; put FoldBatchNorm before Quantize"
        )
    activations, skipped = _rounded_activations(step, chosen, graph, network, ledger, samples)
    if any(use.observes for use in chosen.values()):
        weights, left = _rounded_in_turn(step, list(layers.values()), network, activations, samples, loss)
    else:
        weights, left = round_weights(step, _weights(list(layers.values()), network))
    check_masks([one for one in weights if isinstance(one, Rounded)], ledger)
    return [*activations, *weights], [*left, *skipped, *_unread(graph, network)]


def _unread(graph: Graph, network: Network) -> list[Skipped]:
    """The matrices that the forward pass does not read, under any of their names."""
    values = network.values()
    read = {_address(values[name]) for one in graph.operations for name in one.inputs if name in values}
    return [
        Skipped(step="quantize", layer=name.rpartition(".")[0] or name, reason="the forward pass does not read it")
        for name, array in network.parameters().items()
        if array.ndim > 1 and _address(array) not in read
    ]


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


def _rounded_activations(
    step: Quantize,
    chosen: Mapping[str, Quantize],
    graph: Graph,
    network: Network,
    ledger: Ledger,
    samples: Samples,
) -> tuple[list[RoundedActivation], list[Skipped]]:
    """Grids for the activations around the layers whose settings ask for them."""
    layers = {layer.name: layer for layer in graph.layers()}
    uses = {layers[name].weight: use for name, use in chosen.items() if use.activations is not None}
    residual = {weight for weight, use in uses.items() if use.residual is not None}
    skipped = [
        Skipped(
            step="quantize",
            layer=layer.name,
            reason="its input is made inside a call of the framework, so its activations stay in floating point",
        )
        for layer in layers.values()
        if any(graph.tensors[source].inner for _, source in integer_inputs(graph, {layer.weight} & uses.keys()))
    ]
    places = rounded_activations(graph, uses, residual)
    places = {name: place for name, place in places.items() if name not in ledger.activations()}
    observed = network.observe(list(places), samples, step.samples) if places else {}
    decisions: list[RoundedActivation] = []
    for name, place in places.items():
        use = uses[place.weight]
        target = use.residual if place.residual else use.activations
        assert target is not None  # neither uses nor residual holds others
        decisions.append(activation_grid(name, target, use.range, observed[name]))
    return decisions, skipped


def activation_grid(name: str, target: Int, covered: Range, observed: Histogram) -> RoundedActivation:
    """The grid of an activation of which values were observed."""
    low, high = covered.interval(observed, target)
    scale, zero_point = target.grid(np.asarray(low, np.float32), np.asarray(high, np.float32))
    return RoundedActivation(tensor=name, target=target, scale=scale, zero_point=zero_point)


def _rounded_in_turn(
    step: Quantize,
    layers: Sequence[Layer],
    network: Network,
    activations: Sequence[RoundedActivation],
    samples: Samples,
    loss: Loss,
) -> tuple[list[Rounded | Assigned], list[Skipped]]:
    """Codes of one layer after the other, each from what reaches it through what was rounded before."""
    working = network.copy()
    working.apply_(activations)
    costs = network.sensitivities([layer.weight for layer in layers], samples, step.samples, loss)
    decisions: list[Rounded | Assigned] = []
    skipped: list[Skipped] = []
    chosen = settings(step, [layer.name for layer in layers])
    for layer, weight in zip(layers, _weights(layers, network), strict=True):
        use = chosen.get(layer.name)
        if use is None or use.weights is None or not use.observes or weight.values.dtype != np.float32:
            alone, left = round_weights(step, [weight], chosen)
            decisions += alone
            skipped += left
            working.apply_(alone)
            continue
        cost = costs.get(layer.weight)
        moments = working.moments(layer, network, samples, step.samples, cost) if cost is not None else None
        if moments is None:
            reason = "what it reads could not be seen; give it method=Nearest() and correct_biases=False by a rule"
            skipped.append(Skipped(step="quantize", layer=layer.name, reason=reason))
            continue
        made = observed_codes(use, layer, weight, moments, network)
        working.apply_(made)
        decisions += made
    return decisions, skipped


def observed_codes(
    use: Quantize, layer: Layer, weight: Weight, moments: Moments, network: Network
) -> list[Rounded | Assigned]:
    """Codes of a weight whose settings observe, and the bias that makes up for what its mean output loses."""
    assert use.weights is not None
    before = matrix(weight.values, weight.axis)
    codes = use.method.quantize(before, use.weights, *([moments] if use.method.observes else []))
    rounded = Rounded.of(layer.weight, use.weights, weight.values.shape, codes)
    if layer.bias is None:
        return [rounded]
    bias = network.values()[layer.bias]
    moved = (bias + moments.shift(before, matrix(rounded.values()))).astype(bias.dtype)
    return [rounded, Assigned(parameter=layer.bias, values=short(moved) if use.method.short else moved)]


def biases(network: Network, ledger: Ledger) -> list[RoundedBias]:
    """The biases of layers that run in integers, rounded to the scale in which integer kernels add them.

    Runtimes store such a bias as int32. Rounding it here too lets the network compute what they will compute. A bias
    that layers of different scales share stays as it is.
    """
    rounded, activations = ledger.rounded(), ledger.activations()
    values = network.values()
    found: dict[str, list[RoundedBias]] = {}
    for operation, source in integer_inputs(network.graph(), set(rounded)):
        weight, bias = rounded[operation.inputs[1]], operation.inputs[2:3]
        read = activations.get(operation.own_input, activations.get(source))
        if bias and read is not None and runs_in_integers(weight, read):
            found.setdefault(bias[0], []).append(RoundedBias.of(bias[0], values[bias[0]], weight, read))
    return [every[0] for every in found.values() if all(np.array_equal(one.scale, every[0].scale) for one in every)]


def _weights(layers: Sequence[Layer], network: Network) -> list[Weight]:
    """The weights of a network's layers."""
    values = network.values()
    return [Weight(layer=layer.name, parameter=layer.weight, values=values[layer.weight]) for layer in layers]


def _makers(group: Group, layers: Sequence[Layer]) -> list[str]:
    """The layers whose output channels a group cuts."""
    return [layer.name for layer in layers if Axis(layer.weight, 0) in group.cuts]


def _slices(group: Group, values: Mapping[str, Array]) -> list[Floats]:
    """For every weight that the group cuts, one row a unit of what goes with the unit."""
    slices: list[Floats] = []
    for (parameter, axis), indices in group.cuts.items():
        weights = np.asarray(values[parameter], np.float32)
        if weights.ndim > 1:
            rows = np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1)
            slices.append(rows[indices].reshape(len(indices), -1))
    return slices


def _depthwise_groups(axes: Mapping[Axis, NDArray[np.int64]], graph: Graph) -> dict[str, int]:
    """For every depthwise convolution that is cut, the groups that it is left with."""
    found: dict[str, int] = {}
    for operation in graph.matrix_operations():
        weight = operation.inputs[1]
        if operation.kind == "conv" and Axis(weight, 0) in axes and is_depthwise(operation, graph):
            share = axes[Axis(weight, 0)].size / graph.shape(weight)[0]
            found[weight] = round(int(operation.attributes["groups"]) * share)
    return found
