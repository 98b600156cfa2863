"""What Prune chooses: masks over single weights, and channels to cut."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from whit.allocate import erk, keep_rows, keep_units, keep_weights
from whit.coupling import Count, Group, couple
from whit.decide import Skipped, Weight, weights_of
from whit.errors import PlanError
from whit.formats import Floats
from whit.graph import Graph, Layer
from whit.labels import is_depthwise
from whit.ledger import Axis, Kept, Ledger, Masked, matrix, unmatrix
from whit.network import Network
from whit.plan import Prune, Regrow, settings
from whit.scores import Known, Score
from whit.scoring import Asked, Evidence, weigh
from whit.units import NM, Block

__all__ = ["Cut", "Tried", "channels", "cutting", "macs_after", "mask_weights", "regrown", "single_weights"]

Signature = tuple[tuple[Axis, int], ...]
_HALVINGS = 16
"""Of the share of an amount that reaches a budget: fewer than one channel in 65,536 is left open."""
Mask = NDArray[np.bool_]
Weigh = Callable[[Collection[Asked]], Mapping[Asked, Floats]]


def single_weights(
    step: Prune, network: Network, ledger: Ledger, evidence: Evidence
) -> tuple[list[Masked], list[Skipped]]:
    """Masks over the weights of every layer that the step prunes."""
    weights = weights_of(network.graph().layers(), network)
    return mask_weights(step, weights, lambda asked: weigh(asked, network, evidence), ledger)


def mask_weights(
    step: Prune, weights: Sequence[Weight], weighed: Weigh | None = None, ledger: Ledger | None = None
) -> tuple[list[Masked], list[Skipped]]:
    """Masks over the weights that a step prunes, and the layers that could not be judged.

    Args:
        step: With its rules.
        weights: Of layers.
        weighed: How scores come to see what they need; None shows them weights alone.
        ledger: What is masked already stays so, and counts.

    Raises:
        PlanError: A rule matches none of the layers.
    """
    chosen = settings(step, [weight.layer for weight in weights])
    uses = {weight.parameter: chosen[weight.layer] for weight in weights if weight.layer in chosen}
    asked = [(name, use.score) for name, use in uses.items()]
    found = _plain(asked, weights) if weighed is None else weighed(asked)
    masked = ledger.masks() if ledger is not None else {}
    scores: dict[str, Floats] = {}
    skipped: list[Skipped] = []
    for weight in weights:
        if weight.layer not in chosen:
            continue
        score = found.get((weight.parameter, chosen[weight.layer].score))
        if score is None:
            skipped.append(Skipped(step="prune", layer=weight.layer, reason=_unseen(chosen[weight.layer].score)))
        elif weight.parameter in masked:
            scores[weight.parameter] = np.where(masked[weight.parameter].mask, score, -np.inf).astype(np.float32)
        else:
            scores[weight.parameter] = score
    amounts = {name: uses[name].amount for name in scores}
    axes = {weight.parameter: weight.axis for weight in weights}
    masks = _masks(step, scores, amounts, axes, {name: uses[name].score for name in scores})
    return [Masked(parameter=name, mask=mask) for name, mask in masks.items()], skipped


def _masks(
    step: Prune,
    scores: Mapping[str, Floats],
    amounts: Mapping[str, float],
    axes: Mapping[str, int],
    judges: Mapping[str, Score],
) -> Mapping[str, Mask]:
    """Masks from scores of single weights, for the unit and scope of a step."""
    if isinstance(step.unit, NM):
        return {name: step.unit.keep(score, axes[name]) for name, score in scores.items()}
    if step.scope == "erk":
        amounts = erk({name: score.shape for name, score in scores.items()}, amounts)
    together = step.scope == "global"
    if isinstance(step.unit, Block):
        rows = {name: matrix(score, axes[name]) for name, score in scores.items()}
        kept = keep_weights(
            {name: step.unit.worth(judges[name], found) for name, found in rows.items()}, amounts, together=together
        )
        return {
            name: unmatrix(
                step.unit.spread(kept[name], (found.shape[0], found.shape[1])), scores[name].shape, axes[name]
            )
            for name, found in rows.items()
        }
    if step.scope == "row":
        return keep_rows(scores, amounts, axes)
    return keep_weights(scores, amounts, together=together)


def _plain(asked: Sequence[Asked], weights: Sequence[Weight]) -> dict[Asked, Floats]:
    """What scores say that need to see nothing but weights."""
    values = {weight.parameter: np.asarray(weight.values, np.float32) for weight in weights}
    return {(name, score): score.weights(Known(name=name, weights=values[name])) for name, score in asked}


def _unseen(score: Score) -> str:
    """Why a layer could not be judged."""
    if score.reads == "scales":
        return "no batch normalisation scales its channels"
    return f"{type(score).__name__} could not see what it reads; give it another score by a rule, such as Magnitude()"


def regrown(step: Regrow, network: Network, ledger: Ledger, evidence: Evidence) -> list[Masked]:
    """Masks that leave out fewer weights than the ledger's: of what is masked, what scores highest comes back."""
    masks = ledger.masks()
    found = weigh([(name, step.score) for name in masks], network, evidence) if step.amount < 1 else {}
    given: list[Masked] = []
    for name, masked in masks.items():
        gone = int((~masked.mask).sum())
        count = min(gone, round(step.amount * masked.mask.size))
        score = found.get((name, step.score))
        if score is None and 0 < count < gone:
            raise PlanError(f"Regrow: {name}: {_unseen(step.score)}")
        # Kept weights are worth more than any, so that all but the lowest of the masked stay or come back.
        worth = np.where(masked.mask, np.inf, 0.0 if score is None else score).astype(np.float32)
        kept = keep_weights({name: worth}, {name: (gone - count) / masked.mask.size}, together=False)[name]
        given.append(Masked(parameter=name, mask=kept))
    return given


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


def channels(
    step: Prune, network: Network, graph: Graph, evidence: Evidence, tried: Tried | None = None
) -> tuple[list[Cut], list[Skipped]]:
    """Which channels every group of coupled channels keeps; groups that keep all are left out.

    Args:
        step: With ``unit="channel"``.
        network: As it is now.
        graph: What it computes.
        evidence: What scores may look at.
        tried: What is known of groups from cuts that were tried, if any were.
    """
    tried = tried or Tried()
    groups, uses, skipped = _chosen(step, graph, tried.broken)
    parts = {key: _parts(group, uses[key].score, graph) for key, group in groups.items()}
    found = weigh([(cut.parameter, uses[key].score) for key, cuts in parts.items() for cut in cuts], network, evidence)
    scores: dict[str, Floats] = {}
    for key, group in groups.items():
        score = uses[key].score
        seen = [cut for cut in parts[key] if (cut.parameter, score) in found]
        if seen:
            scores[key] = score.units([_rows(found[cut.parameter, score], cut.axis, group.cuts[cut]) for cut in seen])
        else:
            skipped.append(Skipped(step="prune", layer=group.name, reason=_unseen(score)))

    def at(share: float) -> list[Cut]:
        """The cuts with this share of every amount."""
        amounts = {key: share * uses[key].amount for key in scores}
        multiples = {key: uses[key].multiple_of for key in scores}
        kept = keep_units(scores, amounts, multiples, together=step.scope == "global")
        cuts = [Cut(groups[key], units) for key, units in kept.items() if units.size < groups[key].size]
        return [cut._replace(steady=cut.group.signature in tried.steady) for cut in cuts]

    return (at(1.0) if step.macs is None else _within(step.macs, at, graph)), skipped


def _within(budget: float, at: Callable[[float], list[Cut]], graph: Graph) -> list[Cut]:
    """The cuts that remove least of those that leave no more than a share of the multiply-accumulates."""
    most = budget * graph.macs()
    if (least := macs_after(at(1.0), graph)) > most:
        raise PlanError(
            f"Prune(macs={budget}): cut as far as its amount allows, the network still takes "
            f"{least / graph.macs():.3f} of its multiply-accumulates; give it a larger amount"
        )
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if macs_after(at(middle), graph) <= most else (middle, high)
    return at(high)


def macs_after(cuts: Sequence[Cut], graph: Graph) -> float:
    """The multiply-accumulates of a network once channels are cut, for one sample."""
    gone: dict[Axis, int] = {}
    for group, units, _ in cuts:
        for key, indices in group.cuts.items():
            gone[key] = gone.get(key, 0) + (group.size - units.size) * indices.shape[1]
    total = 0.0
    for operation in graph.operations:
        macs = float(graph.macs_of(operation))
        for axis, size in enumerate(graph.shape(operation.inputs[1])[:2] if macs else ()):
            macs *= 1 - gone.get(Axis(operation.inputs[1], axis), 0) / size
        total += macs
    return total


def _chosen(
    step: Prune, graph: Graph, broken: frozenset[Signature]
) -> tuple[dict[str, Group], dict[str, Prune], list[Skipped]]:
    """The groups that a step may cut and with which settings, by a key of each; and what it may not, and why."""
    layers = graph.layers()
    coupling = couple(graph)
    names = [*(layer.name for layer in layers), *(group.name for group in coupling.groups)]
    chosen = settings(step, list(dict.fromkeys(names)))
    skipped = [
        Skipped(step="prune", layer=name, reason=reason) for name, reason in coupling.frozen.items() if name in chosen
    ]
    groups: dict[str, Group] = {}
    uses: dict[str, Prune] = {}
    for place, group in enumerate(coupling.groups):
        makers = _makers(group, layers) or [group.name]
        left_alone = [name for name in makers if name not in chosen]
        if group.signature in broken:
            skipped += [Skipped(step="prune", layer=makers[0], reason="the network's code fixes its width")]
        elif left_alone:
            reason = f"its channels are coupled to {left_alone[0]}, which a rule leaves alone"
            skipped += [Skipped(step="prune", layer=name, reason=reason) for name in makers if name in chosen]
        else:
            key = f"{place}.{group.name}"
            groups[key] = group
            uses[key] = min((chosen[name] for name in makers), key=lambda use: use.amount)
    return groups, uses, skipped


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


def _makers(group: Group, layers: Sequence[Layer]) -> list[str]:
    """The layers whose output channels a group cuts."""
    return [layer.name for layer in layers if Axis(layer.weight, 0) in group.cuts]


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
