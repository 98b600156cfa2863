"""Movement: what training moved towards zero goes first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from whit.formats import Floats
from whit.scores.base import Known, Need, Score, bounded

__all__ = ["Movement"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Movement(Score):
    """``(weight ** 2 - start ** 2) / 2``, over the ``Finetune`` before (after Sanh et al. 2020).

    Their score is the sum over training of ``-gradient * weight``, which is what steps along the gradient add up to:
    the path's integral of ``weight * d weight``, in units of the learning rate. Negative where a weight shrank.

    >>> weights, start = np.array([1.0, 1.0], np.float32), np.array([2.0, 0.0], np.float32)
    >>> Movement().weights(Known(name="w", weights=weights, start=start))
    array([-1.5,  0.5], dtype=float32)
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"start"})

    def weights(self, known: Known) -> Floats:
        """How far the weight went from zero."""
        assert known.start is not None
        now, start = (np.square(x, dtype=np.float64) for x in (known.weights, known.start))
        return bounded((now - start) / 2)

    def units(self, slices: Sequence[Floats]) -> Floats:
        """The sum over every weight that goes with the unit, counted from the group's lowest."""
        sums = np.sum([np.sum(part, axis=1, dtype=np.float64) for part in slices], axis=0)
        return bounded(sums - sums.min(initial=np.inf))
