"""Weights that share a few learned values."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from whit.errors import PlanError
from whit.formats.base import Floats, Format, Integers, Layout, check_layout
from whit.formats.scales import bounded

__all__ = ["Codebook", "k_means"]

_FRACTION_BITS = 16
_MOST_ROUNDS = 300
_LEAST_MASS = 1e-9
"""Share of the largest mass that every value has, so that differences of sums are never lost in rounding."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Codebook(Format):
    """At most ``k`` values for all weights of a tensor, learned by k-means (Han et al. 2016, "Deep Compression").

    ``weights ~= codebook[codes] * scale``. Per tensor the scale is 1 and the codebook holds the values. Per channel or
    group the scale is the largest magnitude, and the one codebook holds what is shared in units of it, from -1 to 1.
    If any weight is exactly zero, so is one of the values: masks hold. Fine-tuning moves weights between the values and
    leaves the values where they are.

    In an ``.onnx`` file codes are uint8 (uint4 up to 16 values), places in the table of values (``Gather``).

    Attributes:
        k: How many values, 2 to 256. A tensor with fewer distinct weights gets just these.
        per: What shares one scale: the whole ``"tensor"``, an output ``"channel"`` (a row of the weight matrix), or
            a ``"group"`` of neighbouring weights in a row.
        group_size: Weights in a group; needed with ``per="group"`` and only there.

    >>> values = k_means(np.array([0.9, 1.1, 4.0, 0.0, -2.0], np.float32), k=4)
    >>> values.tolist()
    [-2.0, 0.0, 1.0, 4.0]
    """

    k: int
    per: Layout = "tensor"
    group_size: int | None = None

    def __post_init__(self) -> None:
        if not 2 <= self.k <= 256:
            raise PlanError(f"Codebook(k={self.k}): a codebook has 2 to 256 values; for more take Int(bits=16) or FP16")
        check_layout(self)

    @property
    def name(self) -> str:
        """For people: ``codebook of 16``."""
        return f"codebook of {self.k}"

    @property
    def low(self) -> int:
        """The smallest code."""
        return 0

    @property
    def high(self) -> int:
        """The largest code."""
        return self.k - 1

    def levels(self, codebook: Floats | None = None) -> Floats:
        """The codebook itself.

        Raises:
            ValueError: There is none.
        """
        if codebook is None:
            raise ValueError("codes of a Codebook stand for nothing without their codebook; give it")
        return codebook

    def patterns(self, codes: Integers) -> Integers:
        """The codes themselves."""
        return codes

    def grid(self, low: Floats, high: Floats) -> tuple[Floats, Integers]:
        """Scale and zero point: 1 and 0 for a tensor, else the largest magnitude and 0."""
        largest = np.maximum(np.maximum(-low, high), 0).astype(np.float32)
        scale = np.ones_like(largest) if self.per == "tensor" else bounded(largest, 1.0, largest == 0)
        return scale, np.zeros(scale.shape, np.int32)

    def learn(self, matrix: Floats, scale: Floats) -> Floats:
        """The codebook of a weight matrix: ``(k or fewer,)``, float32, rising.

        Args:
            matrix: ``(rows, columns)``, float32, finite.
            scale: As ``grid`` gave it.
        """
        if self.per == "tensor":
            return k_means(matrix, self.k)
        spread = np.broadcast_to(self.spread(scale, matrix.shape[1]), matrix.shape)
        values = k_means(matrix / spread, self.k, importance=np.square(spread, dtype=np.float64))
        # A level times a scale, divided by it again, must be found nearest to itself.
        return np.unique(np.rint(np.ldexp(values, _FRACTION_BITS)) / np.float32(1 << _FRACTION_BITS)).astype(np.float32)


def k_means(values: Floats, k: int, importance: NDArray[np.float64] | None = None) -> Floats:
    """The ``k`` numbers to which values are nearest, in the mean of squares (Lloyd 1982).

    Two starts, evenly over the range (which Han et al. 2016 found best) and evenly over the values, and the better end
    of the two; no randomness. A cluster that becomes empty splits the one with the largest error.

    Args:
        values: Any shape, float32, finite.
        k: At least 2.
        importance: Of every value, positive, same shape; None for all alike.

    Returns:
        Rising, float32, at most ``k``: all distinct values if there are no more. If a value is zero, so is one of them.

    >>> k_means(np.array([1, 1, 2, 9], np.float32), k=2).tolist()
    [1.3333333730697632, 9.0]
    """
    distinct, places = np.unique(values, return_inverse=True)
    distinct = distinct + np.float32(0)  # no negative zero
    if distinct.size <= k:
        return distinct
    mass = np.bincount(places.reshape(-1), None if importance is None else importance.reshape(-1))
    # In units of the largest, so that squares are finite.
    unit = float(np.abs(distinct).max())
    points = _Points(distinct / np.float64(unit), np.maximum(mass / mass.max(), _LEAST_MASS))
    shares = (np.arange(k) + 0.5) / k
    starts = (
        points.x[0] + shares * (points.x[-1] - points.x[0]),
        points.x[np.searchsorted(points.mass[1:], shares * points.mass[-1])],
    )
    best = min((points.settled(np.unique(start), k) for start in starts), key=points.loss)
    return np.unique((best * unit).astype(np.float32) + np.float32(0))


class _Points:
    """Rising points on a line, with what a cluster needs summed up from the left."""

    def __init__(self, x: NDArray[np.float64], mass: NDArray[np.float64]) -> None:
        self.x = x
        self.mass = np.append(0, np.cumsum(mass))
        self.first = np.append(0, np.cumsum(mass * x))
        self.second = np.append(0, np.cumsum(mass * x * x))
        self.has_zero = bool((x == 0).any())

    def settled(self, centers: NDArray[np.float64], k: int) -> NDArray[np.float64]:
        """Centres that no longer move, or hardly."""
        for _ in range(_MOST_ROUNDS):
            edges = self._edges(centers)
            full = edges[1:] > edges[:-1]
            edges = np.append(edges[:-1][full], edges[-1])
            moved = self._split(edges, k)
            if self.has_zero:
                moved[np.abs(moved).argmin()] = 0
            moved = np.unique(moved)
            if moved.size == centers.size and np.allclose(moved, centers, rtol=0, atol=1e-9):
                return moved
            centers = moved
        return centers

    def loss(self, centers: NDArray[np.float64]) -> float:
        """Squared distance of all points to their nearest centre."""
        mass, first, second = self._sums(self._edges(centers))
        return float((second - 2 * centers * first + centers**2 * mass).sum())

    def _split(self, edges: NDArray[np.int64], k: int) -> NDArray[np.float64]:
        """Means of the clusters between edges; the widest in error are halved until there are ``k``."""
        while edges.size <= k:
            mass, first, second = self._sums(edges)
            error = np.where(np.diff(edges) > 1, second - first**2 / mass, -1)
            worst = int(error.argmax())
            edges = np.insert(edges, worst + 1, (edges[worst] + edges[worst + 1]) // 2)
        mass, first, _ = self._sums(edges)
        # Sums over many values leave a rounding error, which must not carry a mean out of its cluster.
        return np.clip(first / mass, self.x[edges[:-1]], self.x[edges[1:] - 1])

    def _edges(self, centers: NDArray[np.float64]) -> NDArray[np.int64]:
        """Where clusters begin and end among the points."""
        inner = np.searchsorted(self.x, (centers[:-1] + centers[1:]) / 2)
        return np.concatenate([[0], inner, [self.x.size]]).astype(np.int64)

    def _sums(self, edges: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        return np.diff(self.mass[edges]), np.diff(self.first[edges]), np.diff(self.second[edges])
