"""Cuts that are proven before they are made: sliced output equals zero-masked output."""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from itertools import chain
from re import sub
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from whit.data import Array, Samples
from whit.decide.channels import Channels, Cut, Signature, Tried, cutting, outputs_gone
from whit.decide.footprint import Footprint
from whit.decide.scoring import Evidence
from whit.decide.skipped import Skipped
from whit.graph import Graph
from whit.ledger import Kept, Masked
from whit.network import Network
from whit.steps import Prune

__all__ = ["SAMPLES", "Proof", "Proven", "harmless", "mask_", "proven_cuts", "same", "unchanged"]

_TOLERANCE = 1e-4
_LOOK, _NOTHING = 64, 1e-5
"""Samples on which a network is to compute the same without something, and a share of its outputs that is none."""
SAMPLES = 4
"""On which edits are tried."""


class Proven(NamedTuple):
    """Cuts that hold, the decisions that make them, to be applied in order, and what could not be cut."""

    cuts: list[Cut]
    decisions: list[Kept]
    skipped: list[Skipped]


def proven_cuts(step: Prune, network: Network, evidence: Evidence, footprint: Footprint | None = None) -> Proven:
    """The cuts that a step with ``unit="channel"`` makes, none of which changes what the channels that stay compute.

    A group whose cut does is left alone, with the reason: its width is a number in the user's code, say. Where that is
    so of two groups that only numbers in names tell apart, the others of them are left alone untried. Of numbers of
    which nobody can say what they count, the proof shows whether they follow the cut. Budgets that have to be measured
    are kept by cuts that hold, so they come last; without a ``footprint`` they are not heeded.
    """
    graph = network.graph()
    channels = Channels(step, network, graph, evidence)
    tried = Tried()
    cuts, skipped = channels.cuts(tried)
    proof = Proof(network, graph, evidence.samples)
    holds = proof.holds(cuts)
    if not holds:
        proof.add(cuts, fail=True)
        tried = Tried(
            broken=frozenset(cut.group.signature for cut in proof.broken),
            steady=frozenset(cut.group.signature for cut in proof.sound if cut.steady),
        )
    measured = footprint if step.budgets.keys() - {"macs"} else None
    if not holds or measured is not None:
        cuts, skipped = channels.cuts(tried, measured)
        if not proof.holds(cuts):
            proof.sound.clear()
            proof.add(cuts, fail=True)
            cuts = proof.sound
    return Proven(cuts, cutting(cuts, graph), skipped)


def harmless(cuts: Sequence[Cut], network: Network, graph: Graph, samples: Samples) -> list[Kept]:
    """The decisions of those of some cuts that change nothing of what the network computes."""
    proof = _Harmless(network, graph, samples)
    proof.add(cuts)
    joined = _joined(proof.sound)
    return cutting(joined if proof.holds(joined) else proof.sound, graph)


def _joined(cuts: Sequence[Cut]) -> list[Cut]:
    """One cut a group."""
    found: dict[Signature, Cut] = {}
    for one in cuts:
        other = found.get(one.group.signature, one)
        units = np.intersect1d(one.units, other.units)
        found[one.group.signature] = Cut(one.group, units, steady=one.steady or other.steady)
    return list(found.values())


class Proof:
    """Tries cuts on copies of a network.

    Attributes:
        sound: Cuts that were added and hold together.
        broken: Those that do not.
    """

    def __init__(self, network: Network, graph: Graph, samples: Samples) -> None:
        self.network = network
        self.graph = graph
        self.samples = samples
        self.sound: list[Cut] = []
        self.broken: list[Cut] = []

    def holds(self, cuts: Sequence[Cut]) -> bool:
        """Whether the network with channels cut computes what it computes with the same channels zeroed.

        Of outputs that are cut nothing is asked.
        """
        if not cuts:
            return True
        cut = self.network.copy()
        try:
            cut.apply_(cutting(cuts, self.graph))
            return self._fits(cut, cuts)
        except Exception:  # the user's code fixes a size: whatever it raises, this cut is not one it can take
            return False

    def _fits(self, cut: Network, cuts: Sequence[Cut]) -> bool:
        found = cut.predict(self.samples, most=SAMPLES)  # first, for it is the one that may fail
        masked = self.network.copy()
        mask_(masked, cuts)
        outputs = masked.predict(self.samples, most=SAMPLES)
        for (_, axis), gone in outputs_gone(cuts).items():
            outputs = np.delete(outputs, gone, axis)
        return same(outputs, found)

    def add(self, cuts: Sequence[Cut], *, fail: bool = False) -> None:
        """Add the cuts that hold together with those before them; ``fail``: they are known not to.

        What does not hold is split: into kinds, and those of one kind into one that tells about the others, and halves.
        """
        if not fail and self.holds([*self.sound, *cuts]):
            self.sound += cuts
        elif len(cuts) > 1:
            kinds = _kinds(cuts)
            if len(kinds) > 1:
                self._add_halves(kinds)
            else:
                self._add_alike(cuts)
        elif cuts[0].steady:
            self.broken += cuts
        else:
            self.add([cuts[0]._replace(steady=True)])

    def _add_halves(self, parts: Sequence[Sequence[Cut]]) -> None:
        """Add cuts that do not hold together."""
        first, second = ([*chain(*half)] for half in (parts[: len(parts) // 2], parts[len(parts) // 2 :]))
        before = len(self.sound)
        self.add(first)
        # Where all of the first half holds as it is, the second is why the whole does not.
        self.add(second, fail=[*map(id, self.sound[before:])] == [*map(id, first)])

    def _add_alike(self, cuts: Sequence[Cut]) -> None:
        """Add cuts of one kind that do not hold together; where two of them do not by themselves, none is added."""
        first, *others = cuts
        if self._breaks(first):
            *others, last = others
            if self._breaks(last):
                self.broken += others
            elif others:
                self.add(others)
        elif len(others) == 1:
            self.add(others, fail=self.sound[-1] is first)
        elif self.sound[-1] is first:
            self._add_halves([[one] for one in others])
        elif self.holds([*self.sound, *(steady := [one._replace(steady=True) for one in others])]):
            self.sound += steady
        else:
            self.add(others)

    def _breaks(self, cut: Cut) -> bool:
        """Add a cut; whether it does not hold."""
        before = len(self.broken)
        self.add([cut])
        return len(self.broken) > before


def _kinds(cuts: Sequence[Cut]) -> list[list[Cut]]:
    """Cuts by what only numbers in the names of parameters tell apart, as of blocks that follow each other."""
    found: dict[Hashable, list[Cut]] = {}
    for one in cuts:
        axes = ((sub(r"\d+", "0", axis.parameter), axis.axis, count) for axis, count in one.group.signature)
        found.setdefault((one.group.size, one.steady, frozenset(Counter(axes).items())), []).append(one)
    return list(found.values())


class _Harmless(Proof):
    """Tries cuts that are to change nothing."""

    def __init__(self, network: Network, graph: Graph, samples: Samples) -> None:
        super().__init__(network, graph, samples)
        self._same = unchanged(network, samples)

    def _fits(self, cut: Network, cuts: Sequence[Cut]) -> bool:
        return self._same(cut)

    def _add_alike(self, cuts: Sequence[Cut]) -> None:
        """Whether a channel changes anything is said by its values, not by the code: none tells about another."""
        self._add_halves([[one] for one in cuts])


def mask_(network: Network, cuts: Sequence[Cut]) -> None:
    """Make zero, instead of cutting it, all that goes with the units that are cut."""
    gone: dict[str, list[tuple[int, NDArray[np.int64]]]] = {}
    for group, units, _ in cuts:
        removed = np.setdiff1d(np.arange(group.size), units)
        for (parameter, axis), indices in group.cuts.items():
            gone.setdefault(parameter, []).append((axis, indices[removed].reshape(-1)))
    graph = network.graph()
    masked: list[Masked] = []
    for parameter, axes in gone.items():
        mask = np.ones(graph.shape(parameter), np.bool_)
        for axis, indices in axes:
            mask[(slice(None),) * axis + (indices,)] = False
        masked.append(Masked(parameter=parameter, mask=mask))
    network.apply_(masked)


def same(expected: Array, found: Array) -> bool:
    """Whether two networks' outputs are equal but for the order of floating-point sums."""
    scale = max(1.0, float(np.abs(expected).max()))
    return found.shape == expected.shape and float(np.abs(found - expected).max()) <= _TOLERANCE * scale


def unchanged(network: Network, samples: Samples) -> Callable[[Network], bool]:
    """Tells whether another network computes what this one does, which is run once, however small its outputs are."""
    expected = network.predict(samples, most=_LOOK)
    most = _NOTHING * float(np.abs(expected).max())

    def fits(other: Network) -> bool:
        found = other.predict(samples, most=_LOOK)
        return found.shape == expected.shape and float(np.abs(found - expected).max()) <= most

    return fits
