"""Run a plan on a network: decide, apply, record, and measure what comes out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Generic, TypeVar, cast

import numpy as np

from whit import decide, measure, pruning, store
from whit.compensating import compensated
from whit.data import Array, Data, as_data
from whit.dead import dead_branches, dead_channels
from whit.decide import Skipped
from whit.depth import branches, evenly
from whit.equalize import equalize
from whit.errors import ModelError, PlanError, listed
from whit.factorize import factorize
from whit.footprint import Footprint, settle_
from whit.frontends import network_of
from whit.ledger import Assigned, Decision, Ledger, Rounded, RoundedActivation
from whit.measure import Figures, Latency, Parity
from whit.metrics import Metric, named
from whit.mixing import LayerBits, mix
from whit.network import Network
from whit.outputs import check_worth, following, keep_outputs, left
from whit.plan import (
    Equalize,
    Factorize,
    Finetune,
    FoldBatchNorm,
    KeepOutputs,
    Plan,
    Prune,
    Quantize,
    Regrow,
    RemoveDead,
    Rewind,
    Shrink,
    Step,
)
from whit.pricing import reach
from whit.progress import Progress
from whit.proof import proven_cuts, same
from whit.ranks import Ranks
from whit.runtime import load, open_onnx
from whit.scoring import Evidence
from whit.store import Profile
from whit.target import Target
from whit.toml import dumps
from whit.workers import Workers

__all__ = ["Draft", "Result", "Run", "begin", "compress", "draft", "finished", "learns", "teacher_of"]

Model = TypeVar("Model")
_NOISE = 1.05
"""A time that is no more than so many times another is not called slower."""
_NOT_DRAWN = "its module has no reset_parameters(), so it starts as it was given"
_GROWTH = 0.01
"""Where the search for a price begins: a bit for every weight costs as much as this growth of the loss."""

_COMPARED = 512
"""Samples on which a draft is compared with its framework's network."""

Rounding = tuple[Sequence[Rounded | RoundedActivation | Assigned], list[Skipped]]


@dataclass(frozen=True, kw_only=True)
class Result(Generic[Model]):
    """A compressed network, with the proof.

    Attributes:
        model: The network, an instance of the class that was given; of an ONNX file, a ``torch.nn.Module``.
        plan: What was done.
        ledger: What was decided, in replay order.
        bits: Of every layer that chose its bits (``Quantize(bits=Mixed(...))``) which, and what they cost.
        before: The network that was given, as an fp32 ONNX file in ONNX Runtime; an ONNX file as it is.
        after: The ``.whit`` file in ONNX Runtime.
        parity: Between ``model`` and the ``.whit`` file in ONNX Runtime.
        metric: What ``quality`` is.
        skipped: What could not be pruned or quantized, and why.
        seconds: How long it all took.
        file: The ``.whit`` file's bytes.
        onnx: The ``.onnx`` file's bytes.
        original_onnx: The bytes of the fp32 ``.onnx`` file that ``before`` was measured on.
        threads: Of ONNX Runtime, when latency was measured.
        floating_ms: Where activations are rounded, the time of the same network with nothing rounded: what integers
            have to be faster than.
        floating_onnx: That network's ``.onnx`` file.
    """

    model: Model
    plan: Plan
    ledger: Ledger
    before: Figures
    after: Figures
    parity: Parity
    metric: Metric
    skipped: tuple[Skipped, ...]
    seconds: float
    file: bytes
    onnx: bytes
    original_onnx: bytes
    threads: int
    bits: tuple[LayerBits, ...] = ()
    floating_ms: Latency | None = None
    floating_onnx: bytes = b""

    @property
    def slowdown(self) -> float | None:
        """How many times slower the network runs in integers than in floating point; None where it is no slower."""
        if self.floating_ms is None:
            return None
        times = self.after.latency_ms.median / self.floating_ms.median
        return times if times > _NOISE else None

    @property
    def faster_onnx(self) -> bytes:
        """The ``.onnx`` file of the network as it runs faster, as measured: in integers or in floating point."""
        return self.onnx if self.slowdown is None else self.floating_onnx


def compress(
    model: Model | str | Path,
    plan: Plan | Step,
    *,
    data: Data | tuple[Array, Array],
    metric: str | Metric = "accuracy",
    threads: int = 1,
    profile: Profile = "small",
    target: Target | None = None,
    teacher: Model | str | Path | None = None,
    workers: Workers | None = None,
    checkpoints: str | Path | None = None,
    progress: Progress | None = None,
) -> Result[Model]:
    """Compress a network by a plan, and measure the file that comes out.

    Under ``torchrun`` every process makes the same call: they train together, each on its share of every batch, which
    gives what one process would but for the order of sums; all get the same result, which the first measures.

    Args:
        model: A ``torch.nn.Module``, which is not changed, or the path of an ``.onnx`` file.
        plan: What to do.
        data: Training samples to calibrate and fine-tune on and test samples for the last number, or ``(x, y)``, of
            which a fifth is held out for testing.
        metric: ``"accuracy"``, ``"mae"``, ``"mse"`` or a ``whit.metrics.Metric``.
        threads: Of ONNX Runtime, when latency is measured.
        profile: How codes are stored: ``"small"``, or ``"fast"``, up to 4 % larger and read several times faster.
        target: Where the network will run: a plan with formats that are not supported there is refused, naming those
            that are. None checks nothing.
        teacher: What every ``Finetune`` that distils learns from, such as a larger network, with the inputs and outputs
            of ``model``. None takes the network that was given.
        workers: Who tries the widths of each layer for ``Quantize(bits=...)``, ``Processes(2)`` say; None does it here.
            The class of ``model`` has to be one that they can import.
        checkpoints: A folder in which every ``Finetune`` keeps its state, once a minute. The same call, made again
            after it was stopped, goes on from there and gives the same result.
        progress: Shows what is under way.

    Returns:
        The compressed network with its ledger and figures.

    Raises:
        PlanError, DataError, ModelError: What was given cannot be used; the message says why.
        ParityError: The exported network does not compute what ``model`` computes.
        OutputError: There is no such profile, or nothing can be written to ``checkpoints``.
        FileError: What is kept there is of another call.
    """
    run = begin(
        model, plan, data=data, metric=metric, profile=profile, target=target, teacher=teacher, progress=progress
    )
    run.workers, run.threads = workers, threads
    run.through(0, len(run.plan.steps), checkpoints)
    return run.result(threads)


def begin(
    model: object,
    plan: Plan | Step,
    *,
    data: Data | tuple[Array, Array],
    metric: str | Metric,
    profile: Profile = "small",
    target: Target | None = None,
    teacher: object | None = None,
    progress: Progress | None = None,
) -> "Run":
    """A run of a plan before its first step; arguments and errors are those of ``compress``."""
    store.check_profile(profile)
    plan = plan if isinstance(plan, Plan) else Plan(plan)
    if target is not None:
        target.check(plan)
    data = as_data(data)
    metric = named(metric)
    original = network_of(model, data.train)
    _check(original, plan, data, metric)
    run = Run(original, plan, data, metric, progress or Progress(), profile)
    if teacher is not None:
        if not learns(plan):
            raise PlanError("a teacher was given, but no Finetune learns from it: give one distill=Distill()")
        run.teacher = teacher_of(teacher, original, data)
    if isinstance(plan.steps[0], KeepOutputs):
        run.data = following(plan.steps[0], data, original.graph(), metric)
    return run


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What a plan makes, measured as far as it takes to choose among plans.

    Attributes:
        file: The ``.whit`` file's bytes.
        quality: Of that file in ONNX Runtime, on the test samples of the data that were given.
        macs: Multiply-accumulates for one sample.
        skipped: What could not be pruned or quantized, and why.
    """

    file: bytes
    quality: float
    macs: int
    skipped: tuple[Skipped, ...]


def draft(
    model: object,
    plan: Plan,
    *,
    data: Data,
    metric: Metric,
    profile: Profile = "small",
    teacher: object | None = None,
    checkpoints: str | Path | None = None,
    progress: Progress | None = None,
) -> Draft:
    """Compress a network by a plan, to see what comes out; arguments and errors are those of ``compress``.

    A plan of which no step learns from a teacher takes no notice of one.
    """
    teacher = teacher if learns(plan) else None
    run = begin(model, plan, data=data, metric=metric, profile=profile, teacher=teacher, progress=progress)
    run.through(0, len(plan.steps), checkpoints)
    with TemporaryDirectory(prefix="whit-") as folder:
        onnx, whit = Path(folder) / "model.onnx", Path(folder) / "model.whit"
        run.network.export(onnx, run.ledger)
        whit.write_bytes(store.encode(run.ledger, onnx.read_bytes(), run.about, profile=profile))
        outputs = measure.predictions(load(whit, threads=0), data.test, run.progress, "testing")
        framework = run.network.predict(data.test, _COMPARED)
        measure.parity(framework, outputs[: len(framework)], metric, rounded=bool(run.ledger.activations()))
        return Draft(
            file=whit.read_bytes(),
            quality=metric(outputs, data.test.targets),
            macs=run.network.graph().macs(),
            skipped=tuple(run.skipped),
        )


def finished(
    model: Model | str | Path,
    plan: Plan,
    made: Ledger,
    skipped: Sequence[Skipped],
    *,
    data: Data,
    metric: Metric,
    threads: int = 1,
    profile: Profile = "small",
    progress: Progress | None = None,
) -> Result[Model]:
    """The result of a plan whose decisions are known from a draft: replayed and measured, nothing is done anew."""
    run = begin(model, plan, data=data, metric=metric, profile=profile, progress=progress)
    run.network.apply_(made.structure)
    run.network.apply_(made.values)
    run.ledger, run.skipped = made, list(skipped)
    return run.result(threads)


def _check(network: Network, plan: Plan, data: Data, metric: Metric) -> None:
    """Targets that cannot be judged are found before anything long begins."""
    for samples in (data.train, data.test):
        outputs = network.predict(samples, most=2)
        if not np.isfinite(outputs).all():
            raise ModelError(f"the network gives NaN or infinite outputs on the {samples.name}")
        metric.check(outputs, samples)
        check_worth(plan, outputs, data, metric)


def learns(plan: Plan) -> bool:
    """Whether some step of a plan learns from a teacher."""
    rounds = [isinstance(step, Quantize) for step in plan.steps]
    trainings = [(step, any(rounds[:place])) for place, step in enumerate(plan.steps) if isinstance(step, Finetune)]
    return any(step.taught(quantized=quantized).distill for step, quantized in trainings)


def teacher_of(given: object, original: Network, data: Data) -> Network:
    """The network behind a teacher that was given, whose outputs can be learned.

    Raises:
        ModelError: They are not as those of the original, or no numbers.
    """
    teacher = network_of(given, data.train)
    wanted, found = (one.predict(data.train, most=2) for one in (original, teacher))
    if wanted.shape != found.shape or not np.isfinite(found).all():
        raise ModelError(
            f"the teacher cannot be learned from: for two samples its outputs have shape {found.shape} and the "
            f"network's {wanted.shape}; they have to be alike and finite"
        )
    return teacher


class Run:
    """A network on its way through a plan.

    Attributes:
        network: As it is now.
        ledger: What was decided so far.
        given: The samples as they were given; ``data`` follows the outputs that the plan keeps.
        teacher: What trainings learn from; its outputs are those of the network.
        start: The parameters before the last training.
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
        self.threads = 1
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

    def result(self, threads: int) -> Result[Any]:
        """What came out, measured."""
        return Result(
            model=cast(Any, self.network).module,
            plan=self.plan,
            ledger=self.ledger,
            metric=self.metric,
            skipped=tuple(self.skipped),
            threads=threads,
            bits=tuple(self.bits),
            **Ranks.here().from_first(lambda: self._measured(threads)),
        )

    def _measured(self, threads: int) -> dict[str, Any]:
        """What of a result is measured, and what it is measured on."""
        with TemporaryDirectory(prefix="whit-") as folder:
            delivered = _deliver(self, Path(folder))
            before, after, floating, found = _measure(self, delivered, threads, self.progress)
            return {
                "before": before,
                "after": after,
                "parity": found,
                "seconds": perf_counter() - self.began,
                "file": delivered.whit.read_bytes(),
                "onnx": delivered.onnx.read_bytes(),
                "original_onnx": delivered.before.read_bytes(),
                "floating_ms": floating,
                "floating_onnx": delivered.floating.read_bytes() if delivered.floating is not None else b"",
            }

    def take(self, step: Step, checkpoint: Path | None = None) -> None:
        """Decide, apply and record one step; a training keeps its state in ``checkpoint``."""
        match step:
            case KeepOutputs():
                self.record(keep_outputs(step, self.network, self.data.train))
                self._narrow_teacher(step)
            case FoldBatchNorm():
                self.record(decide.folds(self.network))
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
        sample = self.data.test.take(slice(0, 1))[0]
        return Footprint(self.network, self.ledger, sample, self.about, self.profile, self.threads)

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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Delivered:
    before: Path
    onnx: Path
    whit: Path
    floating: Path | None


def _deliver(run: Run, folder: Path) -> _Delivered:
    files = _Delivered(
        before=folder / "before.onnx",
        onnx=folder / "model.onnx",
        whit=folder / "model.whit",
        floating=folder / "floating.onnx" if run.ledger.activations() else None,
    )
    with run.progress.bar("exporting", 2) as bar:
        run.original.export(files.before, Ledger())
        bar.advance()
        run.network.export(files.onnx, run.ledger)
        bar.advance()
    if files.floating is not None:
        from whit.onnx.floating import in_floating_point

        files.floating.write_bytes(in_floating_point(files.onnx.read_bytes()))
    files.whit.write_bytes(store.encode(run.ledger, files.onnx.read_bytes(), run.about, profile=run.profile))
    return files


def _measure(
    run: Run, files: _Delivered, threads: int, progress: Progress
) -> tuple[Figures, Figures, Latency | None, Parity]:
    test, metric = run.data.test, run.metric
    targets = {"before": run.given.test.targets, "after": test.targets}
    before = open_onnx(files.before, threads=0)
    after = load(files.whit, threads=0)
    outputs = {
        "before": measure.predictions(before, test, progress, "testing the original"),
        "after": measure.predictions(after, test, progress, "testing the result"),
    }
    with progress.bar("testing in the framework", 1):
        framework = run.network.predict(test)
    found = measure.parity(framework, outputs["after"], metric, rounded=bool(run.ledger.activations()))
    single = [open_onnx(files.before, threads=threads), load(files.whit, threads=threads)]
    if files.floating is not None:
        single.append(open_onnx(files.floating, threads=threads))
    with progress.bar("timing", 1):
        times = measure.latencies(single, test.take(slice(0, 1))[0])
    figures: list[Figures] = []
    sizes = ((files.before, files.before), (files.whit, files.onnx))
    for network, key, (file, onnx), time in zip(
        (run.original, run.network), ("before", "after"), sizes, times[:2], strict=True
    ):
        parameters, nonzero = measure.weights(network)
        figures.append(
            Figures(
                parameters=parameters,
                nonzero=nonzero,
                bytes=file.stat().st_size,
                bytes_onnx=onnx.stat().st_size,
                macs=network.graph().macs(),
                latency_ms=time,
                quality=metric(outputs[key], targets[key]),
            )
        )
    return figures[0], figures[1], times[2] if files.floating is not None else None, found
