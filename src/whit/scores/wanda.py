"""Weights and activations: what multiplies little goes first."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from whit.formats import Floats
from whit.scores.base import Known, Need, Score, bounded

__all__ = ["Wanda"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanda(Score):
    """``abs(weight)`` times the norm of what it is multiplied with (Sun et al. 2024).

    The paper compares weights of one output only: ``Prune(score=Wanda(), scope="row")``.

    >>> weights, inputs = np.array([[1.0, -2.0]], np.float32), np.array([[3.0, 1.0]], np.float32)
    >>> Wanda().weights(Known(name="w", weights=weights, inputs=inputs))
    array([[3., 2.]], dtype=float32)
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"inputs"})

    def weights(self, known: Known) -> Floats:
        """The root mean square of what the weight adds to the sums of its layer."""
        assert known.inputs is not None
        return bounded(np.abs(np.multiply(known.weights, known.inputs, dtype=np.float64)))
