"""The weights of layers, and what else has weights."""

from collections.abc import Sequence
from typing import NamedTuple

from whit.data import Array
from whit.graph import Graph, Layer, holder
from whit.graph.computed import computing_layers
from whit.network import Network

__all__ = ["Weight", "layer_names", "untouched_weights", "weights_beside", "weights_of"]

_LAYERS = frozenset({"conv", "conv_transpose", "linear", "product"})
_RECURRENT = frozenset({"lstm", "gru", "rnn"})
_BUFFER = "its weights are a buffer, not parameters"
_INSTEAD = {"state": _BUFFER, "buffer": _BUFFER, "activation": "its weights are computed, not parameters"}
_ADVICE = " (FoldParametrizations makes them so)"
"""By the role of a tensor that stands in place of a weight."""


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


def weights_beside(graph: Graph, network: Network) -> list[Weight]:
    """The weights of what is no ``Layer``: of recurrent layers, several of one name, and of plain products.

    A plain product is ``einsum`` or ``bmm`` with a parameter, such as the experts of a mixture, or any product with one
    that something else is done with as well.
    """
    values, parameters = network.values(), network.parameters()
    layers = {layer.weight for layer in graph.layers()}
    found: dict[str, int] = {}
    for operation in graph.operations:
        if operation.kind in _RECURRENT:
            matrices = (name for name in operation.inputs if graph.is_parameter(name) and len(graph.shape(name)) > 1)
            found |= dict.fromkeys(matrices, 0)
        elif (weight := graph.multiplied(operation)) is not None and weight.parameter in parameters.keys() - layers:
            found[weight.parameter] = weight.axis
    return [Weight(holder(name), name, values[name], axis) for name, axis in found.items()]


def layer_names(graph: Graph, beside: Sequence[Weight]) -> list[str]:
    """What rules can match: layers, and what has the weights beside them."""
    return list(dict.fromkeys([*(layer.name for layer in graph.layers()), *(weight.layer for weight in beside)]))


def untouched_weights(graph: Graph) -> dict[str, str]:
    """Which layers and products have weights that are no parameters, and what these are instead."""
    roles = {
        one.layer or one.output: graph.tensors[one.inputs[1]].role for one in graph.operations if one.kind in _LAYERS
    }
    found = {layer: _INSTEAD[role] for layer, role in roles.items() if role in _INSTEAD}
    return found | {layer: found[layer] + _ADVICE for layer in computing_layers(graph)}
