"""Geometric median: what the others of a group can stand in for goes first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from whit.formats import Floats
from whit.scores.base import Known, Score, bounded

__all__ = ["GeometricMedian"]


@dataclass(frozen=True, kw_only=True, slots=True)
class GeometricMedian(Score):
    """The sum of a unit's distances to all others of its group (He et al. 2019): least near the geometric median.

    >>> GeometricMedian().units([np.array([[0.0], [1.0], [5.0]], np.float32)])
    array([6., 5., 9.], dtype=float32)
    """

    whole: ClassVar[bool] = True

    def weights(self, known: Known) -> Floats:
        """The weights, as coordinates of the unit that they go with."""
        return known.weights

    def units(self, slices: Sequence[Floats]) -> Floats:
        """The sum of Euclidean distances between rows, over all coupled parameters together."""
        if not slices:
            return np.zeros(0, np.float32)
        squares = np.zeros((len(slices[0]),) * 2)
        for part in slices:
            rows = part.astype(np.float64)
            norms = np.square(rows).sum(axis=1)
            squares += norms[:, None] + norms[None] - 2 * rows @ rows.T
        np.fill_diagonal(squares, 0.0)
        return bounded(np.sqrt(np.maximum(squares, 0.0)).sum(axis=1))
