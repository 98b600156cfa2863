"""Which channels Prune cuts: groups of coupled channels, ranked, and cut until budgets are kept."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from whit.allocate import keep_units, least
from whit.decide.footprint import Footprint
from whit.decide.pruning import unseen
from whit.decide.scoring import Evidence, weigh
from whit.decide.skipped import Skipped, reasons
from whit.errors import PlanError
from whit.formats import Floats
from whit.graph import Graph, Layer
from whit.graph.computed import computed_from
from whit.graph.coupling import Count, Coupling, Group, couple
from whit.graph.labels import is_depthwise
from whit.ledger import Axis, Kept
from whit.network import Network
from whit.scores import Score
from whit.steps import Prune, settings
from whit.steps.prune import TAKEN

__all__ = ["Channels", "Cut", "Signature", "Tried", "cutting", "deepest", "macs_after", "outputs_gone"]

Signature = tuple[tuple[Axis, int], ...]
_TRIES = {"macs": 16, "latency": 6, "bytes": 6}
"""How often the share of an amount that reaches a budget is halved: reckoning costs nothing, measuring does."""


class Cut(NamedTuple):
    """A group of coupled channels, and the units of it that stay (rising, int64).

    Of a number in a module's code that counts channels of this group and as many others, nobody can say which it means:
    it follows this group, or where ``steady`` it stays.
    """

    group: Group
    units: NDArray[np.int64]
    steady: bool = False


class Tried(NamedTuple):
    """Signatures of groups that turned out not to be cuttable, or only ``Cut.steady``."""

    broken: frozenset[Signature] = frozenset()
    steady: frozenset[Signature] = frozenset()


class Channels:
    """The groups of coupled channels of a network that a step speaks of, and what each channel is worth."""

    def __init__(self, step: Prune, network: Network, graph: Graph, evidence: Evidence) -> None:
        """Judge the channels.

        Args:
            step: With ``unit="channel"``.
            network: As it is now.
            graph: What it computes.
            evidence: What scores may look at.

        Raises:
            PlanError: The step speaks of outputs, and none can be cut.
        """
        self.step = step
        self.graph = graph
        self.layers = graph.layers()
        self.coupling = couple(graph, outputs=step.outputs)
        self.groups = {f"{place}.{group.name}": group for place, group in enumerate(self.coupling.groups)}
        self.chosen = _chosen(step, self.layers, self.coupling)
        self.uses: dict[str, Prune] = {}
        self.skipped = [
            Skipped(step="prune", layer=name, reason=reason)
            for name, reason in self.coupling.frozen.items()
            if name in self.chosen
        ]
        for key, group in self.groups.items():
            makers = self._makers(group)
            left_alone = [name for name in makers if name not in self.chosen]
            if left_alone:
                reason = f"its channels are coupled to {left_alone[0]}, which a rule leaves alone"
                self._skip([name for name in makers if name in self.chosen], reason)
            else:
                self.uses[key] = min((self.chosen[name] for name in makers), key=lambda use: use.amount)
        if step.outputs and not any(self.groups[key].outputs for key in self.uses):
            raise PlanError(f"Prune(outputs=True): no output of the network can be cut; {reasons(self.skipped)}")
        self.scores = self._scores(network, evidence)

    def cuts(self, tried: Tried | None = None, footprint: Footprint | None = None) -> tuple[list[Cut], list[Skipped]]:
        """Which channels every group keeps, and what could not be cut; groups that keep all are left out.

        Args:
            tried: What is known of groups from cuts that were tried, if any were.
            footprint: What budgets of bytes and time are measured by; without it they are not heeded.

        Raises:
            PlanError: The amount is too small for a budget.
        """
        tried = tried or Tried()
        share = 0.0 if self._budgets(footprint) else 1.0
        for name, budget in self._budgets(footprint).items():
            share = self._reach(name, budget, self._taken(name, footprint), tried, share)
        cuts, emptied = self._at(share, tried)
        fixed = [key for key in self.scores if self.groups[key].signature in tried.broken]
        skipped = list(self.skipped)
        for keys, reason in (
            (fixed, "the network's code fixes its width"),
            (emptied, "all of its channels would have gone; some stay, so that it is not empty"),
        ):
            skipped += [Skipped(step="prune", layer=self._makers(self.groups[key])[0], reason=reason) for key in keys]
        return cuts, skipped

    def _at(self, share: float, tried: Tried) -> tuple[list[Cut], list[str]]:
        """The cuts with this share of every amount, and the groups that they would have emptied."""
        scores = {key: one for key, one in self.scores.items() if self.groups[key].signature not in tried.broken}
        amounts = {key: share * self.uses[key].amount for key in scores}
        multiples = {key: self.uses[key].multiple_of for key in scores}
        kept, emptied = keep_units(scores, amounts, multiples, together=self.step.scope == "global")
        cuts = [
            Cut(self.groups[key], units, steady=self.groups[key].signature in tried.steady)
            for key, units in kept.items()
            if units.size < self.groups[key].size
        ]
        return cuts, emptied

    def _budgets(self, footprint: Footprint | None) -> dict[str, float]:
        return {name: share for name, share in self.step.budgets.items() if footprint is not None or name == "macs"}

    def _taken(self, name: str, footprint: Footprint | None) -> Callable[[Sequence[Cut]], float]:
        """How large a share of what the network takes it would take, once channels were cut."""
        if footprint is None or name == "macs":
            return lambda cuts: macs_after(cuts, self.graph) / self.graph.macs()
        share = footprint.share_of_bytes if name == "bytes" else footprint.share_of_time
        return lambda cuts: share(cutting(cuts, self.graph))

    def _reach(
        self, name: str, budget: float, taken: Callable[[Sequence[Cut]], float], tried: Tried, low: float
    ) -> float:
        """The least share of the amounts, no less than ``low``, with which a budget is kept."""
        if (most := taken(self._at(1.0, tried)[0])) > budget:
            raise PlanError(
                f"Prune({name}={budget}): cut as far as its amount allows, the network still takes {most:.3f} of its "
                f"{TAKEN[name]}; give it a larger amount"
            )
        return least(lambda share: taken(self._at(share, tried)[0]) <= budget, _TRIES[name], low)

    def _scores(self, network: Network, evidence: Evidence) -> dict[str, Floats]:
        """What the units of every group are worth; groups that cannot be judged are skipped."""
        parts = {key: _parts(self.groups[key], use.score, self.graph) for key, use in self.uses.items()}
        asked = [(cut.parameter, self.uses[key].score) for key, cuts in parts.items() for cut in cuts]
        found = weigh(asked, network, evidence)
        scores: dict[str, Floats] = {}
        for key, use in self.uses.items():
            group, score = self.groups[key], use.score
            seen = [cut for cut in parts[key] if (cut.parameter, score) in found]
            if seen:
                rows = [_rows(found[cut.parameter, score], cut.axis, group.cuts[cut]) for cut in seen]
                scores[key] = score.units(rows)
            else:
                self._skip([group.name], unseen(score))
        return scores

    def _skip(self, layers: Sequence[str], reason: str) -> None:
        self.skipped += [Skipped(step="prune", layer=name, reason=reason) for name in layers]

    def _makers(self, group: Group) -> list[str]:
        """The layers whose output channels a group cuts, or else what it is named by."""
        return [layer.name for layer in self.layers if Axis(layer.weight, layer.axis) in group.cuts] or [group.name]


def _chosen(step: Prune, layers: Sequence[Layer], coupling: Coupling) -> dict[str, Prune]:
    """The settings of everything that makes channels and that the step may change."""
    names = [*(layer.name for layer in layers), *(group.name for group in coupling.groups), *coupling.frozen]
    return settings(step, list(dict.fromkeys(names)))


def macs_after(cuts: Sequence[Cut], graph: Graph) -> float:
    """The multiply-accumulates of a network once channels are cut, for one sample."""
    gone: dict[Axis, int] = {}
    for group, units, _ in cuts:
        for key, indices in group.cuts.items():
            gone[key] = gone.get(key, 0) + (group.size - units.size) * indices.shape[1]
    total, computed = 0.0, computed_from(graph)
    for operation in graph.operations:
        macs = float(graph.macs_of(operation))
        if macs:
            product = graph.multiplied(operation)
            name = operation.inputs[1] if product is None else product.parameter
            weights = computed.get(name, (name,))
            for axis, size in enumerate(graph.shape(name)):
                macs *= 1 - max((gone.get(Axis(weight, axis), 0) for weight in weights), default=0) / size
        total += macs
    return total


def deepest(graph: Graph, amount: float, multiple_of: int = 1) -> float:
    """The share of its multiply-accumulates that a network takes once every group has lost what an amount allows.

    Which channels go does not matter for that, but some groups may turn out not to be cuttable, so it takes more.
    """
    groups = {str(place): group for place, group in enumerate(couple(graph).groups)}
    alike = {key: np.ones(group.size, np.float32) for key, group in groups.items()}
    amounts, multiples = dict.fromkeys(groups, amount), dict.fromkeys(groups, multiple_of)
    kept, _ = keep_units(alike, amounts, multiples, together=False)
    return macs_after([Cut(groups[key], units) for key, units in kept.items()], graph) / max(graph.macs(), 1)


def outputs_gone(cuts: Sequence[Cut]) -> dict[Axis, NDArray[np.int64]]:
    """Which of the network's outputs are no more, by their axis; rising."""
    gone: dict[Axis, NDArray[np.int64]] = {}
    for group, units, _ in cuts:
        removed = np.setdiff1d(np.arange(group.size), units)
        for key, indices in group.outputs.items():
            gone[key] = np.union1d(gone.get(key, []), indices[removed]).astype(np.int64)
    return gone


def cutting(cuts: Sequence[Cut], graph: Graph) -> list[Kept]:
    """The decisions that make cuts one after the other: each speaks of the indices that those before it leave."""
    left: dict[Axis, NDArray[np.int64]] = {}
    counted: dict[Count, int] = {}
    decisions: list[Kept] = []
    for group, units, steady in cuts:
        removed = np.setdiff1d(np.arange(group.size), units)
        axes: dict[Axis, NDArray[np.int64]] = {}
        for key, indices in group.cuts.items():
            before = left.get(key, np.arange(graph.shape(key.parameter)[key.axis]))
            axes[key] = np.flatnonzero(~np.isin(before, indices[removed]))
            left[key] = before[axes[key]]
        sizes = _sizes(group, removed, counted, steady)
        decisions.append(Kept(group=group.name, axes=axes, groups=_depthwise_groups(axes, graph), sizes=sizes))
    return decisions


def _sizes(
    group: Group, removed: NDArray[np.int64], counted: dict[Count, int], steady: bool
) -> dict[str, dict[int, int]]:
    """By module, what becomes of numbers that count channels; ``counted`` is how many there were, and is changed."""
    sizes: dict[str, dict[int, int]] = {}
    unclear: set[tuple[str, int]] = set()
    for count, many in group.counts.items():
        before = counted.get(count, count.size)
        after = counted[count] = before - int(many[removed].sum())
        if (steady or after != before) and sizes.setdefault(count.layer, {}).setdefault(before, after) != after:
            unclear.add((count.layer, before))  # it counts different things, so nobody knows which this number is
    for layer, before in unclear:
        del sizes[layer][before]
    changes = {layer: {a: b for a, b in each.items() if a != b} for layer, each in sizes.items()}
    return {layer: each for layer, each in changes.items() if each}


def _parts(group: Group, score: Score, graph: Graph) -> list[Axis]:
    """What of a group a score judges it by."""
    if score.reads == "scales":
        scales = {one.inputs[1] for one in graph.operations if one.kind == "batch_norm" and len(one.inputs) == 5}
        return [cut for cut in group.cuts if cut.parameter in scales]
    return [cut for cut in group.cuts if graph.is_parameter(cut.parameter) and len(graph.shape(cut.parameter)) > 1]


def _rows(scores: Floats, axis: int, indices: NDArray[np.int64]) -> Floats:
    """One row a unit of the scores of what goes with the unit."""
    rows = np.moveaxis(scores, axis, 0).reshape(scores.shape[axis], -1)
    return rows[indices].reshape(len(indices), -1)


def _depthwise_groups(axes: Mapping[Axis, NDArray[np.int64]], graph: Graph) -> dict[str, int]:
    """For every depthwise convolution that is cut, the groups that it is left with."""
    found: dict[str, int] = {}
    for operation in graph.matrix_operations():
        weight = operation.inputs[1]
        if operation.kind == "conv" and Axis(weight, 0) in axes and is_depthwise(operation, graph):
            share = axes[Axis(weight, 0)].size / graph.shape(weight)[0]
            found[weight] = round(int(operation.attributes["groups"]) * share)
    return found
