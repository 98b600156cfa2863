"""Which channels must go together: labels carried through the graph, united where values meet.

Every parameter axis that could be cut gets one label an index. An activation carries, for each of its elements, the
label of the channel that made it. Operations that move data move labels the same way; operations that combine values
position by position unite the labels that meet (union-find); a contraction unites the labels of its input with those
of the weight axis that reads them, and ends them. What is left are classes of indices that can only be cut together:
the units of structured pruning (after the dependency graph of Fang et al. 2023, found on data instead of by layer
type). An unknown operation freezes what it touches and says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from whit.graph import Graph, Operation
from whit.labels import NOTHING, Carrier, Labels, compact, is_depthwise
from whit.ledger import Axis

__all__ = ["Coupling", "Group", "couple"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Units that are alike: each cuts the same axes, the same number of indices on each.

    Attributes:
        name: The first layer that makes these channels.
        cuts: For every coupled axis the indices that each unit takes from it, ``(units, indices)``, int64.
    """

    name: str
    cuts: Mapping[Axis, NDArray[np.int64]]

    @property
    def size(self) -> int:
        """How many units there are."""
        return len(next(iter(self.cuts.values())))


@dataclass(frozen=True, kw_only=True, slots=True)
class Coupling:
    """Everything that can be cut, and why the rest cannot.

    Attributes:
        groups: In the order in which their channels are made.
        frozen: Reason by layer name, for layers whose output channels cannot be cut, in whole or in part.
    """

    groups: tuple[Group, ...]
    frozen: Mapping[str, str]


def couple(graph: Graph) -> Coupling:
    """Find the groups of coupled channels.

    >>> from whit.graph import Tensor
    >>> shapes = {"x": (1, 3), "a.weight": (8, 3), "h": (1, 8), "b.weight": (2, 8), "y": (1, 2)}
    >>> def role(name): return "parameter" if name.endswith("weight") else "input" if name == "x" else "activation"
    >>> tensors = {name: Tensor(name=name, shape=shape, role=role(name)) for name, shape in shapes.items()}
    >>> first = Operation(kind="linear", inputs=("x", "a.weight"), output="h", layer="a")
    >>> second = Operation(kind="linear", inputs=("h", "b.weight"), output="y", layer="b")
    >>> net = Graph(tensors=tensors, operations=(first, second), inputs=("x",), outputs=("y",), batch=1)
    >>> found = couple(net)
    >>> [(group.name, group.size, list(group.cuts)) for group in found.groups]
    [('a', 8, [Axis(parameter='a.weight', axis=0), Axis(parameter='b.weight', axis=1)])]
    >>> dict(found.frozen)
    {'b': 'its channels are the output of the network'}
    """
    carrier = _Cutting(graph)
    carrier.run()
    return carrier.coupling()


class _Cutting(Carrier):
    """Unites the labels of what can only be cut together."""

    def _conv(self, operation: Operation) -> None:
        x, weight = operation.inputs[:2]
        reason = f"read by {operation.layer or weight} beside channels that cannot be cut"
        channels = self.along(x, 1, reason)
        made = self.axis(weight, 0)
        groups = int(operation.attributes["groups"])
        if is_depthwise(operation, self.graph):
            self.unite(made, np.repeat(channels, made.size // channels.size), reason)
        else:
            self.unite(channels.reshape(groups, -1), self.axis(weight, 1)[None], reason)
            # Every group must keep as many channels as the others: cut the same place in each.
            self.unite(made.reshape(groups, -1), made[None, : made.size // groups], reason)
        self._matrix_output(operation, made, axis=1)

    def _linear(self, operation: Operation) -> None:
        x, weight = operation.inputs[:2]
        reason = f"read by {operation.layer or weight} beside features that cannot be cut"
        self.unite(self.along(x, -1, reason), self.axis(weight, 1), reason)
        self._matrix_output(operation, self.axis(weight, 0), axis=len(self.graph.shape(operation.output)) - 1)

    def _embedding(self, operation: Operation) -> None:
        weight = operation.inputs[1]
        self.freeze(self.axis(weight, 0), f"{operation.layer or weight} has a row for everything it may be asked for")
        rank = len(self.graph.shape(operation.output))
        self._set(operation, self.axis(weight, 1).reshape([1] * (rank - 1) + [-1]))

    def _batch_norm(self, operation: Operation) -> None:
        channels = self.along(operation.inputs[0], 1, f"normalised by {operation.layer}")
        for parameter in operation.inputs[1:]:
            self.unite(channels, self.axis(parameter, 0), f"normalised by {operation.layer} with other channels")
        self._set(operation, self.labels_of(operation.inputs[0]))

    def _slice(self, operation: Operation) -> None:
        labels = self.labels_of(operation.inputs[0])
        if labels.shape[int(operation.attributes["axis"])] > 1:
            # The bounds are numbers in the user's code, so cutting what they count would move them.
            self.freeze(labels, f"sliced by fixed bounds in {operation.layer or 'the network'}")
        super()._slice(operation)

    def _elementwise(self, operation: Operation) -> None:
        rank = len(self.graph.shape(operation.output))
        where = f"combined by {operation.kind} in {operation.layer or 'the network'} with values that cannot be cut"
        united: Labels | None = None
        fixed: list[tuple[int, ...]] = []
        for name in operation.inputs:
            labels = self.labels_of(name)
            labels = labels.reshape([1] * (rank - labels.ndim) + list(labels.shape))
            if (labels == NOTHING).all():
                shape = self.graph.shape(name)
                fixed.append((1,) * (rank - len(shape)) + shape)
            elif united is None:
                united = labels
            else:
                self.unite(united, labels, where)
                united = np.broadcast_arrays(united, labels)[0]
        if united is None:
            self._set(operation, np.full([1] * rank, NOTHING))
            return
        for shape in fixed:
            if any(size > 1 and united.shape[axis] > 1 for axis, size in enumerate(shape)):
                self.freeze(united, where)
        self._set(operation, compact(united))

    def _other(self, operation: Operation) -> None:
        self._end(operation, "which whit cannot cut through")

    # What is left.

    def coupling(self) -> Coupling:
        members: dict[int, dict[Axis, list[int]]] = {}
        for key, labels in self.axes.items():
            if not self.graph.is_parameter(key.parameter):
                self.freeze(labels, f"{key.parameter} is a constant of the graph, not a parameter")
        for key, labels in self.axes.items():
            for index, label in enumerate(labels.tolist()):
                members.setdefault(self.find(label), {}).setdefault(key, []).append(index)
        alike: dict[tuple[tuple[Axis, int], ...], list[dict[Axis, list[int]]]] = {}
        for root, unit in members.items():
            if root not in self.reasons:
                alike.setdefault(tuple((key, len(indices)) for key, indices in unit.items()), []).append(unit)
        groups: list[Group] = []
        order = {layer.weight: layer.name for layer in self.graph.layers()}
        for signature, units in alike.items():
            makers = {key.parameter for key, _ in signature if key.axis == 0}
            name = next((name for weight, name in order.items() if weight in makers), None)
            if name is not None:
                cuts = {key: np.array([unit[key] for unit in units], np.int64) for key, _ in signature}
                groups.append(Group(name=name, cuts=cuts))
        places = {name: place for place, name in enumerate(order.values())}
        return Coupling(groups=tuple(sorted(groups, key=lambda group: places[group.name])), frozen=self.frozen())
