"""Diagonal Fisher information: Optimal Brain Damage."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from whit.formats import Floats
from whit.scores.base import Known, Need, Score, bounded

__all__ = ["Fisher"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fisher(Score):
    """``fisher * weight ** 2 / 2``: what the loss grows by to second order, each weight for itself.

    Optimal Brain Damage (LeCun et al. 1990), with the empirical Fisher information in place of the Hessian (Theis et
    al. 2018).

    >>> weights, fisher = np.array([2.0, 1.0], np.float32), np.array([0.5, 4.0], np.float32)
    >>> Fisher().weights(Known(name="w", weights=weights, fisher=fisher))
    array([1., 2.], dtype=float32)
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"gradients"})

    def weights(self, known: Known) -> Floats:
        """The second-order change of the loss."""
        assert known.fisher is not None
        return bounded(np.square(known.weights, dtype=np.float64) * known.fisher / 2)
