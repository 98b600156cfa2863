"""What operations do with the labels of channels that are to be cut: unite those that can only be cut together.

What is left after a cut must still be a rectangle. So labels vary along one axis of a tensor at most: where a reshape
spreads them over several (heads and the features of each, groups and channels), they are united into slices along one,
the last if that can be cut, else the one before it (``Uniting.turns``).
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from whit.graph import Graph, Operation, holder
from whit.graph.labels import NOTHING, Carrier, is_depthwise
from whit.graph.moves import Labels, compact
from whit.ledger import Axis

__all__ = ["Joint", "Uniting", "computed_from"]

_GATES = {"lstm": 4, "gru": 3, "rnn": 1}
_COUNTS = frozenset({"reshape", "slice", "expand", "repeat", "spread", "gathered", "group_norm"})
"""Kinds for which numbers in the user's code may count channels."""


class Joint(NamedTuple):
    """Where labels came to vary along several axes: in a module, along axes of these sizes."""

    layer: str
    sizes: tuple[int, ...]
    labels: Labels


class Uniting(Carrier):
    """Unites the labels of what can only be cut together.

    Attributes:
        turns: By module, how many axes before the last its slices lie along where labels vary along several.
        joints: Where they do.
        counts: Channels that numbers in a module's code may count, by the module and how many there are.
        given: Labels of the network's outputs, where these may be cut.
        makers: Axes of parameters whose indices make channels and that are no layer's.
        computed: Parameters of which the weights of convolutions are computed; row by row, if at all, they are cut.
    """

    def __init__(self, graph: Graph, turns: Mapping[str, int], *, outputs: bool = False) -> None:
        super().__init__(graph)
        self.turns = turns
        self.outputs = outputs
        self.given: dict[Axis, Labels] = {}
        self.computed = frozenset(name for names in computed_from(graph).values() for name in names)
        self.makers = [Axis(name, 0) for name in sorted(self.computed)]
        self.joints: list[Joint] = []
        self.counts: list[tuple[str, Labels]] = []
        self.counted: dict[tuple[str, int], Labels] = {}
        self.copies: set[tuple[str, int]] = set()
        self.fixed = _fixed(graph)

    def _has_labels(self, name: str) -> bool:
        return self.graph.can_be_cut(name)

    def _give(self, name: str) -> None:
        axis = self._varying(name)
        if self.outputs and axis:  # the first axis is that of the samples
            self.given[Axis(name, axis)] = self.labels_of(name).reshape(-1)
        else:
            super()._give(name)

    def frozen(self) -> dict[str, str]:
        """Why channels cannot be cut, of layers and of whatever else makes channels."""
        found = super().frozen()
        for parameter, axis in self.makers:
            reason = self._why(self.axis(parameter, axis))
            if reason is not None:
                found.setdefault(holder(parameter), reason)
        return found

    # Labels vary along one axis.

    def labels_of(self, name: str) -> Labels:
        """The compact labels of a tensor; of what a weight is computed from, those of its output channels."""
        if name in self.computed:
            return self._shaped(self.axis(name, 0), len(self.graph.shape(name)), 0)
        return super().labels_of(name)

    def axis(self, parameter: str, axis: int) -> Labels:
        """The labels of a parameter axis; one that has a single index has none, for it cannot be cut."""
        if self.graph.shape(parameter)[axis] == 1:
            return np.full(1, NOTHING)
        return super().axis(parameter, axis)

    def _set(self, operation: Operation, labels: Labels) -> None:
        labels = compact(self.roots(labels))
        varying = [axis for axis, size in enumerate(labels.shape) if size > 1]
        if len(varying) > 1:
            labels = self._slices(operation, labels, varying)
        if labels.size == 1 and labels.item() != NOTHING:
            self.freeze(labels, f"all of it or nothing would be cut {_where(operation)}")
            labels = np.full(labels.shape, NOTHING)
        super()._set(operation, labels)
        if labels.size > 1 and operation.kind in _COUNTS:
            self.counts.append((operation.layer, labels.reshape(-1)))
            if operation.kind in ("reshape", "slice") and self._varying(operation.inputs[0]) is not None:
                self.counts.append((operation.layer, self.labels_of(operation.inputs[0]).reshape(-1)))

    def _slices(self, operation: Operation, labels: Labels, varying: list[int]) -> Labels:
        """Unite labels that vary along several axes into slices along one."""
        turn = self.turns.get(operation.layer, 0)
        axis = varying[max(len(varying) - 1 - turn, 0)]
        flat = np.moveaxis(labels, axis, 0).reshape(labels.shape[axis], -1)
        self.unite(flat[:, :1], flat, f"arranged {_where(operation)} beside values that cannot be cut")
        # One number of the user's code often counts all such axes of a module, so they are cut alike.
        same = self.counted.setdefault((operation.layer, len(flat)), flat[:, 0])
        self.unite(same, flat[:, 0], f"arranged {_where(operation)} like values that cannot be cut")
        self.joints.append(Joint(operation.layer, tuple(labels.shape[axis] for axis in varying), flat[:, 0]))
        return compact(self._shaped(self.roots(flat[:, 0]), labels.ndim, axis))

    def _shaped(self, vector: Labels, rank: int, axis: int) -> Labels:
        return vector.reshape([-1 if at == axis else 1 for at in range(rank)])

    def _varying(self, name: str) -> int | None:
        """The axis along which the labels of a tensor vary."""
        return next((axis for axis, size in enumerate(self.labels_of(name).shape) if size > 1), None)

    def along(self, name: str, axis: int, reason: str) -> Labels:
        """One label an index along ``axis``; labels along another axis are frozen."""
        axis %= len(self.graph.shape(name))
        labels, found = self.labels_of(name), self._varying(name)
        if found == axis:
            return labels.reshape(-1)
        self.freeze(labels, reason)
        return np.full(self.graph.shape(name)[axis], NOTHING)

    # Layers.

    def _conv(self, operation: Operation) -> None:
        x, weight = operation.inputs[:2]
        if not self._has_labels(weight):
            self._computed_kernels(operation)
            return
        if self._varying(x) == 0:
            self._one_by_one(operation)
            return
        reason = f"read by {operation.layer or weight} beside channels that cannot be cut"
        channels = self.along(x, 1, reason)
        made = self.axis(weight, 0)
        groups = int(operation.attributes["groups"])
        if is_depthwise(operation, self.graph):
            self.unite(made, np.repeat(channels, made.size // channels.size), reason)
        else:
            self.unite(channels.reshape(groups, -1), self.axis(weight, 1)[None], reason)
            self._alike(made, groups, reason)
        self._matrix_output(operation, made, axis=1)

    def _alike(self, made: Labels, groups: int, reason: str) -> None:
        """Every group must keep as many channels as the others: cut the same place in each."""
        self.unite(made.reshape(groups, -1), made[None, : made.size // groups], reason)

    def _computed_kernels(self, operation: Operation) -> None:
        """Kernels each computed by itself, as by weight standardisation, can go; what all of them read cannot."""
        x, weight = operation.inputs[:2]
        if self._varying(weight) != 0 or is_depthwise(operation, self.graph):
            self._computed_weight(operation)
            return
        reason = f"read by {operation.layer or weight}, whose weight is computed from all it reads: one less changes it"
        self.freeze(self.labels_of(x), reason)
        made = self.labels_of(weight).reshape(-1)
        self._alike(made, int(operation.attributes["groups"]), reason)
        self._make(operation, made, axis=1)

    def _one_by_one(self, operation: Operation) -> None:
        """A layer that does the same to whatever labels there are along the first axis: to every head of attention."""
        for name in operation.inputs[1:]:
            for axis in range(len(self.graph.shape(name)) if self._has_labels(name) else 0):
                self.freeze(self.axis(name, axis), f"{operation.layer or name} is used for each of what is cut")
        self._set(operation, self.labels_of(operation.inputs[0]))

    def _computed_weight(self, operation: Operation) -> None:
        self._end(operation, "whose weight is computed, not a parameter")

    def _conv_transpose(self, operation: Operation) -> None:
        x, weight = operation.inputs[:2]
        if int(operation.attributes["groups"]) > 1 or not self._has_labels(weight):
            self._end(operation, "which whit cuts in one group only")
            return
        reason = f"read by {operation.layer or weight} beside channels that cannot be cut"
        self.unite(self.along(x, 1, reason), self.axis(weight, 0), reason)
        self._matrix_output(operation, self.axis(weight, 1), axis=1)

    def _linear(self, operation: Operation) -> None:
        x, weight = operation.inputs[:2]
        if not self._has_labels(weight):
            self._computed_weight(operation)
            return
        reason = f"read by {operation.layer or weight} beside features that cannot be cut"
        self.unite(self.along(x, -1, reason), self.axis(weight, 1), reason)
        self._matrix_output(operation, self.axis(weight, 0), axis=len(self.graph.shape(operation.output)) - 1)

    def _embedding(self, operation: Operation) -> None:
        weight = operation.inputs[1]
        self.freeze(self.axis(weight, 0), f"{operation.layer or weight} has a row for everything it may be asked for")
        rank = len(self.graph.shape(operation.output))
        self._set(operation, self._shaped(self.axis(weight, 1), rank, rank - 1))

    def _recurrent(self, operation: Operation) -> None:
        """The hidden state is one value a unit, made by a row of every gate."""
        x, reason = operation.inputs[0], f"read by {operation.layer} beside features that cannot be cut"
        features, made = self.along(x, -1, reason), np.full(0, NOTHING)
        for layer in operation.attributes["layers"]:
            states: list[Labels] = []
            for names in layer:
                self.makers.append(Axis(names[0], 0))
                gates = [self.axis(name, 0).reshape(_GATES[operation.kind], -1) for name in names]
                state = self.axis(names[1], 1)
                for rows in gates:
                    self.unite(rows, state[None], f"gates of {operation.layer}")
                self.unite(features, self.axis(names[0], 1), reason)
                states.append(state)
            # The directions of a layer have one size.
            self.unite(np.stack(states), states[0][None], f"directions of {operation.layer}")
            features = made = np.concatenate(states)
        rank = len(self.graph.shape(operation.output))
        self._set(operation, self._shaped(made, rank, rank - 1))

    # Normalisations.

    def _batch_norm(self, operation: Operation) -> None:
        name = operation.inputs[0]
        channels = self.along(name, 1, f"normalised by {operation.layer}")
        reason = f"normalised by {operation.layer} with other channels"
        for one in operation.inputs[1:]:
            self.unite(channels, self.axis(one, 0) if self._has_labels(one) else self.along(one, 0, reason), reason)
        self._set(operation, self.labels_of(name))

    def _group_norm(self, operation: Operation) -> None:
        """A group is normalised by itself, so it can be cut in whole."""
        channels = self.along(operation.inputs[0], 1, f"normalised {_where(operation)}")
        groups = int(operation.attributes["groups"])
        blocks = channels.reshape(groups, -1)
        self.counts.append((operation.layer, blocks[:, 0]))
        if groups == 1:
            self.freeze(channels, f"normalised together {_where(operation)}: one less would change the others")
        self.unite(blocks, blocks[:, :1], f"normalised {_where(operation)} with other channels")
        for parameter in operation.inputs[1:]:
            self.unite(channels, self.axis(parameter, 0), f"normalised {_where(operation)} with other channels")
        self._set(operation, self.labels_of(operation.inputs[0]))

    # Values that meet.

    def _elementwise(self, operation: Operation) -> None:
        rank = len(self.graph.shape(operation.output))
        where = f"combined by {operation.kind} {_where(operation)} with values that cannot be cut"
        self._meet(operation, [tuple(range(rank))[rank - len(self.graph.shape(x)) :] for x in operation.inputs], where)

    def _contract(self, operation: Operation) -> None:
        """Products summed over axes, as by ``einsum``: each input's axes have letters, and so have the output's."""
        where = f"multiplied {_where(operation)} with values that cannot be cut"
        *letters, kept = operation.attributes["letters"]
        order = kept + "".join(dict.fromkeys(one for each in letters for one in each if one not in kept))
        for name in operation.inputs[: 2 * bool(operation.attributes.get("scaled"))]:
            if self._varying(name) == len(self.graph.shape(name)) - 1:
                self.freeze(self.labels_of(name), f"scaled by how many there are {_where(operation)}")
        self._meet(operation, [tuple(map(order.index, one)) for one in letters], where)

    def _meet(self, operation: Operation, places: list[tuple[int, ...]], where: str) -> None:
        """Unite what meets: of each input's axes, ``places`` says which common axis each is.

        Common axes behind those of the output are summed over, and labels along them end.
        """
        if operation.kind != "identity" and self.fixed.issuperset(operation.inputs):
            self._end(operation, "which makes a table that does not depend on any input")
            return
        self._copy(operation, places)
        found = {place: self._varying(name) for place, name in enumerate(operation.inputs)}
        common = {places[place][axis] for place, axis in found.items() if axis is not None}
        rank = len(self.graph.shape(operation.output))
        made: dict[int, Labels] = {}
        for axis in sorted(common):
            vectors: list[Labels] = []
            for place, name in enumerate(operation.inputs):
                if axis not in places[place]:
                    continue
                own = places[place].index(axis)
                size = self.graph.shape(name)[own]
                if size > 1 and (name, own) not in self.copies:
                    vectors.append(self._vector(name, own, found[place], size))
            vectors.sort(key=len, reverse=True)
            for vector in vectors[1:]:
                # Heads of keys and values can be fewer than those of queries, each for several.
                self.unite(vectors[0], np.repeat(vector, len(vectors[0]) // len(vector)), where)
            made[axis] = vectors[0]
        kept = {axis: vector for axis, vector in made.items() if axis < rank}
        kept |= self._new_columns(operation, places, rank, common)
        if len(kept) > 1:
            for vector in kept.values():
                self.freeze(vector, f"{operation.kind} makes a table of two kinds of channels {_where(operation)}")
        labels = np.full([1] * rank, NOTHING)
        for axis, vector in kept.items():
            labels = self._shaped(vector, rank, axis)
        self._set(operation, labels)

    def _copy(self, operation: Operation, places: list[tuple[int, ...]]) -> None:
        """Note along which axes the output holds copies of one value, as all that it is made of does."""
        for axis, size in enumerate(self.graph.shape(operation.output)):
            met = [
                (name, places[place].index(axis))
                for place, name in enumerate(operation.inputs)
                if axis in places[place] and self.graph.shape(name)[places[place].index(axis)] == size
            ]
            if size > 1 and met and all(one in self.copies for one in met):
                self.copies.add((operation.output, axis))

    def _vector(self, name: str, axis: int, found: int | None, size: int) -> Labels:
        if found == axis:
            return self.labels_of(name).reshape(-1)
        if self._has_labels(name):
            return self.axis(name, axis)
        return np.full(size, NOTHING)

    def _new_columns(
        self, operation: Operation, places: list[tuple[int, ...]], rank: int, common: set[int]
    ) -> dict[int, Labels]:
        """What a parameter makes that is multiplied as a matrix: its columns."""
        made: dict[int, Labels] = {}
        if operation.kind in ("contract", "product"):
            for place, name in enumerate(operation.inputs):
                for own, axis in enumerate(places[place]):
                    alone = sum(axis in other for other in places) == 1
                    if self._has_labels(name) and axis < rank and alone and axis not in common:
                        made[axis] = self.axis(name, own)
        return made

    def _concat(self, operation: Operation) -> None:
        axis = int(operation.attributes["axis"]) % len(self.graph.shape(operation.output))
        varying = {self._varying(name) for name in operation.inputs} - {None, axis}
        where = f"joined {_where(operation)} with values that cannot be cut"
        for other in varying:
            assert other is not None  # it was taken out
            vectors = [
                self._vector(name, other, self._varying(name), self.graph.shape(name)[other])
                for name in operation.inputs
            ]
            for vector in vectors:
                self.unite(vectors[0], vector, where)
            if {self._varying(name) for name in operation.inputs} & {axis}:
                self.freeze(np.concatenate([self.labels_of(x).reshape(-1) for x in operation.inputs]), where)
            self._set(operation, self._shaped(vectors[0], len(self.graph.shape(operation.output)), other))
            return
        super()._concat(operation)

    # Copies, and parts of axes.

    def _expand(self, operation: Operation) -> None:
        """An axis along which a value is repeated is as long as what it meets, however long that is."""
        x, made = self.graph.shape(operation.inputs[0]), self.graph.shape(operation.output)
        before = (1,) * (len(made) - len(x)) + x
        self.copies |= {(operation.output, axis) for axis, size in enumerate(before) if size == 1 < made[axis]}
        super()._expand(operation)

    def _slice(self, operation: Operation) -> None:
        labels = self.labels_of(operation.inputs[0])
        at = operation.attributes
        axis, start, stop, step = (int(at[key]) for key in ("axis", "start", "stop", "step"))
        size = labels.shape[axis]
        length = stop - start
        why = f"split {_where(operation)} beside values that cannot be cut"
        if size > 1 and step > 1 and size % step == 0:
            rows = labels.reshape(-1, step)
            self.unite(rows, rows[:, :1], why)
        elif 1 < size != length and step == 1 and size % length == 0 and start % length == 0:
            # Parts of one size stay so, whether code counts them or divides: the same places of each are cut.
            rows = labels.reshape(-1, length)
            self.unite(rows, rows[:1], why)
        super()._slice(operation)

    def _apart(self, operation: Operation) -> None:
        """Values along ``axes`` are mixed, or counted; labels along the others are handed on."""
        name = operation.inputs[0]
        labels = self.labels_of(name)
        axis = self._varying(name)
        if axis is not None and axis in {int(one) % labels.ndim for one in operation.attributes["axes"]}:
            what = "normalised" if operation.kind == "layer_norm" else f"mixed by {operation.kind}"
            self.freeze(labels, f"{what} together {_where(operation)}: one less would change the others")
        self._set(operation, labels if labels.ndim == len(self.graph.shape(operation.output)) else labels.reshape(-1))

    def _sum(self, operation: Operation) -> None:
        labels = self.labels_of(operation.inputs[0])
        axes = [int(axis) % labels.ndim for axis in operation.attributes["axes"]]
        if self._varying(operation.inputs[0]) in axes:
            labels = np.full([1] * labels.ndim, NOTHING)
        self._set(operation, labels if operation.attributes["keepdim"] else labels.squeeze(tuple(axes)))

    def _blocks(self, operation: Operation) -> None:
        """Channels become ``times`` as many, or each ``times`` become one that is larger (pixel shuffle)."""
        name, times = operation.inputs[0], int(operation.attributes["times"])
        channels = self.along(name, 1, f"read by {operation.kind} {_where(operation)}")
        rank = len(self.graph.shape(operation.output))
        if operation.kind == "spread":
            self._set(operation, self._shaped(np.repeat(channels, times), rank, 1))
            return
        rows = channels.reshape(-1, times)
        self.unite(rows, rows[:, :1], f"read by {operation.kind} {_where(operation)} beside others")
        self._set(operation, self._shaped(rows[:, 0], rank, 1))

    def _gather(self, operation: Operation) -> None:
        """Indices pick along ``count`` axes from ``axis`` on, which become ``rank``."""
        name = operation.inputs[0]
        axis, count, rank = (int(operation.attributes[key]) for key in ("axis", "count", "rank"))
        ndim = len(self.graph.shape(name))
        varying = self._varying(name)
        if varying is None and self._has_labels(name) and ndim == count + 1:
            varying = next(one for one in range(ndim) if not axis <= one < axis + count)
            vector = self.axis(name, varying)
        else:
            vector = self.labels_of(name).reshape(-1)
        labels = np.full([1] * len(self.graph.shape(operation.output)), NOTHING)
        if varying is not None and axis <= varying < axis + count:
            self.freeze(vector, f"picked by fixed places {_where(operation)}")
        elif varying is not None:
            labels = self._shaped(vector, labels.ndim, varying if varying < axis else varying - count + rank)
        self._set(operation, labels)

    def _end(self, operation: Operation, why: str) -> None:
        names = (name for name in operation.inputs if self.graph.is_parameter(name))
        self.makers += [Axis(name, 0) for name in names if len(self.graph.shape(name)) > 1]
        super()._end(operation, why)

    def _other(self, operation: Operation) -> None:
        match operation.kind:
            case "pointwise":
                self._elementwise(operation)
            case "contract" | "product":
                self._contract(operation)
            case "conv_transpose":
                self._conv_transpose(operation)
            case "lstm" | "gru" | "rnn":
                self._recurrent(operation)
            case "group_norm":
                self._group_norm(operation)
            case "layer_norm" | "softmax" | "mix":
                self._apart(operation)
            case "sum":
                self._sum(operation)
            case "spread" | "gathered":
                self._blocks(operation)
            case "gather":
                self._gather(operation)
            case _:
                self._end(operation, "which whit cannot cut through")


def computed_from(graph: Graph) -> dict[str, tuple[str, ...]]:
    """By each weight of a convolution that is computed from parameters alone, those of them that have several axes."""
    sources: dict[str, dict[str, None]] = {}
    fixed = _fixed(graph)
    for operation in graph.operations:
        parts = [{name: None} if graph.is_parameter(name) else sources.get(name) for name in operation.inputs]
        if any(parts) and all(part is not None or x in fixed for part, x in zip(parts, operation.inputs, strict=True)):
            sources[operation.output] = {name: None for part in parts if part for name in part}
    weights = (operation.inputs[1] for operation in graph.operations if operation.kind == "conv")
    return {
        weight: tuple(name for name in sources[weight] if sum(size > 1 for size in graph.shape(name)) > 1)
        for weight in weights
        if weight in sources
    }


def _fixed(graph: Graph) -> frozenset[str]:
    """What depends neither on inputs nor on parameters, such as tables of angles made from places."""
    found = {name for name, tensor in graph.tensors.items() if tensor.role in ("buffer", "constant")}
    for operation in graph.operations:
        if found.issuperset(operation.inputs):
            found.add(operation.output)
    return frozenset(found)


def _where(operation: Operation) -> str:
    return f"in {operation.layer or 'the network'}"
