"""A network on its way through a plan: what each step decides is applied and recorded."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np

from whit import decide, measure
from whit.data import Array, Data
from whit.decide import Skipped, pruning
from whit.decide.compensating import compensated
from whit.decide.dead import dead_branches, dead_channels
from whit.decide.depth import branches, evenly
from whit.decide.equalize import equalize
from whit.decide.factorize import factorize
from whit.decide.footprint import Footprint, settle_
from whit.decide.mixing import LayerBits, mix
from whit.decide.outputs import keep_outputs, left
from whit.decide.pricing import reach
from whit.decide.proof import proven_cuts, same
from whit.decide.scoring import Evidence
from whit.errors import ModelError, PlanError, listed
from whit.ledger import Assigned, Decision, Ledger, Rounded, RoundedActivation
from whit.metrics import Metric
from whit.network import Network
from whit.plan import Plan
from whit.progress import Progress
from whit.steps import (
    Equalize,
    Factorize,
    Finetune,
    FoldBatchNorm,
    FoldParametrizations,
    KeepOutputs,
    Prune,
    Quantize,
    Regrow,
    RemoveDead,
    Rewind,
    Shrink,
    Step,
)
from whit.store import Profile
from whit.toml import dumps
from whit.workers import Workers

__all__ = ["Run"]

_NOT_DRAWN = "its module has no reset_parameters(), so it starts as it was given"
_GROWTH = 0.01
"""Where the search for a price begins: a bit for every weight costs as much as this growth of the loss."""

Rounding = tuple[Sequence[Rounded | RoundedActivation | Assigned], list[Skipped]]


class Run:
    """A network on its way through a plan.

    Attributes:
        network: As it is now.
        ledger: What was decided so far.
        given: The samples as they were given; ``data`` follows the outputs that the plan keeps.
        teacher: What trainings learn from; its outputs are those of the network.
        start: The parameters before the last training.
        threads: Of ONNX Runtime, when latency is measured.
        batch: Samples of the calls that are timed.
    """

    def __init__(
        self, original: Network, plan: Plan, data: Data, metric: Metric, progress: Progress, profile: Profile
    ) -> None:
        """Before the first step."""
        self.began = perf_counter()
        self.plan = plan
        self.about = {"plan": dumps(plan), "metric": metric.name, "versions": measure.versions()}
        self.original = original
        self.teacher = original
        self.workers: Workers | None = None
        self.threads = self.batch = 1
        self.network = original.copy()
        self.given = self.data = data
        self.metric = metric
        self.progress = progress
        self.profile: Profile = profile
        self.ledger = Ledger()
        self.skipped: list[Skipped] = []
        self.start: Mapping[str, Array] = {}
        self.bits: list[LayerBits] = []

    def through(self, first: int, end: int, checkpoints: str | Path | None = None) -> None:
        """Take the steps from place ``first`` up to ``end``, which is not taken; after the last one, settle."""
        for place in range(first, end):
            step = self.plan.steps[place]
            checkpoint = None if checkpoints is None else Path(checkpoints) / f"step-{place + 1}.safetensors"
            with self.progress.bar(f"step {place + 1} of {len(self.plan.steps)}: {type(step).__name__}", 1):
                self.take(step, checkpoint)
        if end == len(self.plan.steps):
            self.settle()

    def take(self, step: Step, checkpoint: Path | None = None) -> None:
        """Decide, apply and record one step; a training keeps its state in ``checkpoint``."""
        match step:
            case KeepOutputs():
                self.record(keep_outputs(step, self.network, self.data.train))
                self._narrow_teacher(step)
            case FoldBatchNorm():
                self._fold(*decide.folds(self.network))
            case FoldParametrizations():
                self._fold(*decide.plain(self.network))
            case Equalize():
                self._equalize(step)
            case Prune():
                self._prune(step)
            case Regrow():
                self.ledger = self.ledger.unmask(pruning.regrown(step, self.network, self.ledger, self._evidence(step)))
            case Rewind():
                given = self.original.copy()
                given.apply_(self.ledger.structure)
                values = [Assigned(parameter=name, values=np.array(x)) for name, x in given.values().items()]
                self.record([*values, *self.ledger.masks().values()])
            case RemoveDead():
                self.record(dead_branches(self.network, self.data.train))
                self.record(dead_channels(self.network, self.data.train))
            case Shrink():
                self._shrink(step)
            case Factorize():
                self._factorize(step)
            case Quantize():
                self._quantize(step)
            case Finetune():
                quantized = bool(self.ledger.rounded() or self.ledger.activations())
                taught, train = step.taught(quantized=quantized), self.data.train
                self.remember()
                self.record(
                    self.network.finetune_(
                        taught, train, self.metric, self.ledger, self.teacher, self.progress, checkpoint
                    )
                )

    def _fold(self, decisions: Sequence[Decision], skipped: Sequence[Skipped]) -> None:
        """What computes the same in fewer steps; a network may have nothing of the kind."""
        self.skipped += skipped
        self.record(decisions)

    def _prune(self, step: Prune) -> None:
        match step.unit:
            case "channel":
                self._cut(step)
            case "residual":
                self._shorten(step)
            case _:
                self._mask(step)

    def remember(self) -> None:
        """Note where a training begins, which some scores look at."""
        self.start = {name: np.array(x) for name, x in self.network.parameters().items()}

    def _evidence(self, step: Prune | Regrow | Factorize) -> Evidence:
        """What the scores of a step may look at."""
        return Evidence(samples=self.data.train, most=step.samples, loss=self.metric.loss, start=self.start)

    def _quantize(self, step: Quantize) -> None:
        """Round weights and activations."""
        decisions, skipped = self._rounding(step)
        if not decisions:
            raise PlanError(f"Quantize: nothing could be quantized; {decide.reasons(skipped)}")
        self.skipped += skipped
        self.record(decisions)

    def _rounding(self, step: Quantize) -> Rounding:
        """What a step rounds, with the bits that layers choose and at the price of a bit that its target asks for."""

        def at(step: Quantize) -> Rounding:
            return decide.rounding(step, self.network, self.ledger, self.data.train, self.metric.loss, self.progress)

        if step.bits is not None:
            step, self.bits = mix(
                step,
                self.network,
                self.data.train,
                self.metric.loss,
                lambda step: at(step)[0],
                self._footprint(),
                profile=self.profile,
                progress=self.progress,
                workers=self.workers,
            )

        def attempt(rate: float) -> tuple[Rounding, int]:
            with self.progress.bar(f"trying a price of {rate:.2g} a bit", 1):
                found = at(step.at(rate))
            return found, self._size_with(found[0])

        if step.target_bytes is None:
            return at(step)
        weights = sum(array.size for array in self.network.parameters().values())
        return reach(step.target_bytes, _GROWTH / max(weights, 1), attempt)

    def _size_with(self, decisions: Sequence[Decision]) -> int:
        """Bytes of the file, if these decisions were the last."""
        return self._footprint().bytes(decisions)

    def _footprint(self) -> Footprint:
        """What the network takes now."""
        return Footprint(
            self.network, self.ledger, self.data.test.call(self.batch), self.about, self.profile, self.threads
        )

    def record(self, decisions: Sequence[Decision]) -> None:
        """Apply decisions, and note all but plain values, which stand when the last step is done."""
        self.network.apply_(decisions)
        self.ledger = self.ledger.record(*(one for one in decisions if not isinstance(one, Assigned)))

    def _equalize(self, step: Equalize) -> None:
        """Scale channels, having seen on a copy that the network computes what it did."""
        train, most = self.data.train, step.samples
        decisions, skipped = equalize(step, self.network, train, self.metric.loss)
        scaled = self.network.copy()
        scaled.apply_(decisions)
        if not same(self.network.predict(train, most), scaled.predict(train, most)):
            raise ModelError(
                f"scaling the channels of {listed(one.group for one in decisions)} changes what the network computes; "
                "drop the Equalize step, and please report the architecture"
            )
        self.skipped += skipped
        self.record(decisions)

    def _mask(self, step: Prune) -> None:
        """Mask weights, and have those that stay make up for them if the step says so."""
        masks, skipped = pruning.single_weights(
            step, self.network, self.ledger, self._evidence(step), self._footprint()
        )
        if not masks:
            raise PlanError(f"Prune: no weight could be pruned; {decide.reasons(skipped)}")
        self.skipped += skipped
        made: Sequence[Decision] = masks
        if step.compensate:
            held = self.ledger.masks()
            standing = self.ledger.record(*masks).masks()
            chosen = {one.parameter: standing[one.parameter] for one in masks}
            made, skipped = compensated(step, chosen, held, self.network, self._evidence(step))
            self.skipped += skipped
        self.record(made)

    def _cut(self, step: Prune) -> None:
        """Cut channels, having proven on a copy that cutting them is the same as zeroing them."""
        proven = proven_cuts(step, self.network, self._evidence(step), self._footprint())
        if not proven.cuts and step.amount > 0:
            raise PlanError(f"Prune: no channel could be cut; {decide.reasons(proven.skipped)}")
        kept = left(proven.cuts, self.network.graph())
        self.skipped += proven.skipped
        self.record(proven.decisions)
        if kept is not None:
            self._narrow_teacher(kept)

    def _narrow_teacher(self, kept: KeepOutputs) -> None:
        """Have the teacher give what the network gives."""
        decisions = keep_outputs(kept, self.teacher, self.data.train)
        self.teacher = self.teacher.copy()
        self.teacher.apply_(decisions)

    def _shorten(self, step: Prune) -> None:
        """Leave out residual branches, each proven to be the same as one with zero parameters."""
        left_out, skipped = branches(step, self.network, self._evidence(step), self.progress, self._footprint())
        if not left_out and step.amount > 0:
            raise PlanError(f"Prune: no residual branch could be left out; {decide.reasons(skipped)}")
        self.skipped += skipped
        self.record(left_out)

    def _shrink(self, step: Shrink) -> None:
        """Leave out branches evenly, then cut all groups of channels alike, then draw weights anew if that is asked."""
        look = Prune(amount=1 - step.width, unit="channel")
        if step.depth < 1:
            left_out, skipped = evenly(step.depth, self.network, self._evidence(look))
            self.skipped += skipped
            self.record(left_out)
        if step.width < 1:
            self._cut(look)
        if step.start == "fresh":
            kept = self.network.restart_(step.seed)
            if len(kept) == len(self.network.parameters()):
                raise PlanError(
                    'Shrink(start="fresh"): no module of the network has a reset_parameters() that draws its weights '
                    'anew; give it one, or take start="inherited"'
                )
            self.skipped += [Skipped(step="shrink", layer=name, reason=_NOT_DRAWN) for name in kept]
            self.record(list(self.ledger.masks().values()))

    def _factorize(self, step: Factorize) -> None:
        """Make products of weights."""
        factors, skipped = factorize(step, self.network, self._evidence(step), self.progress)
        if not factors:
            raise PlanError(f"Factorize: no layer could become a product; {decide.reasons(skipped)}")
        self.skipped += skipped
        self.record(factors)

    def settle(self) -> None:
        """Record every value that no decision holds yet, so that the ledger alone rebuilds the network."""
        self.ledger = settle_(self.network, self.ledger)
