"""Labels of channels, carried through a graph: who moves them where, and who unites which.

Every parameter axis gets one label an index. An activation carries, for each of its elements, the label of the channel
that made it. Operations that move data move labels the same way; what an operation that combines data does with them
depends on what is asked: which channels can only be cut together (``coupling``), or which can be scaled
(``homogeneity``). Labels that belong together are united (union-find); those of which nothing can be said are frozen,
with the reason.
"""

from abc import ABC, abstractmethod

import numpy as np

from whit.graph import ELEMENTWISE, Graph, Layer, Operation
from whit.graph.moves import Labels, compact, expanded, repeated, reshaped, sliced
from whit.ledger import Axis

__all__ = ["NOTHING", "Carrier", "is_depthwise"]

NOTHING = -1
"""The label of a value that no channel made, or of which nothing is known."""


def is_depthwise(operation: Operation, graph: Graph) -> bool:
    """Whether a convolution has one group for every input channel."""
    if operation.kind != "conv":
        return False
    return graph.shape(operation.inputs[1])[1] == 1 and int(operation.attributes["groups"]) > 1


class Carrier(ABC):
    """Carries labels through a graph. Labels are kept compact: size 1 along axes on which they do not vary."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.labels: dict[str, Labels] = {}
        self.axes: dict[Axis, Labels] = {}
        self.parent: Labels = np.zeros(0, np.int64)
        self.reasons: dict[int, str] = {}

    def run(self) -> None:
        """Carry labels through the whole graph; what leaves it stays as it is."""
        for operation in self.graph.operations:
            self._carry(operation)
        for name in self.graph.outputs:
            self._give(name)

    # Union-find.

    def find(self, label: int) -> int:
        """The label that stands for all that are united with this one."""
        root = label
        while self.parent[root] != root:
            root = int(self.parent[root])
        while self.parent[label] != root:
            self.parent[label], label = root, int(self.parent[label])
        return root

    def roots(self, labels: Labels) -> Labels:
        """Of every label the one that stands for all that it is united with."""
        if not self.parent.size:
            return labels
        known = labels != NOTHING
        roots = self.parent[np.where(known, labels, 0)]
        while (higher := self.parent[roots]).tobytes() != roots.tobytes():
            roots = higher
        self.parent[labels[known]] = roots[known]
        return np.where(known, roots, NOTHING)

    def unite(self, left: Labels, right: Labels, reason: str) -> None:
        """Unite two label arrays position by position; what meets nothing is frozen for ``reason``."""
        pairs = np.stack(np.broadcast_arrays(self.roots(left), self.roots(right))).reshape(2, -1)
        for a, b in np.unique(pairs[:, pairs[0] != pairs[1]], axis=1).T.tolist():
            if NOTHING in (a, b):
                self.reasons.setdefault(self.find(max(a, b)), reason)
                continue
            keep, drop = sorted((self.find(a), self.find(b)))
            self.parent[drop] = keep
            if drop in self.reasons:
                self.reasons.setdefault(keep, self.reasons[drop])

    def freeze(self, labels: Labels, reason: str) -> None:
        """Say of labels that nothing is to be done with what they stand for."""
        for root in np.unique(self.roots(labels)).tolist():
            if root != NOTHING:
                self.reasons.setdefault(root, reason)

    def is_frozen(self, labels: Labels) -> bool:
        """Whether nothing can be done with any of these labels."""
        return all(root == NOTHING or root in self.reasons for root in np.unique(self.roots(labels)).tolist())

    def frozen(self) -> dict[str, str]:
        """Why nothing is to be done with output channels of a layer, for every layer that has such channels."""
        found = {layer.name: self._why(self.axis(layer.weight, self._making(layer))) for layer in self.graph.layers()}
        return {name: reason for name, reason in found.items() if reason is not None}

    def _why(self, labels: Labels) -> str | None:
        """Why nothing is to be done with some of these labels, if there are such."""
        if (labels == NOTHING).all():
            return "it makes a single channel"
        roots = self.roots(labels).tolist()
        return next((self.reasons[root] for root in roots if root in self.reasons), None)

    def _making(self, layer: Layer) -> int:
        """The axis of a weight whose indices are asked about."""
        return layer.axis

    # Where labels come from.

    def axis(self, parameter: str, axis: int) -> Labels:
        """The labels of a parameter axis, one an index, made on first use."""
        key = Axis(parameter, axis)
        if key not in self.axes:
            self.axes[key] = self._new(self.graph.shape(parameter)[axis])
        return self.axes[key]

    def _new(self, size: int) -> Labels:
        made = np.arange(len(self.parent), len(self.parent) + size)
        self.parent = np.concatenate([self.parent, made])
        return made

    def labels_of(self, name: str) -> Labels:
        """The compact labels of a tensor; a parameter used as a value is labelled on its one long axis."""
        if name in self.labels:
            return self.labels[name]
        shape = self.graph.shape(name)
        long = [axis for axis, size in enumerate(shape) if size > 1]
        if self._has_labels(name) and len(long) == 1:
            return self.axis(name, long[0]).reshape([-1 if axis == long[0] else 1 for axis in range(len(shape))])
        return np.full([1] * len(shape), NOTHING)

    def _has_labels(self, name: str) -> bool:
        """Whether a tensor's own axes are labelled."""
        return self.graph.is_parameter(name)

    def along(self, name: str, axis: int, reason: str) -> Labels:
        """One label an index along ``axis``, uniting what varies along the others."""
        labels = np.moveaxis(self.labels_of(name), axis, 0)
        flat = labels.reshape(labels.shape[0], -1)
        if flat.shape[1] > 1:
            self.unite(flat[:, :1], flat, reason)
        return np.broadcast_to(flat[:, 0], (self.graph.shape(name)[axis],))

    # What each kind of operation does with them.

    def _carry(self, operation: Operation) -> None:
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
            case kind if kind in ELEMENTWISE:
                self._elementwise(operation)
            case _:
                self._move(operation)

    def _move(self, operation: Operation) -> None:
        match operation.kind:
            case "concat":
                self._concat(operation)
            case "stack":
                self._stack(operation)
            case "reshape":
                self._reshape(operation)
            case "permute":
                axes = _tuple(operation.attributes["axes"])
                self._set(operation, self.labels_of(operation.inputs[0]).transpose(axes))
            case "slice":
                self._slice(operation)
            case "select":
                labels = sliced(self.labels_of(operation.inputs[0]), *_place(operation))
                self._set(operation, labels.squeeze(int(operation.attributes["axis"])))
            case "expand":
                self._expand(operation)
            case "repeat":
                times, each = operation.attributes["times"], bool(operation.attributes["each"])
                self._set(operation, repeated(self.labels_of(operation.inputs[0]), times, each=each))
            case "windows":
                self._windows(operation)
            case "pad":
                self._pad(operation)
            case _:
                self._other(operation)

    def _give(self, name: str) -> None:
        """What leaves the network stays as it is."""
        self.freeze(self.labels_of(name), "its channels are the output of the network")

    @abstractmethod
    def _conv(self, operation: Operation) -> None: ...

    @abstractmethod
    def _linear(self, operation: Operation) -> None: ...

    @abstractmethod
    def _embedding(self, operation: Operation) -> None: ...

    @abstractmethod
    def _batch_norm(self, operation: Operation) -> None: ...

    @abstractmethod
    def _elementwise(self, operation: Operation) -> None: ...

    @abstractmethod
    def _other(self, operation: Operation) -> None: ...

    def _set(self, operation: Operation, labels: Labels) -> None:
        self.labels[operation.output] = labels

    def _end(self, operation: Operation, why: str) -> None:
        """Freeze all that an operation reads, ``why`` after its kind; nothing is known of what it makes."""
        for name in operation.inputs:
            if self._has_labels(name):
                for axis in range(len(self.graph.shape(name))):
                    self.freeze(self.axis(name, axis), f"used by {operation.kind}, {why}")
            else:
                where = operation.layer or "the network"
                self.freeze(self.labels_of(name), f"read by {operation.kind} in {where}, {why}")
        self._set(operation, np.full([1] * len(self.graph.shape(operation.output)), NOTHING))

    def _matrix_output(self, operation: Operation, made: Labels, axis: int) -> None:
        if not self._has_labels(operation.inputs[1]):
            self.freeze(made, f"the weight of {operation.layer} is computed, not a parameter")
        self._make(operation, made, axis)

    def _make(self, operation: Operation, made: Labels, axis: int) -> None:
        """What a weight makes along an axis, with its bias."""
        for bias in operation.inputs[2:3]:
            reason = f"its bias {bias} cannot be cut"
            self.unite(made, self.axis(bias, 0) if self._has_labels(bias) else self.along(bias, 0, reason), reason)
        rank = len(self.graph.shape(operation.output))
        self._set(operation, made.reshape([-1 if at == axis else 1 for at in range(rank)]))

    def _reduce(self, operation: Operation) -> None:
        labels = self.labels_of(operation.inputs[0])
        rank = labels.ndim
        pooled = range(2, rank)
        axes = [axis % rank for axis in _tuple(operation.attributes.get("axes", tuple(pooled)))]
        for axis in axes:
            if labels.shape[axis] > 1:
                self.freeze(labels, f"pooled together by {operation.kind} in {operation.layer or 'the network'}")
                labels = np.full_like(labels, NOTHING)
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
        self._set(operation, compact(np.concatenate(full, axis=axis)))

    def _expand(self, operation: Operation) -> None:
        self._set(operation, expanded(self.labels_of(operation.inputs[0]), len(self.graph.shape(operation.output))))

    def _stack(self, operation: Operation) -> None:
        axis = int(operation.attributes["axis"])
        parts = np.broadcast_arrays(*map(self.labels_of, operation.inputs))
        self._set(operation, compact(np.stack(parts, axis)))

    def _windows(self, operation: Operation) -> None:
        labels = self.labels_of(operation.inputs[0])
        if labels.shape[int(operation.attributes["axis"])] > 1:
            self.freeze(labels, f"seen through windows in {operation.layer or 'the network'}")
            labels = np.full([1] * labels.ndim, NOTHING)
        self._set(operation, labels[..., None])

    def _reshape(self, operation: Operation) -> None:
        labels = self.labels_of(operation.inputs[0])
        before, after = self.graph.shape(operation.inputs[0]), self.graph.shape(operation.output)
        self._set(operation, reshaped(labels, before, after))

    def _slice(self, operation: Operation) -> None:
        self._set(operation, sliced(self.labels_of(operation.inputs[0]), *_place(operation)))

    def _pad(self, operation: Operation) -> None:
        labels = self.labels_of(operation.inputs[0])
        if any(labels.shape[axis] > 1 for axis in _tuple(operation.attributes["axes"])):
            self.freeze(labels, f"padded by a fixed number of channels in {operation.layer or 'the network'}")
            labels = np.full([1] * labels.ndim, NOTHING)
        self._set(operation, labels)


def _place(operation: Operation) -> tuple[int, int, int, int]:
    """The axis of a slice or of one index, where it starts, stops, and its step."""
    at = operation.attributes
    if operation.kind == "select":
        return int(at["axis"]), int(at["index"]), int(at["index"]) + 1, 1
    return int(at["axis"]), int(at["start"]), int(at["stop"]), int(at["step"])


def _tuple(value: int | bool | tuple[int, ...]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (int(value),)
