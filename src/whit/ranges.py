"""Ranges: how much of what was observed a grid should cover. One class an idea."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from whit.errors import PlanError
from whit.formats import Floats, Format

__all__ = ["Entropy", "Histogram", "MeanSquaredError", "MinMax", "Percentile", "Range"]

_PER_BIN = 4
_COARSE = tuple(0.85**step for step in range(24))
"""What to shrink an end by at first, down to a fiftieth."""
_FINE = tuple(np.linspace(0.88, 1.12, 13).tolist())


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
    def interval(self, observed: Histogram, target: Format) -> tuple[float, float]:
        """The smallest and the largest value that a grid of ``target`` should cover."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MinMax(Range):
    """Everything that was seen."""

    def interval(self, observed: Histogram, target: Format) -> tuple[float, float]:
        """The smallest and the largest value seen."""
        return observed.low, observed.high


@dataclass(frozen=True, kw_only=True, slots=True)
class Percentile(Range):
    """The central ``percent`` of the values; the rest, half of it on either side, is clipped.

    >>> counts = np.array([1, 98, 0, 1])
    >>> from whit.formats import Int
    >>> Percentile(percent=98.0).interval(Histogram(low=0.0, high=4.0, counts=counts), Int(bits=8, per="tensor"))
    (1.0, 2.0)
    """

    percent: float = 99.99

    def __post_init__(self) -> None:
        if not 50 < self.percent <= 100:
            raise PlanError(f"Percentile(percent={self.percent}): cover more than 50 and at most 100 percent")

    def interval(self, observed: Histogram, target: Format) -> tuple[float, float]:
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


@dataclass(frozen=True, kw_only=True, slots=True)
class MeanSquaredError(Range):
    """What makes the mean squared error of the rounded values least: far values are clipped if that makes steps finer.

    Both ends are searched, together where the grid is symmetric; never beyond what was seen. Values count as spread
    evenly over their bin, so an outlier ever so far away leaves nothing to choose: clip it with ``Percentile``.

    >>> from whit.formats import Int
    >>> uniform = Histogram(low=0.0, high=10.0, counts=np.full(100, 1000))
    >>> low, high = MeanSquaredError().interval(uniform, Int(bits=2, symmetric=False, per="tensor"))
    >>> low, round(high, 1)  # the best levels of a uniform distribution: the last lies within its sixth, not at its end
    (0.0, 8.5)
    """

    def interval(self, observed: Histogram, target: Format) -> tuple[float, float]:
        """The ends with the least error of those that were tried; the widest of equals."""
        if not observed.counts.any():
            return observed.low, observed.high
        values, counts = _points(observed, _PER_BIN)
        unit = max(-observed.low, observed.high)  # squares of values in this unit are finite
        low, high = min(observed.low, 0.0), max(observed.high, 0.0)

        def error(factors: tuple[float, float]) -> float:
            rounded = _rounded(values, target, factors[0] * low, factors[1] * high)[1]
            return float(np.square((rounded - values.astype(np.float64)) / unit) @ counts)

        def pairs(below: Sequence[float], above: Sequence[float]) -> Iterable[tuple[float, float]]:
            if target.low < 0:  # the grid is symmetric: an end that is nearer to zero than the other means nothing
                return [
                    (min(one * unit / -low, 1.0) if low else 1.0, min(one * unit / high, 1.0) if high else 1.0)
                    for one in above
                ]
            return product(below if low else (1.0,), above if high else (1.0,))

        best = min(pairs(_COARSE, _COARSE), key=error)
        # The farther end of a symmetric grid has the smaller factor, and that is the grid's.
        starts = (min(best),) * 2 if target.low < 0 else best
        finer = [[min(factor * one, 1.0) for factor in _FINE] for one in starts]
        best = min((best, *pairs(*finer)), key=error)
        return max(observed.low, best[0] * low), min(observed.high, best[1] * high)


@dataclass(frozen=True, kw_only=True, slots=True)
class Entropy(Range):
    """What loses the least information: the Kullback-Leibler divergence of the rounded from the observed distribution.

    As in TensorRT's calibration (Migacz 2017): what is clipped counts at the ends, and no interval is tried that has
    fewer bins than the grid has levels. So grids of more levels than there are bins cover all that was seen.

    Attributes:
        steps: How many intervals to try, from all that was seen down to nothing.

    >>> from whit.formats import Int
    >>> falling = Histogram(low=0.0, high=1.0, counts=np.append(1000 * 0.98 ** np.arange(511), 1).astype(int))
    >>> low, high = Entropy().interval(falling, Int(bits=4, per="tensor"))
    >>> low, 0.25 < high < 0.75
    (0.0, True)
    """

    steps: int = 128

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise PlanError(f"Entropy(steps={self.steps}): try at least one interval")

    def interval(self, observed: Histogram, target: Format) -> tuple[float, float]:
        """The interval with the least divergence of those that were tried; the largest of equals."""
        low, high = observed.low, observed.high
        values, counts = _points(observed, 1)
        best, least = (low, high), np.inf
        if low <= 0 <= high and values.size > 2:
            # Zero is exact on every grid, however many zeros there are: its bin counts like its neighbours.
            zero = int(np.abs(values).argmin())
            counts[zero] = min(
                counts[zero], counts[[abs(zero - 1), zero + 1 if zero + 1 < counts.size else zero - 1]].max()
            )
        for step in range(self.steps, 0, -1):
            ends = min(low, 0.0) * step / self.steps, max(high, 0.0) * step / self.steps
            inside = (values >= ends[0]) & (values <= ends[1])
            if int(inside.sum()) <= target.high - target.low:
                break
            kept = np.clip(np.arange(values.size), *_ends(inside))
            clipped = np.bincount(kept, counts, values.size)[inside].astype(np.float64)
            codes = _rounded(values[inside], target, *ends)[0]
            divergence = _divergence(clipped, counts[inside], codes)
            if divergence < least:
                best, least = (max(low, ends[0]), min(high, ends[1])), divergence
        return best


def _points(observed: Histogram, per_bin: int) -> tuple[Floats, NDArray[np.float64]]:
    """Points evenly over each bin, float32, and for how many values each stands."""
    edges = np.linspace(observed.low, observed.high, observed.counts.size * per_bin + 1)
    counts = np.repeat(observed.counts / per_bin, per_bin)
    return (edges[:-1] / 2 + edges[1:] / 2).astype(np.float32), counts


def _ends(inside: NDArray[np.bool_]) -> tuple[int, int]:
    places = np.flatnonzero(inside)
    return int(places[0]), int(places[-1])


def _rounded(values: Floats, target: Format, low: float, high: float) -> tuple[NDArray[np.int32], Floats]:
    """Codes of values on the grid from ``low`` to ``high``, and what they stand for."""
    row = values.reshape(1, -1)
    scale, zero_point = target.grid(np.full((1, 1), low, np.float32), np.full((1, 1), high, np.float32))
    scale, zero_point = (np.repeat(one, -(-row.size // target.block(row.size)), axis=1) for one in (scale, zero_point))
    codes = target.quantize(row, scale, zero_point)
    return codes[0], target.dequantize(codes, scale, zero_point)[0]


def _divergence(reference: NDArray[np.float64], counts: NDArray[np.float64], codes: NDArray[np.int32]) -> float:
    """Of the reference from what the codes show of it: each level's counts evenly over its bins that are not empty."""
    levels = codes - codes.min()
    filled = reference > 0
    shares = np.bincount(levels, counts) / np.maximum(np.bincount(levels, filled), 1)
    shown = np.where(filled, shares[levels], 0)
    if not shown.any():
        return np.inf
    p, q = reference / reference.sum(), shown / shown.sum()
    q = 0.9999 * q + 0.0001 * p  # where only clipped values lie
    return float((p[filled] * np.log(p[filled] / q[filled])).sum())
