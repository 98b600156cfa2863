"""What operations without weights of their own do with the labels of channels that are to be cut.

What is left after a cut must still be a rectangle. So labels vary along one axis of a tensor at most: where a reshape
spreads them over several (heads and the features of each, groups and channels), they are united into slices along one,
the last if that can be cut, else the one before it (``Meeting.turns``). Values that meet are cut alike.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from whit.graph import Graph, Operation
from whit.graph.labels import NOTHING, Carrier
from whit.graph.moves import Labels, compact

__all__ = ["Joint", "Meeting", "inside", "unmoved"]

_COUNTS = frozenset({"reshape", "slice", "expand", "repeat", "spread", "gathered", "group_norm"})
"""Kinds for which numbers in the user's code may count channels."""


class Joint(NamedTuple):
    """Where labels came to vary along several axes: in a module, along axes of these sizes."""

    layer: str
    sizes: tuple[int, ...]
    labels: Labels


class Meeting(Carrier):
    """Unites the labels of values that meet, or that are parts of one axis.

    Attributes:
        turns: By module, how many axes before the last its slices lie along where labels vary along several.
        joints: Where they do.
        counts: Channels that numbers in a module's code may count, by the module and how many there are.
    """

    def __init__(self, graph: Graph, turns: Mapping[str, int]) -> None:
        super().__init__(graph)
        self.turns = turns
        self.joints: list[Joint] = []
        self.counts: list[tuple[str, Labels]] = []
        self.counted: dict[tuple[str, int], Labels] = {}
        self.copies: set[tuple[str, int]] = set()
        self.fixed = unmoved(graph)

    def _has_labels(self, name: str) -> bool:
        return self.graph.can_be_cut(name)

    # Labels vary along one axis.

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
            self.freeze(labels, f"all of it or nothing would be cut {inside(operation)}")
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
        self.unite(flat[:, :1], flat, f"arranged {inside(operation)} beside values that cannot be cut")
        # One number of the user's code often counts all such axes of a module, so they are cut alike.
        same = self.counted.setdefault((operation.layer, len(flat)), flat[:, 0])
        self.unite(same, flat[:, 0], f"arranged {inside(operation)} like values that cannot be cut")
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

    # Values that meet.

    def _elementwise(self, operation: Operation) -> None:
        rank = len(self.graph.shape(operation.output))
        where = f"combined by {operation.kind} {inside(operation)} with values that cannot be cut"
        self._meet(operation, [tuple(range(rank))[rank - len(self.graph.shape(x)) :] for x in operation.inputs], where)

    def _contract(self, operation: Operation) -> None:
        """Products summed over axes, as by ``einsum``: each input's axes have letters, and so have the output's."""
        where = f"multiplied {inside(operation)} with values that cannot be cut"
        *letters, kept = operation.attributes["letters"]
        order = kept + "".join(dict.fromkeys(one for each in letters for one in each if one not in kept))
        for name in operation.inputs[: 2 * bool(operation.attributes.get("scaled"))]:
            if self._varying(name) == len(self.graph.shape(name)) - 1:
                self.freeze(self.labels_of(name), f"scaled by how many there are {inside(operation)}")
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
                self.freeze(vector, f"{operation.kind} makes a table of two kinds of channels {inside(operation)}")
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
        where = f"joined {inside(operation)} with values that cannot be cut"
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
        why = f"split {inside(operation)} beside values that cannot be cut"
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
            self.freeze(labels, f"{what} together {inside(operation)}: one less would change the others")
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
        channels = self.along(name, 1, f"read by {operation.kind} {inside(operation)}")
        rank = len(self.graph.shape(operation.output))
        if operation.kind == "spread":
            self._set(operation, self._shaped(np.repeat(channels, times), rank, 1))
            return
        rows = channels.reshape(-1, times)
        self.unite(rows, rows[:, :1], f"read by {operation.kind} {inside(operation)} beside others")
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
            self.freeze(vector, f"picked by fixed places {inside(operation)}")
        elif varying is not None:
            labels = self._shaped(vector, labels.ndim, varying if varying < axis else varying - count + rank)
        self._set(operation, labels)


def unmoved(graph: Graph) -> frozenset[str]:
    """What depends neither on inputs nor on parameters, such as tables of angles made from places."""
    found = {name for name, tensor in graph.tensors.items() if tensor.role in ("buffer", "constant")}
    for operation in graph.operations:
        if found.issuperset(operation.inputs):
            found.add(operation.output)
    return frozenset(found)


def inside(operation: Operation) -> str:
    """Where an operation is, in words."""
    return f"in {operation.layer or 'the network'}"
