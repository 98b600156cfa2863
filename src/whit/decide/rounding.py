"""What Quantize chooses: grids of activations, codes of weights, and biases."""

from collections.abc import Mapping, Sequence

import numpy as np

from whit.data import Array, Samples
from whit.decide.learning import learned
from whit.decide.skipped import Skipped
from whit.decide.weights import Weight, layer_names, untouched_weights, weights_beside, weights_of
from whit.errors import PlanError
from whit.formats import Int, short
from whit.graph import Graph, Layer, holder
from whit.graph.placement import integer_inputs, rounded_activations
from whit.ledger import (
    Assigned,
    Ledger,
    Rounded,
    RoundedActivation,
    RoundedBias,
    matrix,
)
from whit.metrics import Loss
from whit.moments import Moments
from whit.network import Network
from whit.progress import Progress
from whit.ranges import Histogram, Range
from whit.steps import Quantize, settings

__all__ = [
    "activation_grid",
    "biases",
    "check_masks",
    "observed_codes",
    "round_weights",
    "rounding",
    "runs_in_integers",
]


_UNSEEN = "what it reads could not be seen; give it method=Nearest() and correct_biases=False by a rule"


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


def rounding(
    step: Quantize, network: Network, ledger: Ledger, samples: Samples, loss: Loss, progress: Progress | None = None
) -> tuple[Sequence[Rounded | RoundedActivation | Assigned], list[Skipped]]:
    """Grids of activations, codes of weights, and the biases that make up for what codes miss.

    Raises:
        PlanError: A layer is followed by a batch normalisation that runtimes would merge into its codes, or layers
            would learn to round by different methods.
    """
    graph = network.graph()
    layers = {layer.name: layer for layer in graph.layers()}
    beside = weights_beside(graph, network)
    chosen = settings(step, layer_names(graph, beside))
    if unfolded := [fold.into for fold in network.foldable() if fold.into in chosen]:
        raise PlanError(
            f"Quantize: {unfolded[0]} is followed by a batch normalisation, which a runtime would multiply into the "
            "rounded weights; put FoldBatchNorm before Quantize"
        )
    activations, skipped = _rounded_activations(step, chosen, graph, network, ledger, samples)
    if any(use.observes for use in chosen.values()):
        weights, left = _rounded_in_turn(step, chosen, list(layers.values()), network, activations, samples, loss)
    else:
        weights, left = round_weights(step, weights_of(list(layers.values()), network), chosen)
    others, unseen = _rounded_beside(step, chosen, beside)
    before = [*activations, *weights, *others]
    decisions = learned(before, chosen, step.samples, graph, network, ledger, samples, progress or Progress())
    check_masks([one for one in decisions if isinstance(one, Rounded)], ledger)
    return decisions, [*left, *skipped, *unseen, *_unrounded(graph, network)]


def _unrounded(graph: Graph, network: Network) -> list[Skipped]:
    """The layers of kinds that are not rounded, and those that the forward pass does not read, under any name."""
    found = {layer: f"{why}, and stay in floating point" for layer, why in untouched_weights(graph).items()}
    values = network.values()
    read = {_address(values[name]) for one in graph.operations for name in one.inputs if name in values}
    for name, array in network.parameters().items():
        if array.ndim > 1 and _address(array) not in read:
            found[holder(name)] = "the forward pass does not read it"
    return [Skipped(step="quantize", layer=layer, reason=reason) for layer, reason in found.items()]


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
    uses = {layers[name].weight: use for name, use in chosen.items() if name in layers and use.activations is not None}
    residual = {weight for weight, use in uses.items() if use.residual is not None}
    skipped = [
        Skipped(step="quantize", layer=layer.name, reason=f"{why}, so its activations stay in floating point")
        for layer in layers.values()
        if layer.weight in uses and (why := _no_integers(layer, graph)) is not None
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


def _no_integers(layer: Layer, graph: Graph) -> str | None:
    """Why what a layer reads cannot be rounded, if it cannot."""
    if layer.kind == "conv_transpose":
        return "ONNX Runtime has no transposed convolution of integers"
    if any(graph.tensors[source].inner for _, source in integer_inputs(graph, {layer.weight})):
        return "its input is made inside a call of the framework"
    return None


def activation_grid(name: str, target: Int, covered: Range, observed: Histogram) -> RoundedActivation:
    """The grid of an activation of which values were observed."""
    low, high = covered.interval(observed, target)
    scale, zero_point = target.grid(np.asarray(low, np.float32), np.asarray(high, np.float32))
    return RoundedActivation(tensor=name, target=target, scale=scale, zero_point=zero_point)


def _rounded_beside(
    step: Quantize, chosen: Mapping[str, Quantize], weights: Sequence[Weight]
) -> tuple[list[Rounded], list[Skipped]]:
    """Codes of the weights of what is no ``Layer``, by methods that look at weights alone."""
    asked = {one.layer: chosen[one.layer] for one in weights if one.layer in chosen}
    seeing = {layer for layer, use in asked.items() if use.weights is not None and use.observes}
    reasons = dict.fromkeys(seeing, _UNSEEN) | {
        layer: "only convolutions and linear layers run in integers, so its activations stay in floating point"
        for layer, use in asked.items()
        if use.activations is not None and layer not in seeing
    }
    made, skipped = round_weights(step, [one for one in weights if one.layer not in seeing], chosen)
    skipped += [Skipped(step="quantize", layer=layer, reason=reason) for layer, reason in reasons.items()]
    return made, list(dict.fromkeys(skipped))


def _rounded_in_turn(
    step: Quantize,
    chosen: Mapping[str, Quantize],
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
    for layer, weight in zip(layers, weights_of(layers, network), strict=True):
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
            skipped.append(Skipped(step="quantize", layer=layer.name, reason=_UNSEEN))
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
    rounded = Rounded.of(layer.weight, use.weights, weight.values.shape, codes, weight.axis)
    if layer.bias is None:
        return [rounded]
    bias = network.values()[layer.bias]
    moved = (bias + moments.shift(before, matrix(rounded.values(), weight.axis))).astype(bias.dtype)
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
