"""Where activations are rounded, so that a runtime can stay in integers between layers.

A runtime runs an operation in integers when everything it reads and what it hands on is rounded. So a rounded layer's
input is rounded where it is made, for all who read it; what it makes is rounded after the activation function that
follows; and an operation that only combines rounded values (an addition, a concatenation, a pooling) hands on a
rounded value too. A linear layer is the exception: runtimes have a product of integers that makes floats, and what
follows it is often no integers' business (a norm, a softmax), so what it makes is rounded only where another layer in
integers reads it. The output of the network stays in floating point.

With a format for residuals, what others read beside layers takes that one, and is rounded once more, to the format of
the layers, for each layer alone: a sum of many terms needs finer steps than a layer does.
"""

from collections.abc import Collection
from math import inf
from typing import NamedTuple

from whit.graph import Graph, Operation

__all__ = ["Place", "integer_inputs", "rounded_activations"]

_MOVES = frozenset({"reshape", "permute", "slice", "max_pool", "identity"})
"""Kinds that hand on values as they are: rounding before them is rounding after them."""
_ON_EVERY_GRID = (None, 0.0, -inf)
"""What may be padded with after rounding: values beside, zero, and what no maximum takes."""
_COMBINES = frozenset({"add", "concat", "mean", "pool", "mul"})
"""Kinds that runtimes run in integers between rounded values."""
_INTEGER = frozenset({"conv", "linear", "product"})
"""Kinds with a weight matrix that all runtimes run in integers."""
_FUSES = frozenset({"relu", "clip", "batch_norm", "identity", "leaky_relu"})
"""Kinds that runtimes merge into the operation before them."""


class Place(NamedTuple):
    """For whose sake an activation is rounded.

    Attributes:
        weight: Of the layer whose settings say how.
        residual: Whether it takes the format of residuals, not that of what layers read.
    """

    weight: str
    residual: bool = False


def rounded_activations(
    graph: Graph, weights: Collection[str], residual: Collection[str] = frozenset()
) -> dict[str, Place]:
    """The activations to round when the layers with these weights run in integers.

    Args:
        graph: The network.
        weights: Names of the weights of the layers.
        residual: Those of them whose settings have a format for residuals.

    Returns:
        For every tensor to round, and for every ``Operation.own_input`` to round for one layer alone, for whose sake.
    """
    return _Placement(graph).place(weights, residual)


def integer_inputs(graph: Graph, weights: Collection[str]) -> list[tuple[Operation, str]]:
    """The layers with these weights, each with the activation whose rounding reaches its input."""
    placement = _Placement(graph)
    operations = _integer(graph, weights)
    return [(operation, placement.source(operation.inputs[0])) for operation in operations]


def _integer(graph: Graph, weights: Collection[str]) -> list[Operation]:
    """The operations that multiply with these weights, of kinds that runtimes run in integers.

    A table of embeddings is only looked up in, and ONNX Runtime has no transposed convolution of integers.
    """
    every = graph.matrix_operations()
    return [operation for operation in every if operation.inputs[1] in weights and operation.kind in _INTEGER]


def _moves(operation: Operation) -> bool:
    padded = operation.kind == "pad" and operation.attributes.get("value") in _ON_EVERY_GRID
    return padded or operation.kind in _MOVES


class _Placement:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.makers = {operation.output: operation for operation in graph.operations}
        self.readers = graph.consumers()

    def place(self, weights: Collection[str], residual: Collection[str]) -> dict[str, Place]:
        chosen: dict[str, Place] = {}
        alone: dict[str, Place] = {}
        integer = _integer(self.graph, weights)
        for operation in integer:
            source, weight = self.source(operation.inputs[0]), operation.inputs[1]
            if weight in residual and self._others_read(source, integer):
                if not self.graph.tensors[source].inner:
                    alone[operation.own_input] = Place(weight)
                chosen.setdefault(source, Place(weight, residual=True))
            elif source not in chosen or chosen[source].residual:
                chosen[source] = Place(weight)
        for operation in self.graph.operations:
            weight = self._rounded_for(operation, integer, chosen)
            if weight is not None and (end := self.end(operation.output)) is not None:
                chosen.setdefault(end, Place(weight, residual=weight in residual))
        return {name: place for name, place in chosen.items() if not self.graph.tensors[name].inner} | alone

    def _others_read(self, name: str, integer: list[Operation]) -> bool:
        """Whether something reads a value, be it moved before, that is no layer in integers."""
        reached = [name]
        for one in reached:
            if one in self.graph.outputs:
                return True
            for reader in self.readers[one]:
                if _moves(reader):
                    reached.append(reader.output)
                elif not any(reader is layer for layer in integer):
                    return True
        return False

    def _rounded_for(self, operation: Operation, integer: list[Operation], chosen: dict[str, Place]) -> str | None:
        """The layer for whose sake an operation's output is rounded, or None where it need not be."""
        if any(operation is one for one in integer):
            return operation.inputs[1] if operation.kind == "conv" else None
        if operation.kind in _COMBINES:
            found = [chosen.get(self.source(name)) for name in operation.inputs if not self.graph.is_parameter(name)]
            if found and found[0] is not None and all(one is not None for one in found):
                return found[0].weight
        return None

    def source(self, name: str) -> str:
        """Where a value is made that reaches ``name`` unchanged."""
        while (maker := self.makers.get(name)) is not None and _moves(maker):
            name = maker.inputs[0]
        return name

    def end(self, name: str) -> str | None:
        """Where a value is finished: after what runtimes merge into its maker; None where it leaves the network."""
        while len(self.readers[name]) == 1 and self.readers[name][0].kind in _FUSES:
            name = self.readers[name][0].output
        reached = [name]
        for one in reached:
            if one in self.graph.outputs:
                return None
            # Classes that rounding made equal would stay so: what a last softmax reads leaves the network too.
            reached += [reader.output for reader in self.readers[one] if _moves(reader) or reader.kind == "softmax"]
        return name
