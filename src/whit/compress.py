"""Compress a network by a plan, and measure what comes out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np

from whit import measure, store
from whit.data import Array, Data, as_data
from whit.decide import Skipped
from whit.decide.outputs import check_worth, following
from whit.delivering import delivered
from whit.errors import ModelError, PlanError
from whit.frontends import network_of
from whit.ledger import Ledger
from whit.metrics import Metric, named
from whit.network import Network
from whit.plan import Plan
from whit.progress import Progress
from whit.result import Result
from whit.run import Run
from whit.runtime import load
from whit.steps import Finetune, KeepOutputs, Quantize, Step
from whit.store import Profile
from whit.target import Target
from whit.workers import Workers

__all__ = ["Draft", "begin", "compress", "draft", "finished", "learns", "teacher_of"]

Model = TypeVar("Model")
_COMPARED = 512
"""Samples on which a draft is compared with its framework's network."""


def compress(
    model: Model | str | Path,
    plan: Plan | Step,
    *,
    data: Data | tuple[Array, Array],
    metric: str | Metric = "accuracy",
    threads: int = 1,
    batch: int = 1,
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
        batch: Samples of the calls that are timed.
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
    run.workers, run.threads, run.batch = workers, threads, batch
    run.data.test.call(batch)  # refused before anything long begins
    run.through(0, len(run.plan.steps), checkpoints)
    return delivered(run)


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
) -> Run:
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
    batch: int = 1,
    profile: Profile = "small",
    progress: Progress | None = None,
) -> Result[Model]:
    """The result of a plan whose decisions are known from a draft: replayed and measured, nothing is done anew."""
    run = begin(model, plan, data=data, metric=metric, profile=profile, progress=progress)
    run.network.apply_(made.structure)
    run.network.apply_(made.values)
    run.ledger, run.skipped = made, list(skipped)
    run.threads, run.batch = threads, batch
    return delivered(run)


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
