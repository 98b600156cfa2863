"""Which channels can be divided in front of the layers that read them, where they cannot be where they are made.

A shortcut around a layer reads what the layer reads, and no factor passes it. Divided for the layer alone, its weights
multiplied, the network computes the same (outlier suppression in front of single layers; Wei et al. 2022 migrate what
a normalisation scales likewise). The division is one more operation in every run.
"""

import re
from collections.abc import Collection

from whit.errors import PlanError, listed
from whit.graph import Graph, Operation
from whit.graph.homogeneity import Scalable
from whit.ledger import Span

__all__ = ["in_front"]

_READS = {"conv": 1, "linear": 1, "product": 0}
"""By kind, the axis of the weight along which it reads channels."""


def in_front(graph: Graph, layers: str, scaled: Collection[str]) -> tuple[list[Scalable], dict[str, str]]:
    """Groups of channels that are divided in front of layers: those that read one value are divided alike.

    Args:
        graph: The network.
        layers: Regular expression of the whole names of layers.
        scaled: Names of weights whose columns are scaled anyway, which are left out.

    Returns:
        The groups, which have no makers, and why channels cannot be divided, by layer.

    Raises:
        PlanError: The expression matches no layer that multiplies with a matrix.
    """
    uses = {layer.weight: layer for layer in graph.layers()}
    found: dict[str, list[Operation]] = {}
    left: dict[str, str] = {}
    names = [layer.name for layer in uses.values() if layer.kind in _READS]
    if not any(re.fullmatch(layers, name) for name in names):
        raise PlanError(f"Equalize: in_front={layers!r} matches no layer; the layers are {listed(names, most=40)}")
    for operation in graph.matrix_operations():
        layer = uses.get(operation.inputs[1])
        if layer is None or layer.kind not in _READS or layer.weight in scaled or not re.fullmatch(layers, layer.name):
            continue
        if layer.uses > 1:
            left[layer.name] = "it is used more than once, and what it reads each time may need other factors"
        elif operation.kind == "conv" and int(operation.attributes["groups"]) > 1:
            left[layer.name] = "its groups share columns"
        else:
            found.setdefault(operation.inputs[0], []).append(operation)
    return [_group(graph, operations, uses[operations[0].inputs[1]].name) for operations in found.values()], left


def _group(graph: Graph, operations: list[Operation], name: str) -> Scalable:
    axis = 1 if operations[0].kind == "conv" else len(graph.shape(operations[0].inputs[0])) - 1
    return Scalable(
        name=name,
        size=graph.shape(operations[0].inputs[0])[axis],
        made=(),
        read=tuple(Span(operation.inputs[1], _READS[operation.kind]) for operation in operations),
        inputs=tuple(Span(operation.own_input, axis) for operation in operations),
        ceilings=(),
    )
