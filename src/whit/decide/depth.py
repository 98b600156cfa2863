"""Residual branches that are left out whole, those first that the outputs miss least."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from whit.decide.footprint import Footprint
from whit.decide.proof import SAMPLES, same
from whit.decide.scoring import Evidence
from whit.decide.skipped import Skipped, reasons
from whit.errors import PlanError
from whit.graph import Graph
from whit.graph.residuals import Residual, residuals, ways
from whit.ledger import Assigned, LeftOut
from whit.metrics import divergence
from whit.network import Network
from whit.progress import Progress
from whit.steps import Prune, settings
from whit.steps.prune import TAKEN

__all__ = ["branches", "evenly", "fitting", "spread"]


class _Branch(NamedTuple):
    """A branch that can be left out, and the decision that does it."""

    residual: Residual
    decision: LeftOut
    macs: int


def branches(
    step: Prune, network: Network, evidence: Evidence, progress: Progress, footprint: Footprint | None = None
) -> tuple[list[LeftOut], list[Skipped]]:
    """The branches that a step with ``unit="residual"`` leaves out, and those that cannot be.

    They go one after the other. Each time it is the one without which, beside those that are gone, the outputs diverge
    least from what they are now; under a budget, least for each multiply-accumulate that it takes. Budgets of bytes and
    time are measured by the ``footprint``; without it they are not heeded.

    Raises:
        PlanError: The amount is too small for a budget, or there is no such branch.
    """
    graph = network.graph()
    found, skipped = _eligible(step, network, graph, evidence)
    most = int(step.amount * len(found) + 1e-9)
    budgets = {name: share for name, share in step.budgets.items() if footprint is not None or name == "macs"}
    least = graph.macs() - sum(sorted(one.macs for one in found)[len(found) - most :])
    if "macs" in budgets and least > budgets["macs"] * graph.macs():
        raise _too_small("macs", step, len(found), least / graph.macs())
    chosen: list[_Branch] = []

    def taken(name: str) -> float:
        if footprint is None or name == "macs":
            return 1 - sum(one.macs for one in chosen) / graph.macs()
        decisions = [one.decision for one in chosen]
        return footprint.share_of_bytes(decisions) if name == "bytes" else footprint.share_of_time(decisions)

    order = _Order(network, evidence, found, per_mac=bool(budgets))
    with progress.bar("leaving out residual branches", most) as bar:
        while len(chosen) < most and not (budgets and all(taken(name) <= share for name, share in budgets.items())):
            chosen.append(order.next())
            bar.advance()
    for name, share in budgets.items():
        if len(chosen) == most and (left := taken(name)) > share:
            raise _too_small(name, step, len(found), left)
    return [one.decision for one in chosen], skipped


def evenly(share: float, network: Network, evidence: Evidence) -> tuple[list[LeftOut], list[Skipped]]:
    """The branches to leave out so that a share of those that can be stays, evenly spread; and those that cannot be.

    Raises:
        PlanError: There is no such branch, or none could go.
    """
    found, skipped = _eligible(Prune(amount=0.0, unit="residual"), network, network.graph(), evidence)
    kept = spread(len(found), max(1, round(share * len(found))))
    gone = [one.decision for place, one in enumerate(found) if place not in kept]
    if not gone:
        raise PlanError(
            f"Shrink(depth={share}): of {len(found)} residual branches that can be left out none is to go; "
            f"{reasons(skipped) if skipped else 'leave depth at 1.0'}"
        )
    return gone, skipped


def spread(size: int, count: int) -> frozenset[int]:
    """So many of the places from 0 to ``size``, each in the middle of a part of them.

    >>> sorted(spread(6, 3)), sorted(spread(9, 2)), sorted(spread(2, 2))
    ([1, 3, 5], [2, 6], [0, 1])
    """
    return frozenset(int((place + 0.5) * size / count) for place in range(min(count, size)))


def _too_small(name: str, step: Prune, found: int, left: float) -> PlanError:
    """What to say of an amount that does not reach a budget."""
    return PlanError(
        f'Prune({name}={step.budgets[name]}, unit="residual"): without {int(step.amount * found + 1e-9)} of {found} '
        f"branches the network still takes {left:.3f} of its {TAKEN[name]}; give it a larger amount"
    )


def _eligible(step: Prune, network: Network, graph: Graph, evidence: Evidence) -> tuple[list[_Branch], list[Skipped]]:
    """The branches that the step's rules speak of and that can be left out, and why the others cannot."""
    chosen = settings(step, [layer.name for layer in graph.layers()])
    macs = {layer.name: layer.macs for layer in graph.layers()}
    found: list[_Branch] = []
    skipped: list[Skipped] = []
    for residual in residuals(graph):
        if not all(layer in chosen for layer in residual.layers):
            continue
        decision = _proven(residual, network, graph, evidence)
        if decision is None:
            reason = "the network's code cannot do without the branch that it begins"
            skipped.append(Skipped(step="prune", layer=residual.name, reason=reason))
        else:
            found.append(_Branch(residual, decision, sum(macs[layer] for layer in residual.layers)))
    return found, skipped


def _proven(residual: Residual, network: Network, graph: Graph, evidence: Evidence) -> LeftOut | None:
    """The first way to leave a branch out that computes the same as the branch with all of its parameters zero."""
    inside = {name for one in graph.operations if one.output in residual.inside for name in one.inputs}
    masked = network.copy()
    values = network.parameters()
    masked.apply_([Assigned(parameter=name, values=np.zeros_like(values[name])) for name in inside & values.keys()])
    expected = masked.predict(evidence.samples, most=SAMPLES)
    return fitting(
        residual, network, graph, lambda other: same(expected, other.predict(evidence.samples, most=SAMPLES))
    )


def fitting(residual: Residual, network: Network, graph: Graph, fits: Callable[[Network], bool]) -> LeftOut | None:
    """The first way to leave a branch out of which what is left fits."""
    for decision in ways(residual, graph):
        try:
            without = network.copy()
            without.apply_([decision])
            if fits(without):
                return decision
        except Exception:  # the user's code: whatever it raises, it cannot take this way
            continue
    return None


class _Order:
    """Which branch goes next."""

    def __init__(self, network: Network, evidence: Evidence, found: Sequence[_Branch], *, per_mac: bool) -> None:
        self.network = network
        self.evidence = evidence
        self.per_mac = per_mac
        self.expected = network.predict(evidence.samples, evidence.most)
        self.gone: list[LeftOut] = []
        self.harm = 0.0
        self.known = {place: self._cost(one) for place, one in enumerate(found)}
        self.branches = list(found)

    def next(self) -> _Branch:
        """The branch that costs least beside those that are gone.

        What a branch cost when fewer were gone tells which to look at first. The first that is still the least once it
        was looked at again is taken, as costs seldom fall when more is gone (Minoux 1978).
        """
        fresh: set[int] = set()
        while True:
            place = min(self.known, key=lambda one: self.known[one])
            if place in fresh:
                break
            self.known[place] = self._cost(self.branches[place])
            fresh.add(place)
        del self.known[place]
        self.gone.append(self.branches[place].decision)
        self.harm = self._divergence(self.gone)
        return self.branches[place]

    def _cost(self, branch: _Branch) -> float:
        harm = self._divergence([*self.gone, branch.decision]) - self.harm
        return harm / max(branch.macs, 1) if self.per_mac else harm

    def _divergence(self, decisions: Sequence[LeftOut]) -> float:
        without = self.network.copy()
        without.apply_(decisions)
        found = without.predict(self.evidence.samples, self.evidence.most)
        return divergence(self.evidence.loss, self.expected, found)
