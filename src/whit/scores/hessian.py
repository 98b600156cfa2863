"""Second moments of what a layer reads: Optimal Brain Surgeon."""

from dataclasses import dataclass
from math import isfinite
from typing import ClassVar

import numpy as np

from whit.errors import PlanError
from whit.formats import Floats
from whit.scores.base import Known, Need, Score, bounded

__all__ = ["Hessian"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Hessian(Score):
    """``weight ** 2 / diag(inverse(H))``: what the loss grows by once the weights that stay have made up for one.

    Optimal Brain Surgeon (Hassibi and Stork 1993), a layer for itself: ``H`` is the second moment of what the layer
    reads (Frantar and Alistarh 2022), times how sensitive the loss is to each of its outputs. Take it with
    ``Prune(compensate=True)``, which makes up for what goes.

    Attributes:
        damping: Added to the diagonal of the second moment, as a share of its mean.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"moments"})

    damping: float = 0.01

    def __post_init__(self) -> None:
        if not (self.damping > 0 and isfinite(self.damping)):
            raise PlanError(f"Hessian(damping={self.damping}): a share of the diagonal is a positive number")

    def weights(self, known: Known) -> Floats:
        """The growth of the loss with one weight gone and the rest of its row at their new best."""
        assert known.moments is not None
        inverse = [np.linalg.inv(second).diagonal() for second in known.moments.damped(self.damping)]
        rows = len(known.weights) // len(inverse)
        curvature = known.moments.sensitivity[:, None] / np.repeat(np.stack(inverse), rows, axis=0)
        return bounded(np.square(known.weights, dtype=np.float64) * curvature.reshape(known.weights.shape))
