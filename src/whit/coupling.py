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

from whit.graph import ELEMENTWISE, Graph, Operation
from whit.ledger import Axis

__all__ = ["Coupling", "Group", "couple", "is_depthwise"]

Labels = NDArray[np.int64]
_NOTHING = -1
"""The label of a value that no cuttable axis made."""


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
    carrier = _Carrier(graph)
    for operation in graph.operations:
        carrier.carry(operation)
    for name in graph.outputs:
        carrier.freeze(carrier.labels_of(name), "its channels are the output of the network")
    return carrier.coupling()


def is_depthwise(operation: Operation, graph: Graph) -> bool:
    """Whether a convolution has one group for every input channel."""
    return graph.shape(operation.inputs[1])[1] == 1 and int(operation.attributes["groups"]) > 1


class _Carrier:
    """Carries labels through a graph. Labels are kept compact: size 1 along axes on which they do not vary."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.labels: dict[str, Labels] = {}
        self.axes: dict[Axis, Labels] = {}
        self.parent: list[int] = []
        self.reasons: dict[int, str] = {}

    # Union-find.

    def find(self, label: int) -> int:
        root = label
        while self.parent[root] != root:
            root = self.parent[root]
        while self.parent[label] != root:
            self.parent[label], label = root, self.parent[label]
        return root

    def unite(self, left: Labels, right: Labels, reason: str) -> None:
        """Unite two label arrays position by position; what meets nothing is frozen for ``reason``."""
        pairs = np.stack(np.broadcast_arrays(left, right)).reshape(2, -1)
        for a, b in np.unique(pairs, axis=1).T.tolist():
            if a == b:
                continue
            if _NOTHING in (a, b):
                self.reasons.setdefault(self.find(max(a, b)), reason)
                continue
            keep, drop = sorted((self.find(a), self.find(b)))
            self.parent[drop] = keep
            if drop in self.reasons:
                self.reasons.setdefault(keep, self.reasons[drop])

    def freeze(self, labels: Labels, reason: str) -> None:
        for label in np.unique(labels).tolist():
            if label != _NOTHING:
                self.reasons.setdefault(self.find(label), reason)

    # Where labels come from.

    def axis(self, parameter: str, axis: int) -> Labels:
        """The labels of a parameter axis, one an index, made on first use."""
        key = Axis(parameter, axis)
        if key not in self.axes:
            start = len(self.parent)
            size = self.graph.shape(parameter)[axis]
            self.parent.extend(range(start, start + size))
            self.axes[key] = np.arange(start, start + size)
        return self.axes[key]

    def labels_of(self, name: str) -> Labels:
        """The compact labels of a tensor; a parameter used as a value is labelled on its one long axis."""
        if name in self.labels:
            return self.labels[name]
        shape = self.graph.shape(name)
        long = [axis for axis, size in enumerate(shape) if size > 1]
        if self.graph.is_parameter(name) and len(long) == 1:
            return self.axis(name, long[0]).reshape([-1 if axis == long[0] else 1 for axis in range(len(shape))])
        return np.full([1] * len(shape), _NOTHING)

    def along(self, name: str, axis: int, reason: str) -> Labels:
        """One label an index along ``axis``, uniting what varies along the others."""
        labels = np.moveaxis(self.labels_of(name), axis, 0)
        flat = labels.reshape(labels.shape[0], -1)
        if flat.shape[1] > 1:
            self.unite(flat[:, :1], flat, reason)
        return np.broadcast_to(flat[:, 0], (self.graph.shape(name)[axis],))

    # What each kind of operation does with them.

    def carry(self, operation: Operation) -> None:
        match operation.kind:
            case "conv":
                self._conv(operation)
            case "linear":
                self._linear(operation)
            case "embedding":
                self._embedding(operation)
            case "batch_norm":
                self._batch_norm(operation)
            case "pool" | "max_pool" | "mean":
                self._reduce(operation)
            case "concat":
                self._concat(operation)
            case "reshape":
                self._reshape(operation)
            case "permute":
                axes = _tuple(operation.attributes["axes"])
                self._set(operation, self.labels_of(operation.inputs[0]).transpose(axes))
            case "slice":
                self._slice(operation)
            case "pad":
                self._pad(operation)
            case kind if kind in ELEMENTWISE:
                self._elementwise(operation)
            case _:
                self._opaque(operation)

    def _set(self, operation: Operation, labels: Labels) -> None:
        self.labels[operation.output] = labels

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

    def _matrix_output(self, operation: Operation, made: Labels, axis: int) -> None:
        if not self.graph.is_parameter(operation.inputs[1]):
            self.freeze(made, f"the weight of {operation.layer} is computed, not a parameter")
        for bias in operation.inputs[2:3]:
            self.unite(made, self.axis(bias, 0), f"its bias {bias} cannot be cut")
        rank = len(self.graph.shape(operation.output))
        self._set(operation, made.reshape([-1 if at == axis else 1 for at in range(rank)]))

    def _batch_norm(self, operation: Operation) -> None:
        channels = self.along(operation.inputs[0], 1, f"normalised by {operation.layer}")
        for parameter in operation.inputs[1:]:
            self.unite(channels, self.axis(parameter, 0), f"normalised by {operation.layer} with other channels")
        self._set(operation, self.labels_of(operation.inputs[0]))

    def _reduce(self, operation: Operation) -> None:
        labels = self.labels_of(operation.inputs[0])
        rank = labels.ndim
        pooled = range(2, rank)
        axes = [axis % rank for axis in _tuple(operation.attributes.get("axes", tuple(pooled)))]
        for axis in axes:
            if labels.shape[axis] > 1:
                self.freeze(labels, f"pooled together by {operation.kind} in {operation.layer or 'the network'}")
                labels = np.full_like(labels, _NOTHING)
        keep = bool(operation.attributes.get("keepdim", True))
        labels = labels[tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(rank))]
        self._set(operation, labels if keep else labels.squeeze(tuple(axes)))

    def _concat(self, operation: Operation) -> None:
        rank = len(self.graph.shape(operation.output))
        axis = int(operation.attributes["axis"]) % rank
        parts = [self.labels_of(name) for name in operation.inputs]
        shape = list(
            np.broadcast_shapes(*[tuple(1 if at == axis else n for at, n in enumerate(p.shape)) for p in parts])
        )
        full: list[Labels] = []
        for name, part in zip(operation.inputs, parts, strict=True):
            shape[axis] = self.graph.shape(name)[axis]
            full.append(np.broadcast_to(part, shape))
        self._set(operation, _compact(np.concatenate(full, axis=axis)))

    def _reshape(self, operation: Operation) -> None:
        before = self.graph.shape(operation.inputs[0])
        after = self.graph.shape(operation.output)
        labels = self.labels_of(operation.inputs[0])
        if before[:1] == after[:1] and labels.shape[:1] == (1,):
            before, after = (1, *before[1:]), (1, *after[1:])
        self._set(operation, _compact(np.broadcast_to(labels, before).reshape(after)))

    def _slice(self, operation: Operation) -> None:
        labels = self.labels_of(operation.inputs[0])
        axis = int(operation.attributes["axis"]) % labels.ndim
        if labels.shape[axis] > 1:
            start, stop, step = (int(operation.attributes[key]) for key in ("start", "stop", "step"))
            index = [slice(None)] * labels.ndim
            index[axis] = slice(start, stop, step)
            # The bounds are numbers in the user's code, so cutting what they count would move them.
            self.freeze(labels, f"sliced by fixed bounds in {operation.layer or 'the network'}")
            labels = labels[tuple(index)]
        self._set(operation, labels)

    def _pad(self, operation: Operation) -> None:
        labels = self.labels_of(operation.inputs[0])
        if any(labels.shape[axis] > 1 for axis in _tuple(operation.attributes["axes"])):
            self.freeze(labels, f"padded by a fixed number of channels in {operation.layer or 'the network'}")
            labels = np.full([1] * labels.ndim, _NOTHING)
        self._set(operation, labels)

    def _elementwise(self, operation: Operation) -> None:
        rank = len(self.graph.shape(operation.output))
        where = f"combined by {operation.kind} in {operation.layer or 'the network'} with values that cannot be cut"
        united: Labels | None = None
        fixed: list[tuple[int, ...]] = []
        for name in operation.inputs:
            labels = self.labels_of(name)
            labels = labels.reshape([1] * (rank - labels.ndim) + list(labels.shape))
            if (labels == _NOTHING).all():
                shape = self.graph.shape(name)
                fixed.append((1,) * (rank - len(shape)) + shape)
            elif united is None:
                united = labels
            else:
                self.unite(united, labels, where)
                united = np.broadcast_arrays(united, labels)[0]
        if united is None:
            self._set(operation, np.full([1] * rank, _NOTHING))
            return
        for shape in fixed:
            if any(size > 1 and united.shape[axis] > 1 for axis, size in enumerate(shape)):
                self.freeze(united, where)
        self._set(operation, _compact(united))

    def _opaque(self, operation: Operation) -> None:
        for name in operation.inputs:
            if self.graph.is_parameter(name):
                for axis in range(len(self.graph.shape(name))):
                    self.freeze(self.axis(name, axis), f"used by {operation.kind}, which whit cannot cut through")
            else:
                where = operation.layer or "the network"
                self.freeze(self.labels_of(name), f"read by {operation.kind} in {where}, which whit cannot cut through")
        self._set(operation, np.full([1] * len(self.graph.shape(operation.output)), _NOTHING))

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
        return Coupling(groups=tuple(sorted(groups, key=lambda group: places[group.name])), frozen=self._frozen())

    def _frozen(self) -> dict[str, str]:
        """Why the output channels of a layer cannot be cut, for every layer that has such channels."""
        frozen: dict[str, str] = {}
        for layer in self.graph.layers():
            for label in self.axis(layer.weight, 0).tolist():
                if (root := self.find(label)) in self.reasons:
                    frozen[layer.name] = self.reasons[root]
                    break
        return frozen


def _compact(labels: Labels) -> Labels:
    """Size 1 along every axis on which the labels do not vary."""
    for axis in range(labels.ndim):
        first = labels.take([0], axis)
        if labels.shape[axis] > 1 and (labels == first).all():
            labels = first
    return labels


def _tuple(value: int | bool | tuple[int, ...]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (int(value),)
