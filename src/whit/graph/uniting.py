"""What operations with weights do with the labels of channels that are to be cut: unite those that go together."""

from collections.abc import Mapping

import numpy as np

from whit.graph import Graph, Operation, holder
from whit.graph.computed import computed_from, computing_layers
from whit.graph.labels import NOTHING, is_depthwise
from whit.graph.meeting import Meeting, inside
from whit.graph.moves import Labels
from whit.ledger import Axis

__all__ = ["Uniting"]

_GATES = {"lstm": 4, "gru": 3, "rnn": 1}


class Uniting(Meeting):
    """Unites the labels of what can only be cut together.

    Attributes:
        given: Labels of the network's outputs, where these may be cut.
        makers: Axes of parameters whose indices make channels and that are no layer's.
        computed: Parameters of which the weights of convolutions are computed; row by row, if at all, they are cut.
        plain: Layers that could be plain ones, whose weights are parameters.
    """

    def __init__(self, graph: Graph, turns: Mapping[str, int], *, outputs: bool = False) -> None:
        super().__init__(graph, turns)
        self.outputs = outputs
        self.given: dict[Axis, Labels] = {}
        self.plain = frozenset(computing_layers(graph))
        self.computed = frozenset(name for names in computed_from(graph).values() for name in names)
        self.makers = [Axis(name, 0) for name in sorted(self.computed)]

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

    def labels_of(self, name: str) -> Labels:
        """The compact labels of a tensor; of what a weight is computed from, those of its output channels."""
        if name in self.computed:
            return self._shaped(self.axis(name, 0), len(self.graph.shape(name)), 0)
        return super().labels_of(name)

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
        reason = (
            f"read by {operation.layer or weight}, whose weight is computed of all it reads, "
            f"not a parameter{self._advice(operation)}: one less changes it"
        )
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
        self._end(operation, f"whose weight is computed, not a parameter{self._advice(operation)}")

    def _advice(self, operation: Operation) -> str:
        return " (FoldParametrizations makes it one)" if operation.layer in self.plain else ""

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
        channels = self.along(operation.inputs[0], 1, f"normalised {inside(operation)}")
        groups = int(operation.attributes["groups"])
        blocks = channels.reshape(groups, -1)
        self.counts.append((operation.layer, blocks[:, 0]))
        if groups == 1:
            self.freeze(channels, f"normalised together {inside(operation)}: one less would change the others")
        self.unite(blocks, blocks[:, :1], f"normalised {inside(operation)} with other channels")
        for parameter in operation.inputs[1:]:
            self.unite(channels, self.axis(parameter, 0), f"normalised {inside(operation)} with other channels")
        self._set(operation, self.labels_of(operation.inputs[0]))

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
