"""Ranges: how much of what was observed a grid should cover. One class an idea; add a file's worth here later."""

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from whit.errors import PlanError

__all__ = ["Histogram", "MinMax", "Percentile", "Range"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Histogram:
    """What a tensor's values were over the calibration samples.

    Attributes:
        low: Smallest value seen.
        high: Largest value seen.
        counts: Values in each of the equal bins from ``low`` to ``high``, int64.
    """

    low: float
    high: float
    counts: NDArray[np.int64]


class Range:
    """Chooses the interval of values that a grid covers. Subclass it as a frozen dataclass."""

    __slots__ = ()

    @abstractmethod
    def interval(self, observed: Histogram) -> tuple[float, float]:
        """The smallest and the largest value to cover."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MinMax(Range):
    """Everything that was seen."""

    def interval(self, observed: Histogram) -> tuple[float, float]:
        """The smallest and the largest value seen."""
        return observed.low, observed.high


@dataclass(frozen=True, kw_only=True, slots=True)
class Percentile(Range):
    """The central ``percent`` of the values; the rest, half of it on either side, is clipped.

    >>> counts = np.array([1, 98, 0, 1])
    >>> Percentile(percent=98.0).interval(Histogram(low=0.0, high=4.0, counts=counts))
    (1.0, 2.0)
    """

    percent: float = 99.99

    def __post_init__(self) -> None:
        if not 50 < self.percent <= 100:
            raise PlanError(f"Percentile(percent={self.percent}): cover more than 50 and at most 100 percent")

    def interval(self, observed: Histogram) -> tuple[float, float]:
        """The bin edges between which at least ``percent`` of the values lie."""
        edges = np.linspace(observed.low, observed.high, observed.counts.size + 1)
        total = int(observed.counts.sum())
        tail = total * (1 - self.percent / 100) / 2
        slack = total * 1e-12
        below = np.cumsum(observed.counts)
        above = np.cumsum(observed.counts[::-1])
        first = int(np.argmax(below > tail + slack))
        last = observed.counts.size - int(np.argmax(above > tail + slack))
        return float(edges[first]), float(edges[last])
