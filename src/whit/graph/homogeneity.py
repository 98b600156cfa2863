"""Which channels can be scaled: divided by a factor where they are made, multiplied by it where they are read.

A network computes the same if all ways of a channel from its makers to its readers are positively homogeneous,
``f(x / s) == f(x) / s`` for every ``s > 0`` (Nagel et al. 2019): ReLU, pooling, sums of channels of one factor, a
product with something that has none. Makers are rows of convolutions and linear layers, columns of tables of
embeddings, biases, and the weights behind a normalisation; readers are columns. A depthwise convolution reads each
channel and makes another of it, and so does a product with a parameter. ReLU6 is homogeneous below its ceiling only:
who scales a channel has to see that it stays there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from whit.graph import Graph, Layer, Operation
from whit.graph.labels import NOTHING, Carrier, is_depthwise
from whit.graph.moves import Labels, compact
from whit.ledger import Span

__all__ = ["Homogeneity", "Scalable", "homogeneity"]

_HOMOGENEOUS = frozenset({"relu", "leaky_relu", "identity", "neg"})
_ENDS = "through which no factor passes"


@dataclass(frozen=True, kw_only=True, slots=True)
class Scalable:
    """Channels that can be scaled, each by a factor of its own.

    Attributes:
        name: The first layer that makes them.
        size: How many there are.
        made: Where they are made: in weights, biases, parameters that are added. Empty where nothing there can be
            scaled, and what the readers read is instead (``whit.graph.in_front``).
        read: Where they are read: in weights, parameters that are multiplied.
        inputs: What the weights in ``read`` are multiplied with (``Operation.own_input``).
        ceilings: Activations in which they must stay below a value, before and after, and that value.
    """

    name: str
    size: int
    made: tuple[Span, ...]
    read: tuple[Span, ...]
    inputs: tuple[Span, ...]
    ceilings: tuple[tuple[Span, float], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Homogeneity:
    """All channels that can be scaled, and why the others cannot.

    Attributes:
        groups: In the order in which their channels are made.
        frozen: Reason by layer name, for layers of which output channels cannot be scaled.
    """

    groups: tuple[Scalable, ...]
    frozen: Mapping[str, str]


def homogeneity(graph: Graph) -> Homogeneity:
    """Find the channels that can be scaled.

    >>> from whit.graph import Tensor
    >>> shapes = {"x": (1, 3), "a.weight": (8, 3), "h": (1, 8), "r": (1, 8), "b.weight": (2, 8), "y": (1, 2)}
    >>> def role(name): return "parameter" if name.endswith("weight") else "input" if name == "x" else "activation"
    >>> tensors = {name: Tensor(name=name, shape=shape, role=role(name)) for name, shape in shapes.items()}
    >>> first = Operation(kind="linear", inputs=("x", "a.weight"), output="h", layer="a")
    >>> second = Operation(kind="relu", inputs=("h",), output="r", layer="")
    >>> third = Operation(kind="linear", inputs=("r", "b.weight"), output="y", layer="b")
    >>> operations = (first, second, third)
    >>> found = homogeneity(Graph(tensors=tensors, operations=operations, inputs=("x",), outputs=("y",), batch=1))
    >>> [(group.name, group.size, group.made, group.read) for group in found.groups]  # doctest: +NORMALIZE_WHITESPACE
    [('a', 8, (Span(name='a.weight', axis=0, first=0, each=1),), (Span(name='b.weight', axis=1, first=0, each=1),))]
    """
    carrier = _Scaling(graph)
    carrier.run()
    return carrier.found()


class _Place(NamedTuple):
    """Where channels are met: in which role, on which axis of what, and below which ceiling."""

    role: str
    name: str
    axis: int
    height: float = 0.0


class _Scaling(Carrier):
    """Unites the labels of what must be scaled alike, and notes where channels are read."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.places: dict[_Place, Labels] = {}

    def _making(self, layer: Layer) -> int:
        return 1 if layer.kind == "embedding" else layer.axis

    def _note(self, place: _Place, labels: Labels) -> None:
        """Channels are met at a place; what is met there once more must be the same."""
        if place in self.places:
            self.unite(self.places[place], labels, f"{place.name} is used for other channels too")
        self.places[place] = labels

    def _conv(self, operation: Operation) -> None:
        x, weight = operation.inputs[:2]
        channels = self.along(x, 1, f"read by {operation.layer or weight} beside others")
        made = self.axis(weight, 0)
        if is_depthwise(operation, self.graph):
            self._note(_Place("read", weight, 0), np.repeat(channels, made.size // channels.size))
        elif int(operation.attributes["groups"]) > 1:
            self.freeze(channels, f"read by {operation.layer or weight}, whose groups share columns")
        else:
            self._note(_Place("read", weight, 1), channels)
        self._note(_Place("input", operation.own_input, 1), channels)
        self._matrix_output(operation, made, axis=1)

    def _linear(self, operation: Operation) -> None:
        self._matrix(operation, read=1, made=0)

    def _matrix(self, operation: Operation, read: int, made: int) -> None:
        """A weight of two axes: along one it reads features, along the other it makes them."""
        x, weight = operation.inputs[:2]
        features = self.along(x, -1, f"read by {operation.layer or weight} beside others")
        self._note(_Place("read", weight, read), features)
        self._note(_Place("input", operation.own_input, len(self.graph.shape(x)) - 1), features)
        self._matrix_output(operation, self.axis(weight, made), axis=len(self.graph.shape(operation.output)) - 1)

    def _embedding(self, operation: Operation) -> None:
        self._made(operation, operation.inputs[1], self.axis(operation.inputs[1], 1), -1)

    def _batch_norm(self, operation: Operation) -> None:
        self._normalised(operation, 1, operation.inputs[1:3])

    def _normalised(self, operation: Operation, axis: int, parameters: tuple[str, ...]) -> None:
        """Weights and biases make channels of what has none of its own."""
        self.freeze(self.labels_of(operation.inputs[0]), f"normalised by {operation.layer or operation.kind}")
        if not parameters or any(len(self.graph.shape(name)) != 1 for name in parameters):
            self._set(operation, np.full([1] * len(self.graph.shape(operation.output)), NOTHING))
            return
        made = self.axis(parameters[0], 0)
        for name in parameters[1:]:
            self.unite(made, self.axis(name, 0), "")
        self._made(operation, parameters[0], made, axis)

    def _made(self, operation: Operation, parameter: str, made: Labels, axis: int) -> None:
        if not self.graph.is_parameter(parameter):
            self.freeze(made, f"{parameter} is computed, not a parameter")
        rank = len(self.graph.shape(operation.output))
        self._set(operation, made.reshape([-1 if at == axis % rank else 1 for at in range(rank)]))

    def _pad(self, operation: Operation) -> None:
        if operation.attributes.get("value"):
            self._end(operation, _ENDS)
        else:
            super()._pad(operation)

    def _elementwise(self, operation: Operation) -> None:
        several = len(operation.inputs) > 1
        match operation.kind:
            case kind if kind in _HOMOGENEOUS or (kind in ("mul", "div") and not several):
                self._set(operation, self.labels_of(operation.inputs[0]))
            case "clip":
                self._clip(operation)
            case "add" | "sub" if several:
                self._add(operation)
            case "mul" if several:
                self._multiply(operation)
            case "div":
                self.freeze(self.labels_of(operation.inputs[1]), f"divided by in {operation.layer or 'the network'}")
                self._set(operation, compact(self._aligned(operation, 0)))
            case _:
                self._end(operation, _ENDS)

    def _aligned(self, operation: Operation, place: int) -> Labels:
        """The labels of an input, with as many axes as the output."""
        labels = self.labels_of(operation.inputs[place])
        return labels.reshape([1] * (len(self.graph.shape(operation.output)) - labels.ndim) + list(labels.shape))

    def _clip(self, operation: Operation) -> None:
        low, high = operation.attributes.get("low"), operation.attributes.get("high")
        long = [axis for axis, size in enumerate(self.labels_of(operation.inputs[0]).shape) if size > 1]
        if low != 0 or (high is not None and (high <= 0 or len(long) != 1)):
            return self._end(operation, _ENDS)
        if high is not None and self.graph.tensors[operation.output].inner:
            return self._end(operation, "where it cannot be seen whether a channel stays below its ceiling")
        labels = self.labels_of(operation.inputs[0])
        if high is not None:
            self._note(_Place("ceiling", operation.output, long[0], float(high)), labels.reshape(-1))
        return self._set(operation, labels)

    def _add(self, operation: Operation) -> None:
        where = f"added to other values in {operation.layer or 'the network'}"
        first, *others = (self._aligned(operation, place) for place in range(len(operation.inputs)))
        for labels in others:
            self.unite(first, labels, where)
            first = np.broadcast_arrays(first, labels)[0]
        self._set(operation, compact(first))

    def _multiply(self, operation: Operation) -> None:
        rank = len(self.graph.shape(operation.output))
        for place, name in enumerate(operation.inputs):
            shape = self.graph.shape(name)
            long = [axis for axis, size in enumerate(shape) if size > 1]
            if self.graph.is_parameter(name) and len(long) == 1:
                other = self._aligned(operation, 1 - place)
                axis = long[0] + rank - len(shape)
                flat = np.moveaxis(other, axis, 0).reshape(other.shape[axis], -1)
                self.unite(flat[:, :1], flat, f"multiplied by {name} beside others")
                self._note(_Place("read", name, long[0]), np.broadcast_to(flat[:, 0], (shape[long[0]],)))
                return self._made(operation, name, self.axis(name, long[0]), axis)
        labels = [self._aligned(operation, place) for place in (0, 1)]
        known = [one for one in labels if (one != NOTHING).any()]
        if len(known) > 1:
            return self._end(operation, "where each of two factors would count")
        return self._set(operation, known[0] if known else labels[0])

    def _other(self, operation: Operation) -> None:
        match operation.kind:
            case "layer_norm":
                self._normalised(operation, -1, operation.inputs[1:])
            case "product":
                self._matrix(operation, read=0, made=1)
            case _:
                self._end(operation, _ENDS)

    # What is found.

    def found(self) -> Homogeneity:
        """Groups of channels that are alike: met at the same places, as often at each."""
        self._freeze_shared()
        places = {_Place("made", *axis): labels for axis, labels in self.axes.items()} | self.places
        members: dict[int, dict[_Place, list[int]]] = {}
        for place, labels in places.items():
            for index, label in enumerate(labels.tolist()):
                if label != NOTHING:
                    members.setdefault(self.find(label), {}).setdefault(place, []).append(index)
        alike: dict[tuple[tuple[_Place, int], ...], list[dict[_Place, list[int]]]] = {}
        for root, unit in members.items():
            if root not in self.reasons:
                alike.setdefault(tuple((place, len(indices)) for place, indices in unit.items()), []).append(unit)
        groups: list[Scalable] = []
        order = {layer.weight: layer.name for layer in self.graph.layers()}
        for units in alike.values():
            spans = _spans(units)
            if spans is None:
                for unit in units:
                    place, indices = next(iter(unit.items()))
                    self.freeze(places[place][indices], "its channels do not lie in one row where they are read")
            elif {"made", "read"} <= {place.role for place in spans}:
                groups.append(_group(spans, len(units), order))
        return Homogeneity(groups=tuple(groups), frozen=self.frozen())

    def _freeze_shared(self) -> None:
        """A parameter that stands for different things has no factor that suits all of them."""
        uses: dict[str, set[str]] = {}
        for operation in self.graph.operations:
            for name in operation.inputs:
                uses.setdefault(name, set()).add(operation.kind)
        for axis, labels in self.axes.items():
            if not self.graph.is_parameter(axis.parameter):
                self.freeze(labels, f"{axis.parameter} is a constant of the graph, not a parameter")
            if len(uses[axis.parameter]) > 1:
                self.freeze(labels, f"{axis.parameter} is used by {' and '.join(sorted(uses[axis.parameter]))}")
        for place, labels in self.places.items():
            if place.role == "read" and (len(uses[place.name]) > 1 or not self.graph.is_parameter(place.name)):
                self.freeze(labels, f"read by {place.name}, which is used for something else too")


def _spans(units: list[dict[_Place, list[int]]]) -> dict[_Place, Span] | None:
    """Where channels that are alike are met; None where they lie scattered."""
    spans: dict[_Place, Span] = {}
    for place in units[0]:
        indices = np.array([unit[place] for unit in units])
        first = int(indices[0, 0])
        if not np.array_equal(indices.reshape(-1), first + np.arange(indices.size)):
            return None
        spans[place] = Span(place.name, place.axis, first, indices.shape[1])
    return spans


def _group(spans: Mapping[_Place, Span], size: int, order: Mapping[str, str]) -> Scalable:
    made, read, inputs = (
        tuple(span for place, span in spans.items() if place.role == role) for role in ("made", "read", "input")
    )
    ceilings = tuple((span, place.height) for place, span in spans.items() if place.role == "ceiling")
    name = next((order[span.name] for span in made if span.name in order), made[0].name)
    return Scalable(name=name, size=size, made=made, read=read, inputs=inputs, ceilings=ceilings)
