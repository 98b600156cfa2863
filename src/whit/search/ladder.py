"""What a search tries next: rounding alone, then short trainings of many plans, then long ones of the best.

Successive halving (Jamieson and Talwalkar 2016) with a cost model that is measured on the way: what an epoch takes, and
how much of a drop a longer training wins back. All of it follows from the rounds before and the time that is left, so a
search that goes on decides what it would have decided.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, log, log1p

from whit.search.budget import Budget, Spent
from whit.search.candidates import STRUCTURE, Candidate, Family
from whit.search.proposing import proposals
from whit.search.seen import Seen, work

__all__ = ["Ladder"]

ROUNDING, SHORT, MIDDLE, LONG = "rounding", "short trainings", "longer trainings", "long trainings"
_BATCH = 4
"""Trials that are decided on together, however many workers there are."""
_SHORTS, _LONGS = 3, 2
"""Rounds, where no time is given."""
_TIMES = 3
"""How much longer each kind of training is than the one before."""
_SHARE = 0.4
"""Share of the time that may be gone when the last short trainings end."""
_SPARE = 0.85
"""Share of the time left that a training is planned to fill: machines are slower at times."""
_SPREAD = 0.3
"""Share of the time left that the first short trainings may take."""
_LEAST_EPOCHS, _ENOUGH = 0.05, 0.5
"""Shortest training that is worth it, and one that is long enough for many to be."""
_MOST_LONGER = 16
_AIM, _SAFE, _BOLD = 0.75, 0.5, 1.0
"""Shares of the drop that prices aim at: of one training, and of two at once."""
_NOTHING = 0.02
"""Share of the drop that counts as none."""
_STRICT = 2
"""Power of one plus what a limit is missed by, in units of it, by which a plan counts for more."""
_SMALL_DROP = 0.01
"""Share of its quality that a network may lose by rounding, where the drop itself is to be least."""
_MOVE = log(2.5)
"""Most that the logarithm of a price or of what is kept changes beyond what is known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ladder:
    """Decides what to try.

    Attributes:
        family: Which plans there are.
        budget: What they are to keep to.
        price: Of a bit, where rounding begins; 0 where bits have none.
        controlled: Whether trainings have to be compared with a control.
        limit: Seconds for the whole search; None for no limit.
        at_once: How many trials are done at a time; counts only where there is a limit.
    """

    family: Family
    budget: Budget
    price: float
    controlled: bool
    limit: float | None
    at_once: int

    def next(self, seen: Seen, left: float | None) -> tuple[str, list[Candidate]] | None:
        """The kind of the next round and its candidates; None when the search is over.

        Args:
            seen: All rounds before, done.
            left: Seconds that are left; None for no limit.
        """
        roundings = len(seen.named(ROUNDING))
        if not roundings:
            return ROUNDING, self._first()
        if self.family.priced and roundings == 1:
            return ROUNDING, [self._at_the_limit(seen)]
        climbed = SHORT if not seen.named(MIDDLE) else MIDDLE if not seen.named(LONG) else LONG
        steps = {SHORT: self._short, MIDDLE: self._middle, LONG: self._long}
        for name in list(steps)[list(steps).index(climbed) :]:
            found = steps[name](seen, left)
            if found:
                return name, found
        return None

    def _first(self) -> list[Candidate]:
        """Rounding alone at some prices, or with integers and without; and cuts, to see whether there can be any."""
        plain = Candidate(integers=self.family.timed)
        prices = [self.price / 4, self.price] if self.family.priced else [None]
        found = [replace(plain, price=price) for price in prices]
        if self.family.timed:
            found.append(replace(found[0], integers=False))
        return [*found, *(replace(found[0], **{name: STRUCTURE[name]}) for name in self.family.structure)]

    def _at_the_limit(self, seen: Seen) -> Candidate:
        """The price at which rounding alone would just keep to the limit."""
        fits, misses = self._roundings(seen)
        if not fits and not misses:
            price = self.price / 64
        elif not misses:
            price = max(fits) * 4
        elif not fits:
            price = min(misses) / 4
        else:
            price = (max(fits) * min(misses)) ** 0.5
        return Candidate(price=price, integers=self.family.timed)

    def _roundings(self, seen: Seen) -> tuple[list[float], list[float]]:
        """Prices at which uncut networks were rounded alone: those that keep to the drop, and the others."""
        fits: list[float] = []
        misses: list[float] = []
        for one, spent in seen.measured():
            if one.whole and not one.epochs and one.price is not None and one.integers == self.family.timed:
                (fits if self._keeps_quality(spent) else misses).append(one.price)
        return fits, misses

    def _keeps_quality(self, spent: Spent) -> bool:
        if self.budget.minimize == "drop":
            return spent.relative_drop <= _SMALL_DROP
        return not {"drop", "relative_drop"} & self.budget.missed(spent).keys()

    def _affordable(self, seen: Seen) -> float:
        """The highest price that rounding alone can pay."""
        fits, misses = self._roundings(seen)
        return max(fits) if fits else min(misses, default=self.price) / 2

    def _short(self, seen: Seen, left: float | None) -> list[Candidate]:
        """Short trainings: some that are spread out, then some that Optuna proposes."""
        before = seen.named(SHORT)
        if not before:
            return self._spread(seen, left)
        if left is None and len(before) == _SHORTS:
            return []
        epochs = max(trial.candidate.epochs for one in before for trial in one.trials)
        ranges = self.family.ranges(self._affordable(seen))
        for name in STRUCTURE:
            if not seen.came_to(name):
                ranges.pop(name, None)
        told = [(_numbers(one), self._score(seen, one, spent, epochs * _TIMES**2)) for one, spent in seen.trained()]
        asked = proposals(ranges, told, _BATCH, self.family.seed)
        plain = Candidate(integers=self.family.timed, epochs=epochs)
        found = [replace(plain, **one).made() for one in asked]
        if left is not None and self._gone(left) + self._together(seen, found) / (self.limit or left) > _SHARE:
            return []
        return found

    def _spread(self, seen: Seen, left: float | None) -> list[Candidate]:
        """As different as can be; where time is short two of them, and what they are compared with."""
        plain = Candidate(integers=self.family.timed, epochs=1.0)
        if self.family.priced:
            price = self._affordable(seen)
            ways = (
                [(1.0, 3.0), (0.12, 2.0), (1.0, 8.0), (0.4, 3.0)] if seen.came_to("keep") else [(1.0, 3.0), (1.0, 8.0)]
            )
            found = [replace(plain, keep=keep, price=price * times) for keep, times in ways]
        else:
            found = [replace(plain, keep=keep) for keep in ((0.5, 0.25, 0.12, 1.0) if seen.came_to("keep") else (1.0,))]
        for name in ("ranks", "depth"):
            if seen.came_to(name):
                found.insert(1, replace(found[0], **{name: STRUCTURE[name]}))
        if self.controlled:
            found.insert(1, self._control(found[0]))
        if left is None:
            return found
        for few in (found, found[: 2 + self.controlled]):
            base = self._together(seen, [replace(one, epochs=0.0) for one in few])
            epochs = min(1.0, (_SPREAD * left - base) / (self._together(seen, few) - base))
            if epochs >= (_ENOUGH if few is found else _LEAST_EPOCHS):
                return [replace(one, epochs=epochs) for one in few]
        return []

    def _control(self, candidate: Candidate) -> Candidate:
        """What a candidate is compared with."""
        return replace(candidate, control=True, **dict.fromkeys(STRUCTURE, 1.0))

    def _middle(self, seen: Seen, left: float | None) -> list[Candidate]:
        """The best of the short trainings, longer."""
        trained = seen.trained()
        if seen.named(MIDDLE) or not trained:
            return []
        epochs = _TIMES * max(one.epochs for one, _ in trained)
        found = [replace(one, epochs=epochs) for one in self._leading(seen, epochs * _TIMES)[: _BATCH - 1]]
        if self.controlled:
            found.append(self._control(found[0]))
        if left is None:
            return found
        # A round that leaves no time for two that are longer still is left out.
        spare = left - 2 * seen.cost(replace(found[0], epochs=epochs * _TIMES)) / _SPARE
        while len(found) > self.controlled and self._together(seen, found) > spare:
            del found[len(found) - 1 - self.controlled]
        return found if len(found) > self.controlled else []

    def _long(self, seen: Seen, left: float | None) -> list[Candidate]:
        """The best, for as long as can be, so far cut or rounded that it should just keep to the limits."""
        before, trained = seen.named(LONG), seen.trained()
        if not trained or (left is None and len(before) == _LONGS):
            return []
        shortest, known = (choose(one.epochs for one, _ in trained) for choose in (min, max))
        epochs = shortest * _TIMES**2
        leading = self._leading(seen, epochs)
        if left is None:
            return [replace(self._tuned(seen, one, epochs), epochs=epochs) for one in leading[: 1 if before else 2]]
        lead = leading[0]
        fitting = (_SPARE * left - seen.base()) / (seen.epoch() * work(lead))
        # Twice in the time that is left, so that the second can mend the aim of the first; or once, if that is short.
        if not before and fitting / 2 >= epochs:
            fitting /= 2
        epochs = min(fitting, _MOST_LONGER * max(shortest, 1.0))
        if epochs < known:
            return []
        aims = (_AIM,) if self.at_once == 1 else (_SAFE, _BOLD)
        return [replace(self._tuned(seen, lead, epochs, aim), epochs=epochs) for aim in aims]

    def _leading(self, seen: Seen, epochs: float) -> list[Candidate]:
        """Trained candidates, best first, as they should be after so many epochs; one of each but for the price."""
        ranked = sorted(seen.trained(), key=lambda one: self._score(seen, *one, epochs))
        found: dict[Candidate, Candidate] = {}
        for candidate, _ in ranked:
            found.setdefault(replace(candidate, price=None, epochs=0.0), candidate)
        return list(found.values())

    def _tuned(self, seen: Seen, candidate: Candidate, epochs: float, aim: float = _AIM) -> Candidate:
        """A candidate with the price, or cut so far, that its drop should be a bit less than what is allowed."""
        allowed = self.budget.relative_drop if self.budget.drop is None else self.budget.drop
        knobs = ["price"] if self.family.priced else [name for name in STRUCTURE if seen.came_to(name)]
        if not allowed or not knobs or not getattr(candidate, knobs[0]):
            return candidate
        knob = knobs[0]
        way = 1 if knob == "price" else -1  # a drop grows with the price, and as less is kept
        level = log(aim * allowed)
        points: list[tuple[float, float]] = []
        for one, spent in seen.trained():
            if replace(one, epochs=0.0, **{knob: 1.0}) == replace(candidate, epochs=0.0, **{knob: 1.0}):
                later = seen.later(spent, one.epochs, epochs)
                drop = later.relative_drop if self.budget.drop is None else later.drop
                points.append((way * log(getattr(one, knob)), log(max(drop, _NOTHING * allowed))))
        low, high = ([one for one in points if (one[1] > level) == over] for over in (False, True))
        if low and high:
            (place, drop), (far, more) = max(low), min(high)
            move = (far - place) * (level - drop) / (more - drop)
        else:
            place, drop = min(points) if high else max(points)
            move = min(max(level - drop, -_MOVE), _MOVE)
        value = exp(way * (place + move))
        return replace(candidate, **{knob: value if knob == "price" else min(value, 1.0)})

    def _score(self, seen: Seen, candidate: Candidate, spent: Spent, until: float) -> float:
        """How good a trial should be after ``until`` epochs, small for good; twice a limit counts four times."""
        later = seen.later(spent, candidate.epochs, until)
        distance = _STRICT * log1p(self.budget.distance(later))
        if self.budget.minimize == "drop":
            return distance + later.relative_drop / _SMALL_DROP
        return distance + log(max(self.budget.least(later), 1e-9))

    def _together(self, seen: Seen, candidates: Sequence[Candidate]) -> float:
        """Seconds that trials should take, as many at once as are done at a time."""
        costs = [seen.cost(one) for one in candidates]
        return max(sum(costs) / self.at_once, *costs)

    def _gone(self, left: float) -> float:
        """The share of the time that is gone."""
        return 1 - left / (self.limit or left)


def _numbers(candidate: Candidate) -> Mapping[str, float]:
    """What Optuna chooses, by name."""
    found = {name: getattr(candidate, name) for name in (*STRUCTURE, "strength", "pace")}
    return found if candidate.price is None else found | {"price": candidate.price}
