"""What trials cost, as compared with the original, or with controls where that knows the samples by heart."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

from whit.metrics import Metric
from whit.search.budget import Spent, dropped
from whit.search.candidates import Candidate
from whit.search.trials import Round, Trial

__all__ = ["Judge"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Judge:
    """Compares.

    Attributes:
        metric: What quality is.
        quality: Of the original on the validation samples.
        controls: How long each control was trained, in epochs, and its quality; none where the original will do.
    """

    metric: Metric
    quality: float
    controls: tuple[tuple[float, float], ...] = ()

    @classmethod
    def of(cls, metric: Metric, quality: float, rounds: Sequence[Round]) -> "Judge":
        """With the controls among the trials of rounds."""
        controls = [
            (trial.candidate.epochs, trial.outcome.quality)
            for one in rounds
            for trial in one.trials
            if trial.candidate.control and trial.outcome is not None and trial.outcome.failure is None
        ]
        return cls(metric=metric, quality=quality, controls=tuple(controls))

    def spent(self, trial: Trial) -> Spent | None:
        """What a trial costs; None if it failed, or was not done."""
        outcome = trial.outcome
        if outcome is None or outcome.failure is not None:
            return None
        drop, relative_drop = dropped(self.metric, self._reference(trial.candidate), outcome.quality)
        return Spent(
            drop=drop,
            relative_drop=relative_drop,
            bytes=outcome.bytes,
            latency_ms=outcome.latency_ms,
            macs=outcome.macs,
            memory=outcome.memory,
        )

    def _reference(self, candidate: Candidate) -> float:
        """The original's quality; for what was trained, that of the control that was trained most nearly as long.

        What a control has lost is taken to fall with the root of the epochs, so that one that was trained for less or
        more stands in. None counts for more than the original.
        """
        if not candidate.epochs or not self.controls:
            return self.quality
        epochs, found = min(self.controls, key=lambda one: abs(log(one[0] / candidate.epochs)))
        lost, _ = dropped(self.metric, self.quality, found)
        left = max(lost, 0.0) * (epochs / candidate.epochs) ** 0.5
        return self.quality - left if self.metric.higher_is_better else self.quality + left
