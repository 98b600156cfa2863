"""What of a network does nothing: channels and branches that can go."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from whit.data import Array, Samples
from whit.decide.channels import Cut
from whit.decide.depth import fitting
from whit.decide.proof import harmless, unchanged
from whit.graph import Graph, Layer
from whit.graph.coupling import Group, couple
from whit.graph.labels import is_depthwise
from whit.graph.residuals import Residual, residuals
from whit.ledger import Axis, Kept, LeftOut
from whit.network import Network

__all__ = ["dead_branches", "dead_channels"]


def dead_branches(network: Network, samples: Samples) -> list[LeftOut]:
    """The residual branches that add nothing, as all weights of a layer are zero, or all scales of a normalisation.

    What makes something of nothing all the same, such as a bias behind them, is seen on the samples: the network has to
    compute the same without the branch.
    """
    graph, values = network.graph(), network.values()
    found = [one for one in residuals(graph) if _is_empty(one, graph, values)]
    if not found:
        return []
    fits = unchanged(network, samples)
    made = [fitting(one, network, graph, fits) for one in found]
    return [one for one in made if one is not None]


def _is_empty(residual: Residual, graph: Graph, values: Mapping[str, Array]) -> bool:
    """Whether all weights of a layer of the branch are zero, or all scales of a normalisation."""
    return any(
        one.output in residual.inside
        and one.kind in ("conv", "linear", "product", "batch_norm")
        and one.inputs[1] in values
        and not values[one.inputs[1]].any()
        for one in graph.operations
    )


def dead_channels(network: Network, samples: Samples) -> list[Kept]:
    """The cuts of channels of which all weights that make them are zero, or all that read them.

    As with branches, the network has to compute the same without them. A layer keeps one channel at least.
    """
    graph, values = network.graph(), network.values()
    layers = {layer.weight: layer for layer in graph.layers()}
    zeros = {name: values[name] == 0 for name in layers if values[name].ndim > 1}
    if not any(_all_zero(one, axis).any() for one in zeros.values() for axis in (0, 1)):
        return []
    depthwise = {one.inputs[1] for one in graph.matrix_operations() if is_depthwise(one, graph)}
    cuts: list[Cut] = []
    for group in couple(graph).groups:
        dead = np.zeros(group.size, np.bool_)
        for axes in _ways_through(group, layers, depthwise):
            rows = [_all_zero(zeros[one.parameter], one.axis)[group.cuts[one]].all(1) for one in axes]
            dead |= np.logical_and.reduce(rows)
        if dead.all():
            dead[0] = False
        every = np.arange(group.size)
        cuts += [Cut(group, np.delete(every, unit)) for unit in np.flatnonzero(dead)]
    return harmless(cuts, network, graph, samples)


def _all_zero(zeros: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """For every index of an axis, whether all there is zero."""
    return np.asarray(zeros.all(axis=tuple(one for one in range(zeros.ndim) if one != axis)))


def _ways_through(group: Group, layers: Mapping[str, Layer], depthwise: set[str]) -> Sequence[list[Axis]]:
    """The weights that make channels, those that read them, and those that do both: zeros in either leave nothing."""
    made: list[Axis] = []
    read: list[Axis] = []
    both: list[Axis] = []
    for one in group.cuts:
        layer = layers.get(one.parameter)
        if one.parameter in depthwise:
            both.append(one)
        elif layer is not None and one.axis in (0, 1):
            # What a table makes is what its rows hold; its other axis counts the rows.
            (read if (one.axis == layer.axis) == (layer.kind == "embedding") else made).append(one)
    return [one for one in (made, read, both) if one]
