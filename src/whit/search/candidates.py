"""The plans that a search chooses from: how far a network is cut, how coarsely rounded and how long trained."""

from dataclasses import dataclass, replace
from math import exp, log, prod
from typing import Literal

from whit.decide.channels import deepest
from whit.distill import Distill
from whit.formats import Int
from whit.graph import Graph
from whit.graph.residuals import residuals
from whit.metrics import Loss
from whit.plan import Plan
from whit.quantizers import OptimalBrain
from whit.scores import Taylor
from whit.search.budget import Budget
from whit.steps import Factorize, Finetune, FoldBatchNorm, FoldParametrizations, Prune, Quantize, Step
from whit.target import Target

__all__ = ["STRUCTURE", "Candidate", "Family", "Range"]

STRUCTURE = {"keep": 0.5, "depth": 0.7, "ranks": 0.7}
"""Numbers of a candidate that make a smaller network where they are below 1, with what is tried first of each."""

_DEEPEST = 0.95
"""Most of its channels that a group may lose, and most of the branches that may go."""
_LEAST, _MARGIN = 0.02, 1.1
"""Share of the multiply-accumulates below which nothing is cut, and how far above the least possible one begins: groups
that turn out not to be cuttable leave more."""
_RECOVERY = 0.6
"""Share of the epochs that a cut network is trained for before it is rounded."""
_RECOVERY_RATE, _RATE = 3e-3, 1e-3
"""Learning rates of the two trainings, at a pace of 1."""
_TEMPERATURE = 4.0
_AT_ONCE = 8
"""Channels that kernels of convolutions work on at a time, at least: they take as long for fewer."""
_FINE = Int(bits=16)
"""So fine that rounding to it is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """What distinguishes a plan from others of its family.

    Attributes:
        depth: Share of the multiply-accumulates that is left when residual branches are left out; 1 leaves out none.
        keep: Share of what is left of them when channels are cut then; 1 cuts none.
        ranks: Share of the parameters, or of the multiply-accumulates where bytes do not count, that is left when
            products of smaller weights stand for layers then; 1 makes none.
        price: Of a bit, by which weights are rounded, in units of the loss of a sample; None rounds them to 8 bits.
        integers: Activations are integers too.
        epochs: Of training, in all; 0 for none.
        strength: Price of a bit in training, in units of ``price``.
        pace: Learning rates, in units of the family's.
        control: Rounded by the same price, but then trained with weights that are free: what the training alone does.
    """

    depth: float = 1.0
    keep: float = 1.0
    ranks: float = 1.0
    price: float | None = None
    integers: bool = False
    epochs: float = 0.0
    strength: float = 1.0
    pace: float = 1.0
    control: bool = False

    @property
    def whole(self) -> bool:
        """Whether the network keeps its structure."""
        return all(getattr(self, name) == 1 for name in STRUCTURE)

    def made(self) -> "Candidate":
        """The candidate with no share above 1, which stands for 1."""
        return replace(self, **{name: min(getattr(self, name), 1.0) for name in STRUCTURE})


def _narrowest(graph: Graph) -> int:
    """Fewest channels that a convolution makes; 0 where there is none."""
    convolutions = (layer for layer in graph.layers() if layer.kind in ("conv", "conv_transpose"))
    return min((graph.shape(layer.weight)[layer.axis] for layer in convolutions), default=0)


def _mostly_linear(graph: Graph) -> bool:
    """Whether linear layers hold most of the weights, of which products take less at little cost (Hsu et al. 2022)."""
    sizes = {layer.weight: (layer.kind, prod(graph.shape(layer.weight))) for layer in graph.layers()}
    return 2 * sum(size for kind, size in sizes.values() if kind == "linear") > sum(size for _, size in sizes.values())


@dataclass(frozen=True, slots=True)
class Range:
    """A number that may be chosen, from ``low`` to ``high``, evenly by its logarithm."""

    low: float
    high: float

    def inside(self, value: float) -> float:
        """The nearest number of the range.

        >>> Range(1.0, 4.0).inside(9.0)
        4.0
        """
        return min(max(value, self.low), self.high)

    def at(self, share: float) -> float:
        """The number at a share of the way.

        >>> Range(1.0, 4.0).at(0.5)
        2.0
        """
        return exp(log(self.low) * (1 - share) + log(self.high) * share)


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """What all plans of a search have in common, and what may differ.

    Attributes:
        loss: What trainings make small.
        target: Where the network will run.
        priced: Whether bytes count, so that a bit has a price.
        timed: Whether latency or memory counts, so that activations may be integers.
        cuts: Whether channels can be cut.
        shortens: Whether residual branches may be left out.
        computes: Whether layers compute their weights, which are to be parameters first.
        factors: Whether products of smaller weights may stand for layers.
        multiple_of: Of how many channels layers that are cut keep a multiple.
        least: Share of the multiply-accumulates that is left at least when channels are cut.
        augment: Changes to images that leave their meaning.
        precision: In which trainings compute.
        samples: To round on, and to judge channels by.
        batch_size: Of trainings.
        seed: Of trainings.
    """

    loss: Loss
    target: Target
    priced: bool
    timed: bool
    cuts: bool = True
    shortens: bool = False
    computes: bool = False
    factors: bool = False
    multiple_of: int = 1
    least: float = _LEAST
    augment: tuple[Literal["flip", "shift"], ...] = ()
    precision: Literal["float32", "bfloat16"] = "float32"
    samples: int = 512
    batch_size: int = 128
    seed: int = 0

    @classmethod
    def of(cls, budget: Budget, loss: Loss, target: Target, seed: int, graph: Graph | None = None) -> "Family":
        """The family in which a budget's networks are, as far as a network of this graph can be."""
        timed = budget.counts("latency") or budget.counts("memory")
        fewer = timed or budget.counts("macs")
        multiple_of = _AT_ONCE if timed and graph is not None and _narrowest(graph) >= 2 * _AT_ONCE else 1
        return cls(
            loss=loss,
            target=target,
            priced=budget.counts("bytes"),
            timed=timed,
            shortens=fewer and graph is not None and bool(residuals(graph)),
            factors=graph is not None and _mostly_linear(graph),
            multiple_of=multiple_of,
            least=_LEAST if graph is None else max(_LEAST, _MARGIN * deepest(graph, _DEEPEST, multiple_of)),
            seed=seed,
        )

    @property
    def structure(self) -> list[str]:
        """Which numbers of ``STRUCTURE`` may differ."""
        given = {"keep": self.cuts, "depth": self.shortens, "ranks": self.factors}
        return [name for name in STRUCTURE if given[name]]

    def ranges(self, price: float) -> dict[str, Range]:
        """What may be chosen of plans that train, by name, where rounding alone keeps to the budget at ``price``."""
        found = {"pace": Range(0.5, 4.0)}
        if self.cuts:
            found["keep"] = Range(min(self.least, STRUCTURE["keep"]), 1.0)
        if self.shortens:
            found["depth"] = Range(0.5, 1.25)  # more than 1 is 1: no branch is left out
        if self.factors:
            found["ranks"] = Range(0.4, 1.25)
        if self.priced:
            found |= {"price": Range(price / 2, price * 16), "strength": Range(0.25, 4.0)}
        return found

    def plan(self, candidate: Candidate) -> Plan:
        """The steps of a candidate."""
        steps: list[Step] = []
        rest = candidate.epochs
        if candidate.depth < 1:
            steps.append(Prune(amount=_DEEPEST, unit="residual", macs=candidate.depth, samples=self.samples))
        if candidate.keep < 1:
            steps.append(
                Prune(
                    amount=_DEEPEST,
                    unit="channel",
                    scope="global",
                    score=Taylor(),
                    macs=candidate.keep,
                    multiple_of=self.multiple_of,
                    samples=self.samples,
                )
            )
        if candidate.ranks < 1:
            parameters, macs = (candidate.ranks, None) if self.priced else (None, candidate.ranks)
            multiple_of = _AT_ONCE if self.timed else 1
            steps.append(Factorize(parameters=parameters, macs=macs, multiple_of=multiple_of, samples=self.samples))
        if steps and rest:
            steps.append(self._training(rest * _RECOVERY, _RECOVERY_RATE * candidate.pace))
            rest *= 1 - _RECOVERY
        if self.computes:
            steps.insert(0, FoldParametrizations())
        steps += [FoldBatchNorm(), self._rounding(candidate)]
        if candidate.control:
            return Plan(*steps, Quantize(weights=_FINE), self._training(rest, _RATE * candidate.pace))
        if rest:
            steps.append(self._rounded_training(candidate, rest))
        return Plan(*steps)

    def _rounding(self, candidate: Candidate) -> Quantize:
        step = self.target.quantize(samples=self.samples)
        if not candidate.integers:
            step = replace(step, activations=None, weights=Int(bits=8))
        return step if candidate.price is None else replace(step, method=OptimalBrain(rate=candidate.price))

    def _rounded_training(self, candidate: Candidate, epochs: float) -> Finetune:
        """A divergence at a temperature counts by its square, and what a bit costs is in its units."""
        step = replace(self._training(epochs, _RATE * candidate.pace), trains="both")
        if candidate.price is None:
            return step
        unit = _TEMPERATURE**2 if self.loss == "cross_entropy" else 1.0
        return replace(step, rate=candidate.price * candidate.strength * unit)

    def _training(self, epochs: float, learning_rate: float) -> Finetune:
        return Finetune(
            epochs=epochs,
            learning_rate=learning_rate,
            augment=self.augment,
            batch_size=self.batch_size,
            distill=Distill(temperature=_TEMPERATURE),
            precision=self.precision,
            seed=self.seed,
        )
