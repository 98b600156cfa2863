"""A search under way: rounds of trials, noted before they begin, until the ladder or the time ends; then the best."""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from time import time
from typing import Any

from whit.compress import finished, teacher_of
from whit.decide import folded
from whit.errors import PlanError, listed
from whit.frontends import network_of
from whit.graph.computed import computing_layers
from whit.search.budget import Spent, spent
from whit.search.candidates import Family
from whit.search.found import Found, Point
from whit.search.front import best, front
from whit.search.given import Given, identity
from whit.search.judging import Judge
from whit.search.ladder import Ladder
from whit.search.running import Running
from whit.search.seen import Seen
from whit.search.standing import Standing, indifferent, price_of_a_bit, standing
from whit.search.trials import RECORD, TRIALS, Outcome, Record, Round, Trial
from whit.search.trying import Task, tried
from whit.search.watch import OutOfTime, Watch
from whit.store import read
from whit.target import multiplies_bfloat16
from whit.workers import Workers

__all__ = ["FILES", "Searching"]

_ORIGINAL = "standing.onnx"
FILES = (RECORD, TRIALS, _ORIGINAL)
"""What a search keeps in its folder."""
_TRAINED_SAMPLE = 12.0
"""What a sample takes in training, in units of one in ONNX Runtime, as long as no training was measured."""
_DELIVERY = 4.0
"""What the last measurement takes, in units of the original's on as many samples, and as many times more."""
_LAST = 10.0
"""Seconds for what the last measurement takes beside."""


class Searching:
    """A search under way."""

    def __init__(self, given: Given, folder: Path) -> None:
        self.given = given
        self.choosing = given.data.choosing(seed=given.seed)
        self.original = network_of(given.model, self.choosing.train)
        teacher = None if given.teacher is None else teacher_of(given.teacher, self.original, self.choosing)
        self.record = Record(folder, identity(given, self.original, teacher))
        self.running = Running(given, self.original, folder / _ORIGINAL, self.choosing.test.call(given.batch))
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
        found = standing(
            self.original,
            self.choosing,
            given.metric,
            given.budget,
            path,
            self.watch,
            self.running.latency_of_original,
        )
        self.record.remember("standing", json.dumps(asdict(found)))
        return found

    def _ladder(self) -> Ladder:
        given, text = self.given, self.record.fact("family")
        family = Family.of(given.budget, given.metric.loss, given.target, given.seed, folded(self.original).graph())
        if text is None:
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
            family,
            computes=bool(computing_layers(self.original.graph())),
            augment=tuple(facts["augment"]),
            precision="bfloat16" if facts["bfloat16"] else "float32",
        )
        self.reserved = _LAST + _DELIVERY * self.stands.sample * len(given.data.test)
        return Ladder(
            family=family,
            budget=given.budget,
            price=facts["price"],
            controlled=given.data.validation is None,
            limit=given.budget.seconds,
            at_once=getattr(given.workers, "count", None) or 1,
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
        decided = None if left is not None and left <= 0 else ladder.next(self._seen(rounds), left)
        if decided is None or (most is not None and so_far >= most):
            return None
        name, candidates = decided
        trials = [self.record.trial(one, ladder.family.plan(one)) for one in candidates]
        if all(one.outcome is not None for one in trials):
            return None  # nothing better is known than what was tried already
        self._note()
        return self.record.begin(name, trials if most is None else trials[: most - so_far])

    def _seen(self, rounds: Sequence[Round]) -> Seen:
        guess = _TRAINED_SAMPLE * self.stands.sample * len(self.choosing.train)
        return Seen(rounds=rounds, spent=self._judge(rounds).spent, guess=guess)

    def _left(self) -> float | None:
        """Seconds for trials, without those that the last measurement takes."""
        return None if self.end is None else self.end - self.reserved - time()

    def _tried(self, trials: Sequence[Trial]) -> Iterator[tuple[Trial, Outcome, bytes]]:
        """Trials and what came of them, in order."""
        given = self.given
        end = None if self.end is None else self.end - self.reserved
        tasks = [
            Task(
                model=given.model,
                plan=trial.plan,
                data=self.choosing,
                metric=given.metric,
                profile=given.profile,
                teacher=given.teacher,
                checkpoints=self.record.checkpoints(trial),
                end=end,
            )
            for trial in trials
        ]
        if type(given.workers) is Workers:
            watch = Watch(given.progress, end, self._note)
            done = (tried(task, watch) for task in tasks)
        else:
            done = given.workers.map(tried, tasks)
        for trial, made in zip(trials, done, strict=True):
            if made is None:
                raise OutOfTime
            outcome, file = made
            # A control is there to be judged; its weights are free, which not every runtime can hold.
            runs = bool(file) and not trial.candidate.control
            if runs:
                outcome = self.running.taken(outcome, file, latency_of_original=self.stands.latency_ms)
            yield trial, outcome, file

    def _judge(self, rounds: Sequence[Round]) -> Judge:
        known_by_heart = self.given.data.validation is None
        return Judge.of(self.given.metric, self.stands.quality, rounds if known_by_heart else ())

    def _points(self) -> list[tuple[Trial, Spent]]:
        """What can be chosen."""
        rounds = self.record.rounds()
        judge = self._judge(rounds)
        trials = {one.hash: one for each in rounds for one in each.trials if not one.candidate.control}
        found = [(trial, judge.spent(trial)) for trial in trials.values()]
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
        done = {one.hash: one for each in rounds for one in each.trials if one.outcome is not None}
        failures = list(
            dict.fromkeys(one.outcome.failure for one in done.values() if one.outcome and one.outcome.failure)
        )
        if not points and failures:
            raise PlanError(f"none of {len(done)} plans came to a network: {listed(failures, most=3)}")
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
            batch=given.batch,
            profile=given.profile,
            progress=given.progress,
        )
        result = self.running.measured(result)
        self._note()
        return Found(
            best=result,
            chosen=_point(chosen, cost),
            front=tuple(_point(*one) for one in front(points, given.budget)),
            budget=given.budget,
            missed=given.budget.missed(spent(given.metric, result.before, result.after)),
            missed_choosing=given.budget.missed(cost),
            trials=len(done),
            failures=tuple(failures),
            seconds=self.record.seconds,
        )


def _point(trial: Trial, cost: Spent) -> Point:
    return Point(plan=trial.plan, spent=cost, trained=trial.candidate.epochs > 0, trial=trial.hash)
