"""The weights of layers, and what has weights beside layers."""

from collections.abc import Sequence
from typing import NamedTuple

from whit.data import Array
from whit.graph import Graph, Layer
from whit.network import Network

__all__ = ["Weight", "beside_layers", "weights_of"]

_FLOATING = frozenset({"lstm", "gru", "rnn"})
"""Kinds of operations whose weights are neither rounded nor masked."""


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


def weights_of(layers: Sequence[Layer], network: Network) -> list[Weight]:
    """The weights of a network's layers."""
    values = network.values()
    return [Weight(layer.name, layer.weight, values[layer.weight], layer.axis) for layer in layers]


def beside_layers(graph: Graph) -> dict[str, str]:
    """Weights that are no layer's, in words, by what has them."""
    found: dict[str, str] = {}
    for operation in graph.operations:
        if operation.kind in _FLOATING:
            for name in filter(graph.is_parameter, operation.inputs):
                found[name.rpartition(".")[0] or name] = f"weights of {operation.kind}"
        elif operation.kind in ("conv", "linear") and graph.tensors[operation.inputs[1]].role == "activation":
            found[operation.layer or operation.output] = "weights that are computed, not parameters,"
    return found
