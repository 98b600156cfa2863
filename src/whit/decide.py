"""What each step chooses: from a network and a step to decisions, without changing anything."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from whit.allocate import keep_units, keep_weights
from whit.coupling import Group, couple
from whit.data import Array, Samples
from whit.errors import ModelError, PlanError
from whit.formats import Floats
from whit.graph import Graph, Layer
from whit.ledger import Axis, Folded, Kept, Ledger, Masked, Rounded, RoundedActivation, matrix
from whit.network import Network
from whit.placement import rounded_activations
from whit.plan import Prune, Quantize, settings

__all__ = ["Skipped", "channels", "folds", "re_rounded", "rounding", "single_weights"]


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
    layers = {layer.name: layer for layer in network.graph().layers()}
    chosen = settings(step, list(layers))
    values = network.values()
    scores = {
        layers[name].weight: use.score.weights(np.asarray(values[layers[name].weight], np.float32))
        for name, use in chosen.items()
    }
    amounts = {layers[name].weight: use.amount for name, use in chosen.items()}
    masks = keep_weights(scores, amounts, together=step.scope == "global")
    return [Masked(parameter=name, mask=mask) for name, mask in masks.items()]


def channels(step: Prune, network: Network, broken: frozenset[str] = frozenset()) -> tuple[list[Kept], list[Skipped]]:
    """Which channels every group of coupled channels keeps.

    Args:
        step: With ``unit="channel"``.
        network: As it is now.
        broken: Names of groups that turned out not to be cuttable.
    """
    graph = network.graph()
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
    return [_kept(groups[key], units, graph) for key, units in kept.items() if units.size < groups[key].size], skipped


def rounding(
    step: Quantize, network: Network, ledger: Ledger, samples: Samples
) -> tuple[list[Rounded | RoundedActivation], list[Skipped]]:
    """Codes of weights and grids of activations.

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
    values = network.values()
    decisions: list[Rounded | RoundedActivation] = []
    skipped: list[Skipped] = []
    for name, use in chosen.items():
        weight = values[layers[name].weight]
        if weight.dtype != np.float32:
            reason = f"its weights are {weight.dtype}, not float32"
            skipped.append(Skipped(step="quantize", layer=name, reason=reason))
        elif use.weights is not None:
            codes = use.method.quantize(matrix(weight), use.weights)
            decisions.append(Rounded.of(layers[name].weight, use.weights, weight.shape, codes))
    uses = {layers[name].weight: use for name, use in chosen.items() if use.activations is not None}
    places = {name: uses[weight] for name, weight in rounded_activations(graph, uses).items()}
    places = {name: use for name, use in places.items() if name not in ledger.activations()}
    observed = network.observe(list(places), samples, step.samples) if places else {}
    for name, use in places.items():
        assert use.activations is not None  # uses holds no others
        low, high = use.range.interval(observed[name])
        scale, zero_point = use.activations.grid(np.float32(low), np.float32(high))
        decisions.append(RoundedActivation(tensor=name, target=use.activations, scale=scale, zero_point=zero_point))
    return decisions, skipped


def re_rounded(network: Network, ledger: Ledger) -> list[Rounded]:
    """The codes of weights that were trained on their grids."""
    values = network.values()
    found: list[Rounded] = []
    for name, old in ledger.rounded().items():
        weights = matrix(values[name], old.axis)
        codes = old.target.quantize(weights, old.scale, old.zero_point)
        new = replace(old, codes=codes)
        if not np.array_equal(new.values(), values[name]):
            raise ModelError(f"{name} does not lie on its grid after fine-tuning; this is a bug in whit")
        found.append(new)
    return found


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


def _kept(group: Group, units: NDArray[np.int64], graph: Graph) -> Kept:
    removed = np.setdiff1d(np.arange(group.size), units)
    axes = {
        key: np.setdiff1d(np.arange(graph.shape(key.parameter)[key.axis]), indices[removed].reshape(-1))
        for key, indices in group.cuts.items()
    }
    return Kept(group=group.name, axes=axes)
