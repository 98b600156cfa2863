"""What a search tries next: rounding alone, then short trainings of many plans, then long ones of the best.

Successive halving (Jamieson and Talwalkar 2016) with a cost model that is measured on the way: what an epoch takes, and
how much of a drop a longer training wins back. All of it follows from the rounds before and the time that is left, so a
search that goes on decides what it would have decided.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, log, log1p
from statistics import median

from whit.budget import Budget, Spent
from whit.candidates import Candidate, Family
from whit.proposing import proposals
from whit.trials import Outcome, Round, Trial

__all__ = ["Ladder"]

ROUNDING, SHORT, MIDDLE, LONG = "rounding", "short trainings", "longer trainings", "long trainings"
_BATCH = 4
"""Trials that are decided on together, however many workers there are."""
_SHORTS, _LONGS = 3, 2
"""Rounds, where no time is given."""
_TIMES = 3
"""How much longer each kind of training is than the one before."""
_SHARES = {SHORT: 0.35, MIDDLE: 0.55}
"""Share of the time that may be gone before a kind of round begins for the last time."""
_SPARE = 0.85
"""Share of the time left that a training is planned to fill: machines are slower at times."""
_SPREAD = 0.3
"""Share of the time left that the first short trainings may take."""
_LEAST_EPOCHS, _ENOUGH = 0.05, 0.5
"""Shortest training that is worth it, and one that is long enough for many to be."""
_MOST_LONGER = 16
_WINS = 0.5
"""Where nothing is known yet: a drop falls with the root of the epochs."""
_AIM, _SAFE, _BOLD = 0.75, 0.5, 1.0
"""Shares of the drop that prices aim at: of one training, and of two at once."""
_NOTHING = 0.02
"""Share of the drop that counts as none."""
_MOVE = log(2.5)
"""Most that the logarithm of a price changes beyond what is known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ladder:
    """Decides what to try.

    Attributes:
        family: Which plans there are.
        budget: What they are to keep to.
        price: Of a bit, where rounding begins; 0 where bits have none.
        controlled: Whether trainings have to be compared with a control.
        epoch: Seconds that one is guessed to take, as long as none was measured.
        limit: Seconds for the whole search; None for no limit.
        at_once: How many trials are done at a time; counts only where there is a limit.
        spent: What a trial costs, as compared with the original or the control; None for one without figures.
    """

    family: Family
    budget: Budget
    price: float
    controlled: bool
    epoch: float
    limit: float | None
    at_once: int
    spent: Callable[[Trial], Spent | None]

    def next(self, rounds: Sequence[Round], left: float | None) -> tuple[str, list[Candidate]] | None:
        """The kind of the next round and its candidates; None when the search is over.

        Args:
            rounds: All before, done.
            left: Seconds that are left; None for no limit.
        """
        done = [one.name for one in rounds]
        if not done:
            return ROUNDING, self._first()
        if self.family.priced and done.count(ROUNDING) == 1:
            return ROUNDING, [self._at_the_limit(rounds)]
        for name, decide in ((SHORT, self._short), (MIDDLE, self._middle), (LONG, self._long)):
            if name == LONG or not (LONG in done or (name == SHORT and MIDDLE in done)):
                found = decide(rounds, left)
                if found:
                    return name, found
        return None

    def _first(self) -> list[Candidate]:
        """Rounding alone at some prices, or with integers and without; and a cut, to see whether there can be any."""
        plain = Candidate(integers=self.family.timed)
        prices = [self.price / 4, self.price] if self.family.priced else [None]
        found = [replace(plain, price=price) for price in prices]
        if self.family.timed:
            found.append(replace(found[0], integers=False))
        return [*found, replace(found[0], keep=0.5)]

    def _at_the_limit(self, rounds: Sequence[Round]) -> Candidate:
        """The price at which rounding alone would just keep to the limit."""
        known = self._roundings(rounds)
        if not known:
            return Candidate(price=self.price / 64, integers=self.family.timed)
        fits = [price for price, distance in known if distance == 0]
        misses = [price for price, distance in known if distance > 0]
        if not misses:
            price = max(fits) * 4
        elif not fits:
            price = min(misses) / 4
        else:
            price = (max(fits) * min(misses)) ** 0.5
        return Candidate(price=price, integers=self.family.timed)

    def _roundings(self, rounds: Sequence[Round]) -> list[tuple[float, float]]:
        """Prices of uncut networks that were rounded alone, and how far each is from the limits of the drop."""
        found: list[tuple[float, float]] = []
        for trial in _trials(rounds):
            one, spent = trial.candidate, self.spent(trial)
            if spent is not None and one.price is not None and not one.epochs and one.keep == 1:
                found.append((one.price, self._drop_distance(spent)))
        return sorted(found)

    def _affordable(self, rounds: Sequence[Round]) -> float:
        """The highest price that rounding alone can pay."""
        known = self._roundings(rounds)
        fits = [price for price, distance in known if distance == 0]
        return max(fits) if fits else min((price for price, _ in known), default=self.price) / 2

    def _short(self, rounds: Sequence[Round], left: float | None) -> list[Candidate]:
        """Short trainings: some that are spread out, then some that Optuna proposes."""
        before = [one for one in rounds if one.name == SHORT]
        if not before:
            return self._spread(rounds, left)
        if left is None:
            over = len(before) == _SHORTS
        else:
            longest = max(self._together([_outcome(trial).seconds for trial in one.trials]) for one in before)
            over = self._gone(left) + longest / (self.limit or 1) > _SHARES[SHORT] or longest > left
        if over:
            return []
        epochs = max(one.candidate.epochs for one in _trials(before))
        ranges = self.family.ranges(self._affordable(rounds))
        if not self._can_cut(rounds):
            ranges.pop("keep", None)
        told = [
            (_numbers(trial.candidate), self._score(spent, trial.candidate.epochs, epochs * _TIMES**2, rounds))
            for trial, spent in self._trained(rounds)
        ]
        asked = proposals(ranges, told, _BATCH, self.family.seed)
        plain = Candidate(integers=self.family.timed, epochs=epochs)
        return [replace(plain, **numbers) for numbers in asked]

    def _spread(self, rounds: Sequence[Round], left: float | None) -> list[Candidate]:
        """As different as can be; where time is short the one that is likely, and what it is compared with."""
        plain = Candidate(integers=self.family.timed, epochs=1.0)
        cut = self._can_cut(rounds)
        if self.family.priced:
            price = self._affordable(rounds)
            ways = [(1.0, 3.0), (1.0, 8.0), *([(0.4, 3.0), (0.12, 2.0)] if cut else [])]
            found = [replace(plain, keep=keep, price=price * times) for keep, times in ways]
        else:
            found = [replace(plain, keep=keep) for keep in ((0.5, 0.25, 0.12, 1.0) if cut else (1.0,))]
        if self.controlled:
            found.insert(1, replace(found[0], keep=1.0, control=True))
        if left is None:
            return found
        for few in (found, found[: 1 + self.controlled]):
            work = self._together([_work(one) for one in few])
            base = self._together([self._base(rounds)] * len(few))
            epochs = min(1.0, (_SPREAD * left - base) / (self._epoch(rounds) * work))
            if epochs >= (_ENOUGH if few is found else _LEAST_EPOCHS):
                return [replace(one, epochs=epochs) for one in few]
        return []

    def _middle(self, rounds: Sequence[Round], left: float | None) -> list[Candidate]:
        """The best of the short trainings, longer."""
        trained = self._trained(rounds)
        if any(one.name == MIDDLE for one in rounds) or not trained:
            return []
        epochs = _TIMES * max(trial.candidate.epochs for trial, _ in trained)
        found = [replace(one, epochs=epochs) for one in self._leading(rounds, epochs * _TIMES)[: _BATCH - 1]]
        if self.controlled:
            found.append(replace(found[0], control=True))
        if left is None:
            return found
        # A round that leaves no time for two that are longer still is left out.
        spare = left - 2 * self._cost(replace(found[0], epochs=epochs * _TIMES), rounds) / _SPARE
        while found and self._together([self._cost(one, rounds) for one in found]) > spare:
            del found[0 if len(found) <= 1 + self.controlled else len(found) - 1 - self.controlled]
        return found if len(found) > self.controlled else []

    def _long(self, rounds: Sequence[Round], left: float | None) -> list[Candidate]:
        """The best, for as long as can be, at the price with which it should just keep to the limits."""
        before = [one for one in rounds if one.name == LONG]
        trained = self._trained(rounds)
        if not trained or (left is None and len(before) == _LONGS):
            return []
        shortest = min(trial.candidate.epochs for trial, _ in trained)
        known = max(trial.candidate.epochs for trial, _ in trained)
        epochs = shortest * _TIMES**2
        if left is None:
            leading = self._leading(rounds, epochs)[: 1 if before else 2]
            return [replace(self._priced(one, epochs, rounds), epochs=epochs) for one in leading]
        lead = self._leading(rounds, epochs)[0]
        fitting = (_SPARE * left - self._base(rounds)) / (self._epoch(rounds) * _work(lead))
        # Twice in the time that is left, so that the second can mend the price of the first; or once, if that is short.
        if not before and fitting / 2 >= epochs:
            fitting /= 2
        epochs = min(fitting, _MOST_LONGER * max(shortest, 1.0))
        if epochs < known:
            return []
        aims = (_AIM,) if self.at_once == 1 else (_SAFE, _BOLD)
        return [replace(self._priced(lead, epochs, rounds, aim), epochs=epochs) for aim in aims]

    def _leading(self, rounds: Sequence[Round], epochs: float) -> list[Candidate]:
        """Trained candidates, best first, as they are expected to be after so many epochs; one of each structure."""
        ranked = sorted(
            self._trained(rounds), key=lambda one: self._score(one[1], one[0].candidate.epochs, epochs, rounds)
        )
        found: dict[Candidate, Candidate] = {}
        for trial, _ in ranked:
            found.setdefault(_structure(trial.candidate), trial.candidate)
        return list(found.values())

    def _together(self, costs: Sequence[float]) -> float:
        """What trials take at once, given what each takes."""
        return max(sum(costs) / self.at_once, *costs)

    def _priced(self, candidate: Candidate, epochs: float, rounds: Sequence[Round], aim: float = _AIM) -> Candidate:
        """A candidate at the price at which its drop should be a bit less than what is allowed."""
        allowed = self.budget.relative_drop if self.budget.drop is None else self.budget.drop
        if candidate.price is None or not allowed or self.budget.minimize != "bytes":
            return candidate
        level = log(aim * allowed)
        points: list[tuple[float, float]] = []
        for trial, spent in self._trained(rounds):
            one = trial.candidate
            if one.price is not None and _structure(one) == _structure(candidate):
                drop = spent.relative_drop if self.budget.drop is None else spent.drop
                won = self._won(one.epochs, epochs, rounds)
                points.append((log(one.price), log(max(drop, _NOTHING * allowed) * won)))
        low = [point for point in points if point[1] <= level]
        high = [point for point in points if point[1] > level]
        if not low or not high:
            place, drop = min(points) if high else max(points)
            move = level - drop
        else:
            (place, drop), (dear, more) = max(low), min(high)
            move = (dear - place) * (level - drop) / (more - drop)
        return replace(candidate, price=exp(place + min(max(move, -_MOVE), _MOVE)))

    def _trained(self, rounds: Sequence[Round]) -> list[tuple[Trial, Spent]]:
        """Trainings with figures, but for controls."""
        found: list[tuple[Trial, Spent]] = []
        for trial in _trials(rounds):
            spent = self.spent(trial)
            if trial.candidate.epochs and not trial.candidate.control and spent is not None:
                found.append((trial, spent))
        return found

    def _can_cut(self, rounds: Sequence[Round]) -> bool:
        """Whether the first cut came to something."""
        return any(trial.candidate.keep < 1 and self.spent(trial) is not None for trial in _trials(rounds))

    def _score(self, spent: Spent, epochs: float, until: float, rounds: Sequence[Round]) -> float:
        """How good a trial should be after ``until`` epochs, small for good: a limit missed by itself counts double."""
        won = self._won(epochs, until, rounds) if spent.drop > 0 else 1.0
        later = replace(spent, drop=spent.drop * won, relative_drop=spent.relative_drop * won)
        distance = log1p(self.budget.distance(later))
        if self.budget.minimize == "drop":
            return distance + 100 * later.relative_drop
        return distance + log(max(self.budget.least(later), 1e-9))

    def _drop_distance(self, spent: Spent) -> float:
        """How far the drop alone is from what is allowed."""
        only = replace(spent, bytes=1, latency_ms=1e-9, macs=1)
        if self.budget.minimize == "drop":
            return max(0.0, spent.relative_drop - 0.01)
        return self.budget.distance(only)

    def _won(self, epochs: float, until: float, rounds: Sequence[Round]) -> float:
        """What a drop is multiplied with by training for longer, as measured on those that were trained for both."""
        powers: list[float] = []
        trained = self._trained(rounds)
        for trial, spent in trained:
            for other, later in trained:
                longer = other.candidate.epochs / trial.candidate.epochs
                same = replace(other.candidate, epochs=trial.candidate.epochs) == trial.candidate
                if same and longer > 1 and spent.drop > 0 and later.drop > 0:
                    powers.append(log(spent.drop / later.drop) / log(longer))
        power = min(max(median(powers), 0.0), 2.0) if powers else _WINS
        return (epochs / until) ** power if until > epochs else 1.0

    def _cost(self, candidate: Candidate, rounds: Sequence[Round]) -> float:
        """Seconds that a trial should take."""
        return self._base(rounds) + candidate.epochs * _work(candidate) * self._epoch(rounds)

    def _base(self, rounds: Sequence[Round]) -> float:
        """Seconds of a trial without training."""
        times = [_outcome(one).seconds for one in _trials(rounds) if not one.candidate.epochs]
        return median(times) if times else 0.0

    def _epoch(self, rounds: Sequence[Round]) -> float:
        """Seconds of an epoch of the uncut network: the most that any of the last round's trainings took."""
        for one in reversed(rounds):
            trained = [trial for trial in one.trials if trial.candidate.epochs and _outcome(trial).failure is None]
            if trained:
                base = min(self._base(rounds), min(_outcome(trial).seconds for trial in trained) / 2)
                return max(
                    (_outcome(trial).seconds - base) / (trial.candidate.epochs * _work(trial.candidate))
                    for trial in trained
                )
        return self.epoch

    def _gone(self, left: float) -> float:
        """The share of the time that is gone."""
        return 1 - left / (self.limit or left)


def _trials(rounds: Sequence[Round]) -> list[Trial]:
    return [trial for one in rounds for trial in one.trials]


def _outcome(trial: Trial) -> Outcome:
    assert trial.outcome is not None
    return trial.outcome


def _work(candidate: Candidate) -> float:
    """What a step of training takes, in units of one of the uncut network; the teacher is never cut."""
    return 0.3 + 0.7 * candidate.keep


def _structure(candidate: Candidate) -> Candidate:
    """All but its price and how long it is trained."""
    return replace(candidate, price=None, epochs=0.0)


def _numbers(candidate: Candidate) -> Mapping[str, float]:
    """What Optuna chooses, by name."""
    found = {"keep": candidate.keep, "strength": candidate.strength, "pace": candidate.pace}
    return found if candidate.price is None else found | {"price": candidate.price}
