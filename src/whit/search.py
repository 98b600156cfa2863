"""Find the plan that meets a budget: one call, a Pareto front, and proof of the best on samples that nothing saw."""

import json
import shutil
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from math import isfinite, log
from pathlib import Path
from tempfile import TemporaryDirectory
from time import time
from typing import Any, Generic, TypeVar

from whit import measure
from whit.budget import Budget, Spent, dropped, spent
from whit.candidates import Candidate, Family
from whit.compress import Result, draft, finished
from whit.data import Array, Data, Samples, as_data
from whit.errors import PlanError, WhitError, WorkersError, listed
from whit.front import best, front
from whit.frontends import network_of
from whit.ladder import Ladder
from whit.metrics import Metric, named
from whit.network import Network
from whit.plan import Plan
from whit.progress import Progress
from whit.proposing import check_optuna
from whit.runtime import load, open_onnx
from whit.standing import Standing, indifferent, price_of_a_bit, standing
from whit.store import Profile, read
from whit.target import Target, multiplies_bfloat16
from whit.trials import RECORD, TRIALS, Outcome, Record, Round, Trial
from whit.watch import OutOfTime, Watch
from whit.workers import Workers

__all__ = ["FILES", "Found", "Point", "search"]

Model = TypeVar("Model")

_ORIGINAL = "standing.onnx"
FILES = (RECORD, TRIALS, _ORIGINAL)
"""What a search keeps in its folder."""
_TIMING = 0.5
"""Seconds for which the latency of a trial is measured."""
_TRAINED_SAMPLE = 12.0
"""What a sample takes in training, in units of one in ONNX Runtime, as long as no training was measured."""
_DELIVERY = 4.0
"""What the last measurement takes, in units of the original's on as many samples, and as many times more."""
_LAST = 10.0
"""Seconds for what the last measurement takes beside."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A plan on the front, as it was measured on the validation samples.

    Attributes:
        plan: What was done.
        spent: What its network costs.
        trained: Whether it was trained, and so may have forgotten validation samples that the original was trained on.
        trial: Names it in the record.
    """

    plan: Plan
    spent: Spent
    trained: bool
    trial: str


@dataclass(frozen=True, kw_only=True)
class Found(Generic[Model]):
    """What a search came to.

    Attributes:
        best: The best point's network, measured on the test samples, which were touched for this alone.
        chosen: The best point: the least of those that keep to the budget, or the nearest to it.
        front: The points that no other beats in both the drop and what is to be least, from the smallest on.
        budget: What was asked for.
        missed: The limits that ``best`` does not keep to on the test samples, and by how much.
        missed_choosing: The same of ``chosen`` on the validation samples; where it is not empty, no plan was found
            that keeps to the budget.
        trials: How many plans were tried.
        failures: What came of those that failed, without repetitions.
        seconds: How long the search took, in all its sessions.
    """

    best: Result[Model]
    chosen: Point
    front: tuple[Point, ...]
    budget: Budget
    missed: Mapping[str, float]
    missed_choosing: Mapping[str, float]
    trials: int
    failures: tuple[str, ...]
    seconds: float


def search(
    model: Model | str | Path,
    budget: str | Budget,
    *,
    data: Data | tuple[Array, Array],
    metric: str | Metric = "accuracy",
    folder: str | Path | None = None,
    target: Target | None = None,
    workers: Workers | None = None,
    threads: int = 1,
    profile: Profile = "small",
    trials: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Found[Model]:
    """Find the plan that meets a budget, and compress a network by it.

    Plans are chosen by ``data.validation``, or else by a tenth of the training samples that is held out; the test
    samples are for the last number. The original knows training samples by heart, and what is trained without some of
    them forgets them as it would not forget others: then trainings are compared with a control, the network trained in
    the same way without being rounded.

    Args:
        model: A ``torch.nn.Module``, which is not changed, or the path of an ``.onnx`` file.
        budget: What the network may cost and what is to be least: ``"drop<=1%, minimize=bytes, time<=60min"``. Without
            a time, the search ends by itself.
        data: To train on, to choose by and for the last number; or ``(x, y)``, of which a fifth is held out for that.
        metric: ``"accuracy"``, ``"mae"``, ``"mse"`` or a ``whit.metrics.Metric``.
        folder: Where the record of the search is kept. The same call, made again after it was stopped, however that
            was, goes on from there.
        target: Where the network will run; None for this machine.
        workers: Who does trials, ``Processes(2)`` say; None does them here. Every trial computes on one thread.
        threads: Of ONNX Runtime, when latency is measured.
        profile: As of ``compress``.
        trials: How many plans to try, at most.
        seed: Of all that is random.
        progress: Shows what is under way.

    Raises:
        PlanError, DataError, ModelError: What was given cannot be used; the message says why. Nothing that was tried
            came to a network; or the time was over before anything did.
        OutputError: The folder holds another search, or cannot be written.
        WorkersError: Workers cannot be reached, or die again and again.
    """
    check_optuna()
    if trials is not None and trials < 1:
        raise PlanError(f"search(trials={trials}): it takes at least one to find anything")
    given = _Given(
        model=model,
        budget=Budget.of(budget),
        data=as_data(data),
        metric=named(metric),
        target=target or Target.here(),
        workers=workers or Workers(),
        threads=threads,
        profile=profile,
        trials=trials,
        seed=seed,
        progress=progress or Progress(),
    )
    with _folder(folder) as place:
        return _Search(given, place).found()


@contextmanager
def _folder(folder: str | Path | None) -> Generator[Path]:
    if folder is not None:
        yield Path(folder)
        return
    with TemporaryDirectory(prefix="whit-search-") as made:
        yield Path(made)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Given:
    """What the caller gave."""

    model: Any
    budget: Budget
    data: Data
    metric: Metric
    target: Target
    workers: Workers
    threads: int
    profile: Profile
    trials: int | None
    seed: int
    progress: Progress


@dataclass(frozen=True, kw_only=True, slots=True)
class _Task:
    """A trial, as whoever does it gets it."""

    model: Any
    plan: Plan
    data: Data
    metric: Metric
    profile: Profile
    checkpoints: Path
    end: float | None


class _Search:
    """A search under way."""

    def __init__(self, given: _Given, folder: Path) -> None:
        self.given = given
        self.choosing = given.data.choosing(seed=given.seed)
        self.original = network_of(given.model, self.choosing.train)
        self.record = Record(folder, _identity(given, self.original))
        self.before = self.record.seconds
        self.start = time()
        self.reserved = 0.0
        limit = given.budget.seconds
        self.end = None if limit is None else self.start + limit - self.before
        self.watch = Watch(given.progress, None, self._note)

    def found(self) -> Found[Any]:
        """Search, choose, and measure what was chosen on the test samples."""
        try:
            self.stands = self._stands()
            ladder = self._ladder()
            while self._round(ladder):
                pass
            return self._delivered()
        finally:
            self._note()
            self.record.close()

    def _note(self) -> None:
        self.record.spend(self.before + time() - self.start)

    def _stands(self) -> Standing:
        """What is measured once, and stands however often the search goes on."""
        given, text = self.given, self.record.fact("standing")
        path = self.record.folder / _ORIGINAL
        if text is not None and path.exists():
            return Standing(**json.loads(text))
        found = standing(self.original, self.choosing, given.metric, given.budget, path, given.threads, self.watch)
        self.record.remember("standing", json.dumps(asdict(found)))
        return found

    def _ladder(self) -> Ladder:
        given, text = self.given, self.record.fact("family")
        if text is None:
            family = Family.of(given.budget, given.metric.loss, given.target, given.seed)
            price = 0.0
            if family.priced:
                price = price_of_a_bit(self.original, self.choosing, given.metric, self.watch, given.workers)
            changes = indifferent(self.original, self.choosing, given.metric)
            # Half as many bits as of float16: enough for logits that tell classes apart, not for values.
            half = given.metric.loss == "cross_entropy" and multiplies_bfloat16()
            text = json.dumps({"price": price, "augment": changes, "bfloat16": half})
            self.record.remember("family", text)
        facts = json.loads(text)
        family = replace(
            Family.of(given.budget, given.metric.loss, given.target, given.seed),
            augment=tuple(facts["augment"]),
            precision="bfloat16" if facts["bfloat16"] else "float32",
        )
        self.reserved = _LAST + _DELIVERY * self.stands.sample * len(given.data.test)
        return Ladder(
            family=family,
            budget=given.budget,
            price=facts["price"],
            controlled=given.data.validation is None,
            epoch=_TRAINED_SAMPLE * self.stands.sample * len(self.choosing.train),
            limit=given.budget.seconds,
            at_once=getattr(given.workers, "count", None) or 1,
            spent=self._spent,
        )

    def _round(self, ladder: Ladder) -> bool:
        """Do what is left of the last round, or decide on another; False when the search is over."""
        rounds = self.record.rounds()
        if not rounds or all(one.outcome is not None for one in rounds[-1].trials):
            decided = self._decided(ladder, rounds)
            if decided is None:
                return False
            rounds.append(decided)
        left = list({one.hash: one for one in rounds[-1].trials if one.outcome is None}.values())
        with self.watch.bar(f"round {len(rounds)}: {rounds[-1].name}", len(left)) as bar:
            try:
                for trial, outcome, file in self._tried(left):
                    self.record.keep(trial, outcome, file)
                    shutil.rmtree(self.record.checkpoints(trial), ignore_errors=True)
                    self._note()
                    bar.advance(1, note=self._best_so_far())
            except OutOfTime:
                return False
        return True

    def _decided(self, ladder: Ladder, rounds: Sequence[Round]) -> Round | None:
        """The next round, noted before it begins; None when the search is over."""
        most, left = self.given.trials, self._left()
        so_far = sum(len(one.trials) for one in rounds)
        decided = None if left is not None and left <= 0 else ladder.next(rounds, left)
        if decided is None or (most is not None and so_far >= most):
            return None
        name, candidates = decided
        trials = [self.record.trial(one, ladder.family.plan(one)) for one in candidates]
        if all(one.outcome is not None for one in trials):
            return None  # nothing better is known than what was tried already
        self._note()
        return self.record.begin(name, trials if most is None else trials[: most - so_far])

    def _left(self) -> float | None:
        """Seconds for trials, without those that the last measurement takes."""
        return None if self.end is None else self.end - self.reserved - time()

    def _tried(self, trials: Sequence[Trial]) -> Iterator[tuple[Trial, Outcome, bytes]]:
        """Trials and what came of them, in order."""
        given = self.given
        end = None if self.end is None else self.end - self.reserved
        tasks = [
            _Task(
                model=given.model,
                plan=trial.plan,
                data=self.choosing,
                metric=given.metric,
                profile=given.profile,
                checkpoints=self.record.checkpoints(trial),
                end=end,
            )
            for trial in trials
        ]
        if type(given.workers) is Workers:
            watch = Watch(given.progress, end, self._note)
            done = (_tried(task, watch) for task in tasks)
        else:
            done = given.workers.map(_tried, tasks)
        for trial, made in zip(trials, done, strict=True):
            if made is None:
                raise OutOfTime
            outcome, file = made
            yield trial, replace(outcome, latency_ms=self._latency(file)) if file else outcome, file

    def _latency(self, file: bytes) -> float:
        """One sample, as at the start of the search: what the original takes now tells how the machine has changed."""
        given = self.given
        with TemporaryDirectory(prefix="whit-") as folder:
            path = Path(folder) / "model.whit"
            path.write_bytes(file)
            sessions = [
                open_onnx(self.record.folder / _ORIGINAL, threads=given.threads),
                load(path, threads=given.threads),
            ]
        original, found = measure.latencies(sessions, self.choosing.test.take(slice(0, 1))[0], seconds=_TIMING)
        return self.stands.latency_ms * found.median / original.median

    def _spent(self, trial: Trial) -> Spent | None:
        """What a trial costs; None if it failed, or its quality is no number."""
        outcome = trial.outcome
        if outcome is None or outcome.failure is not None:
            return None
        drop, relative_drop = dropped(self.given.metric, self._reference(trial.candidate), outcome.quality)
        return Spent(
            drop=drop,
            relative_drop=relative_drop,
            bytes=outcome.bytes,
            latency_ms=outcome.latency_ms,
            macs=outcome.macs,
        )

    def _reference(self, candidate: Candidate) -> float:
        """The quality that a trial is compared with: the original's, or that of the control trained most like it."""
        quality, higher = self.stands.quality, self.given.metric.higher_is_better
        if not candidate.epochs or self.given.data.validation is not None:
            return quality
        controls = [
            (one.candidate.epochs, one.outcome.quality)
            for each in self.record.rounds()
            for one in each.trials
            if one.candidate.control and one.outcome is not None and one.outcome.failure is None
        ]
        if not controls:
            return quality
        epochs, found = min(controls, key=lambda one: abs(log(one[0] / candidate.epochs)))
        # What a control has lost comes back as it is trained for longer, at most with the root of the epochs as far
        # as was seen, so that one that is shorter or longer stands in for it.
        lost = (quality - found) * (epochs / candidate.epochs) ** 0.5
        return min(quality - lost, quality) if higher else max(quality - lost, quality)

    def _points(self) -> list[tuple[Trial, Spent]]:
        """What can be chosen."""
        trials = {one.hash: one for each in self.record.rounds() for one in each.trials if not one.candidate.control}
        found = [(trial, self._spent(trial)) for trial in trials.values()]
        return [(trial, cost) for trial, cost in found if cost is not None]

    def _best_so_far(self) -> str:
        points = self._points()
        if not points:
            return ""
        _, cost = best(points, self.given.budget)
        return f"best so far: {cost.bytes:,} bytes, {cost.latency_ms:.3g} ms, drop {cost.drop:.3g}"

    def _delivered(self) -> Found[Any]:
        given, points = self.given, self._points()
        rounds = self.record.rounds()
        tried = {one.hash: one for each in rounds for one in each.trials if one.outcome is not None}
        failures = list(
            dict.fromkeys(one.outcome.failure for one in tried.values() if one.outcome and one.outcome.failure)
        )
        if not points and failures:
            raise PlanError(f"none of {len(tried)} plans came to a network: {listed(failures, most=3)}")
        if not points:
            raise PlanError(
                f"{given.budget}: the time was over before the first plan was tried, and {self.reserved:.0f} s of it "
                "are for the last measurement; allow more time"
            )
        chosen, cost = best(points, given.budget)
        assert chosen.outcome is not None
        result = finished(
            given.model,
            chosen.plan,
            read(self.record.path(chosen)).ledger(),
            chosen.outcome.skipped,
            data=given.data,
            metric=given.metric,
            threads=given.threads,
            profile=given.profile,
            progress=given.progress,
        )
        self._note()
        return Found(
            best=result,
            chosen=_point(chosen, cost),
            front=tuple(_point(*one) for one in front(points, given.budget)),
            budget=given.budget,
            missed=given.budget.missed(spent(given.metric, result.before, result.after)),
            missed_choosing=given.budget.missed(cost),
            trials=len(tried),
            failures=tuple(failures),
            seconds=self.record.seconds,
        )


def _point(trial: Trial, cost: Spent) -> Point:
    return Point(plan=trial.plan, spent=cost, trained=trial.candidate.epochs > 0, trial=trial.hash)


def _tried(task: _Task, progress: Progress | None = None) -> tuple[Outcome, bytes] | None:
    """What came of a trial, wherever this runs; None if the time was over."""
    start = time()
    try:
        with _one_thread():
            made = draft(
                task.model,
                task.plan,
                data=task.data,
                metric=task.metric,
                profile=task.profile,
                checkpoints=task.checkpoints,
                progress=progress or Watch(Progress(), task.end),
            )
    except OutOfTime:
        return None
    except WorkersError:
        raise
    except WhitError as error:
        return Outcome(seconds=time() - start, failure=str(error)), b""
    if not isfinite(made.quality):
        return Outcome(seconds=time() - start, failure=f"{task.metric.name} gives {made.quality} for its outputs"), b""
    outcome = Outcome(
        seconds=time() - start, quality=made.quality, bytes=len(made.file), macs=made.macs, skipped=made.skipped
    )
    return outcome, made.file


@contextmanager
def _one_thread() -> Generator[None]:
    """Sums come out the same on one thread, wherever they are made."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _identity(given: _Given, original: Network) -> dict[str, str]:
    """What makes a search this one and no other; more time may be given to one that goes on."""
    budget = replace(given.budget, seconds=None)
    samples = {
        "training data": given.data.train,
        "test data": given.data.test,
        "validation data": given.data.validation,
    }
    facts = {name: _digest_samples(one) for name, one in samples.items() if one is not None}
    weights = sha256()
    for name, values in sorted(original.values().items()):
        weights.update(name.encode())
        weights.update(values.tobytes())
    return facts | {
        "budget": str(budget),
        "network": weights.hexdigest()[:16],
        "metric": given.metric.name,
        "target": f"{given.target.runtime} {sorted(given.target.features)}",
        "profile": given.profile,
        "threads": str(given.threads),
        "seed": str(given.seed),
        "versions": json.dumps(measure.versions(), sort_keys=True),
    }


def _digest_samples(samples: Samples) -> str:
    digest = sha256(repr(samples.images).encode())
    for array in (*samples.inputs, samples.targets):
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]
