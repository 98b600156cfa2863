"""First-order Taylor expansion: what the loss would change by, were a weight zero."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from whit.formats import Floats
from whit.scores.base import Known, Need, Score, bounded, total

__all__ = ["Taylor"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Taylor(Score):
    """``abs(weight * gradient)``; for a unit the sum of its weights' squares (Molchanov et al. 2019).

    >>> weights, gradient = np.array([2.0, 0.1], np.float32), np.array([-0.5, 4.0], np.float32)
    >>> Taylor().weights(Known(name="w", weights=weights, gradient=gradient))
    array([1. , 0.4], dtype=float32)
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"gradients"})

    def weights(self, known: Known) -> Floats:
        """The first-order change of the loss, whichever way it goes."""
        assert known.gradient is not None
        return bounded(np.abs(np.multiply(known.weights, known.gradient, dtype=np.float64)))

    def units(self, slices: Sequence[Floats]) -> Floats:
        """The sum of squares over every weight that goes with the unit."""
        return total([np.square(part, dtype=np.float64) for part in slices])
