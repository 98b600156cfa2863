"""The weights of layers, of recurrent layers, and what else has weights."""

from collections.abc import Sequence
from typing import NamedTuple

from whit.data import Array
from whit.graph import Graph, Layer
from whit.network import Network

__all__ = ["Weight", "computed_weights", "layer_names", "recurrent_weights", "weights_of"]

_RECURRENT = frozenset({"lstm", "gru", "rnn"})


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


def recurrent_weights(graph: Graph, network: Network) -> list[Weight]:
    """The weights of recurrent layers, of what they read and of what they remember, several of one layer's name."""
    values = network.values()
    names = (
        name for one in graph.operations if one.kind in _RECURRENT for name in filter(graph.is_parameter, one.inputs)
    )
    matrices = dict.fromkeys(name for name in names if len(graph.shape(name)) > 1)
    return [Weight(name.rpartition(".")[0] or name, name, values[name]) for name in matrices]


def layer_names(graph: Graph, network: Network) -> list[str]:
    """What rules can match."""
    recurrent = dict.fromkeys(weight.layer for weight in recurrent_weights(graph, network))
    return [*(layer.name for layer in graph.layers()), *recurrent]


def computed_weights(graph: Graph) -> list[str]:
    """What has weights that are computed, not parameters."""
    found = (one for one in graph.operations if one.kind in ("conv", "linear"))
    computed = (one for one in found if graph.tensors[one.inputs[1]].role == "activation")
    return list(dict.fromkeys(one.layer or one.output for one in computed))
