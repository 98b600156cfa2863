"""Which channels must go together: labels carried through the graph, united where values meet.

Every parameter axis that could be cut gets one label an index. An activation carries, for each of its elements, the
label of the channel that made it. Operations that move data move labels the same way; operations that combine values
position by position unite the labels that meet (union-find); a contraction unites the labels of its input with those
of the weight axis that reads them, and ends them. What is left are classes of indices that can only be cut together:
the units of structured pruning (after the dependency graph of Fang et al. 2023, found on data instead of by layer
type). An unknown operation freezes what it touches and says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from whit.graph import Graph, holder
from whit.graph.uniting import Uniting
from whit.ledger import Axis

__all__ = ["Count", "Coupling", "Group", "couple"]


class Count(NamedTuple):
    """Channels that a number in a module's code may count: in which module, which of its rows of channels, how many."""

    layer: str
    row: int
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Units that are alike: each cuts the same axes, the same number of indices on each.

    Attributes:
        name: The first layer that makes these channels.
        cuts: For every coupled axis the indices that each unit takes from it, ``(units, indices)``, int64.
        counts: Where a module's code may count these channels among others, how many each unit is of them; also
            where the same module counts as many channels and no unit is one of them.
        outputs: Which of the network's outputs go with each unit, as in ``cuts``, where these may be cut.
    """

    name: str
    cuts: Mapping[Axis, NDArray[np.int64]]
    counts: Mapping[Count, NDArray[np.int64]] = field(default_factory=dict[Count, NDArray[np.int64]])
    outputs: Mapping[Axis, NDArray[np.int64]] = field(default_factory=dict[Axis, NDArray[np.int64]])

    @property
    def size(self) -> int:
        """How many units there are."""
        return len(next(iter(self.cuts.values())))

    @property
    def signature(self) -> tuple[tuple[Axis, int], ...]:
        """Which axes it cuts, and how many indices a unit takes from each: no two groups are alike in that."""
        return tuple((axis, indices.shape[1]) for axis, indices in (*self.cuts.items(), *self.outputs.items()))


@dataclass(frozen=True, kw_only=True, slots=True)
class Coupling:
    """Everything that can be cut, and why the rest cannot.

    Attributes:
        groups: In the order in which their channels are made.
        frozen: Reason by layer name, for layers whose output channels cannot be cut, in whole or in part; recurrent
            ones too, and whatever else has a matrix that makes channels.
    """

    groups: tuple[Group, ...]
    frozen: Mapping[str, str]


def couple(graph: Graph, *, outputs: bool = False) -> Coupling:
    """Find the groups of coupled channels; what the network gives may be cut only if ``outputs`` says so.

    >>> from whit.graph import Operation, Tensor
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
    turns: dict[str, int] = {}
    while True:
        carrier = Uniting(graph, turns, outputs=outputs)
        carrier.run()
        stuck = {
            joint.layer: turns.get(joint.layer, 0) + 1
            for joint in carrier.joints
            if carrier.is_frozen(joint.labels) and turns.get(joint.layer, 0) + 1 < len(joint.sizes)
        }
        if not stuck:
            return _coupling(carrier)
        turns |= stuck


def _coupling(carrier: Uniting) -> Coupling:
    """The classes of labels that are not frozen, those together that are alike."""
    graph = carrier.graph
    for key, labels in carrier.axes.items():
        if not graph.can_be_cut(key.parameter):
            carrier.freeze(labels, f"{key.parameter} is a constant of the graph, not a parameter")
    members: dict[int, dict[Axis, list[int]]] = {}
    for key, labels in (*carrier.axes.items(), *carrier.given.items()):
        for index, label in enumerate(carrier.roots(labels).tolist()):
            members.setdefault(label, {}).setdefault(key, []).append(index)
    alike: dict[tuple[tuple[Axis, int], ...], list[tuple[int, dict[Axis, list[int]]]]] = {}
    for root, unit in members.items():
        if root not in carrier.reasons:
            alike.setdefault(tuple((key, len(indices)) for key, indices in unit.items()), []).append((root, unit))
    counts = _counts(carrier)
    everywhere = dict.fromkeys(count for each in counts.values() for count in each)
    groups: list[Group] = []
    order = {Axis(layer.weight, layer.axis): layer.name for layer in graph.layers()}
    for signature, units in alike.items():
        name = _name(signature, order, graph)
        if name is not None and len(units) > 1:
            cuts = {key: np.array([unit[key] for _, unit in units], np.int64) for key, _ in signature}
            met = {(count.layer, count.size) for root, _ in units for count in counts.get(root, ())}
            counted = {
                count: np.array([counts.get(root, {}).get(count, 0) for root, _ in units])
                for count in everywhere
                if (count.layer, count.size) in met
            }
            given = {key: cuts.pop(key) for key in carrier.given.keys() & cuts.keys()}
            groups.append(Group(name=name, cuts=cuts, counts=counted, outputs=given))
    places = {name: place for place, name in enumerate(order.values())}
    groups.sort(key=lambda group: places.get(group.name, len(places)))
    return Coupling(groups=tuple(groups), frozen=carrier.frozen())


def _counts(carrier: Uniting) -> dict[int, dict[Count, int]]:
    """By class of labels, where a module's code may count them, and how many they are there."""
    found: dict[int, dict[Count, int]] = {}
    known: set[tuple[str, bytes]] = set()
    for row, (layer, labels) in enumerate(carrier.counts):
        roots = carrier.roots(labels)
        if (layer, roots.tobytes()) not in known:
            known.add((layer, roots.tobytes()))
            for root, many in zip(*np.unique(roots, return_counts=True), strict=True):
                found.setdefault(int(root), {})[Count(layer, row, len(labels))] = int(many)
    return found


def _name(signature: tuple[tuple[Axis, int], ...], order: Mapping[Axis, str], graph: Graph) -> str | None:
    """The first layer that makes channels, or else what owns the first matrix that is cut; None without a matrix."""
    keys = [key for key, _ in signature if graph.is_parameter(key.parameter)]
    matrices = [key.parameter for key in keys if sum(n > 1 for n in graph.shape(key.parameter)) > 1]
    made = next((name for key, name in order.items() if key in keys), None)
    return made or next((holder(name) for name in matrices), None)
