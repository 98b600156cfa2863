"""Weight magnitude: the small go first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from whit.errors import PlanError
from whit.formats import Floats
from whit.scores.base import Known, Score, bounded, total

__all__ = ["Magnitude"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Magnitude(Score):
    """The L1 or L2 norm of what would be removed (Han et al. 2015; Li et al. 2017 for whole filters).

    >>> Magnitude(norm=1).units([np.array([[1.0, 2.0], [0.0, 0.5]], np.float32)])
    array([3. , 0.5], dtype=float32)
    """

    norm: Literal[1, 2] = 2

    def __post_init__(self) -> None:
        if self.norm not in (1, 2):
            raise PlanError(f"Magnitude(norm={self.norm}): the norm is 1 or 2")

    def weights(self, known: Known) -> Floats:
        """``abs(weights)``: for a single weight both norms are its magnitude."""
        return np.abs(known.weights)

    def units(self, slices: Sequence[Floats]) -> Floats:
        """The norm over every weight that goes with the unit, in all coupled parameters."""
        if self.norm == 1:
            return total(slices)
        norms = np.sqrt(np.sum([np.square(part, dtype=np.float64).sum(axis=1) for part in slices], axis=0))
        return bounded(norms)
