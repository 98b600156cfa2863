"""What the rounds of a search tell so far: what trainings cost, and what they would come to if they were longer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import log
from statistics import median

from whit.search.budget import Spent
from whit.search.candidates import Candidate
from whit.search.trials import Outcome, Round, Trial

__all__ = ["Seen", "work"]

_WINS = 0.5
"""Where nothing is known yet: a drop falls with the root of the epochs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """Rounds that are done.

    Attributes:
        rounds: In order.
        spent: What a trial costs, as compared with the original or the control; None for one without figures.
        guess: Seconds that an epoch is guessed to take, as long as none was measured.
    """

    rounds: Sequence[Round]
    spent: Callable[[Trial], Spent | None]
    guess: float

    def named(self, name: str) -> list[Round]:
        """The rounds of one kind."""
        return [one for one in self.rounds if one.name == name]

    def trials(self) -> list[Trial]:
        """All trials."""
        return [trial for one in self.rounds for trial in one.trials]

    def measured(self) -> list[tuple[Candidate, Spent]]:
        """What has figures, but for controls."""
        found = [(trial.candidate, self.spent(trial)) for trial in self.trials() if not trial.candidate.control]
        return [(candidate, spent) for candidate, spent in found if spent is not None]

    def trained(self) -> list[tuple[Candidate, Spent]]:
        """What was trained and has figures."""
        return [(candidate, spent) for candidate, spent in self.measured() if candidate.epochs]

    def came_to(self, name: str) -> bool:
        """Whether networks with less of this, ``"keep"`` say, came to something."""
        return any(getattr(candidate, name) < 1 for candidate, _ in self.measured())

    def won(self, epochs: float, until: float) -> float:
        """What a drop is multiplied with by training for longer, as measured on those that were trained for both."""
        if until <= epochs:
            return 1.0
        powers: list[float] = []
        trained = self.trained()
        for short, early in trained:
            for long, late in trained:
                longer = long.epochs / short.epochs
                same = replace(long, epochs=short.epochs) == short
                if same and longer > 1 and early.drop > 0 and late.drop > 0:
                    powers.append(log(early.drop / late.drop) / log(longer))
        power = min(max(median(powers), 0.0), 2.0) if powers else _WINS
        return (epochs / until) ** power

    def later(self, spent: Spent, epochs: float, until: float) -> Spent:
        """What a candidate should cost after ``until`` epochs."""
        won = self.won(epochs, until) if spent.drop > 0 else 1.0
        return replace(spent, drop=spent.drop * won, relative_drop=spent.relative_drop * won)

    def cost(self, candidate: Candidate) -> float:
        """Seconds that a trial should take."""
        return self.base() + candidate.epochs * work(candidate) * self.epoch()

    def base(self) -> float:
        """Seconds of a trial without training."""
        times = [_outcome(one).seconds for one in self.trials() if not one.candidate.epochs]
        return median(times) if times else 0.0

    def epoch(self) -> float:
        """Seconds of an epoch of the uncut network: the most that any of the last trainings took."""
        for one in reversed(self.rounds):
            trained = [trial for trial in one.trials if trial.candidate.epochs and _outcome(trial).failure is None]
            if trained:
                base = min(self.base(), min(_outcome(trial).seconds for trial in trained) / 2)
                return max(
                    (_outcome(trial).seconds - base) / (trial.candidate.epochs * work(trial.candidate))
                    for trial in trained
                )
        return self.guess


def work(candidate: Candidate) -> float:
    """What a step of training takes, in units of one of the uncut network; the teacher is never cut."""
    return 0.3 + 0.7 * candidate.keep * candidate.depth * candidate.ranks


def _outcome(trial: Trial) -> Outcome:
    assert trial.outcome is not None
    return trial.outcome
