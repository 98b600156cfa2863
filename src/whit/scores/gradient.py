"""Gradient magnitude: what the loss does not pull at goes first."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from whit.formats import Floats
from whit.scores.base import Known, Need, Score

__all__ = ["Gradient"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Gradient(Score):
    """``abs(gradient)``: how much the loss would change with a weight, however large the weight is.

    >>> known = Known(name="w", weights=np.ones(2, np.float32), gradient=np.array([-3.0, 0.5], np.float32))
    >>> Gradient().weights(known)
    array([3. , 0.5], dtype=float32)
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"gradients"})

    def weights(self, known: Known) -> Floats:
        """The magnitude of the mean gradient."""
        assert known.gradient is not None
        return np.abs(known.gradient)
