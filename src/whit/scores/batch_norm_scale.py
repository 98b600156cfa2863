"""Scales of batch normalisations: network slimming."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from whit.formats import Floats
from whit.scores.base import Known, Score

__all__ = ["BatchNormScale"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchNormScale(Score):
    """``abs(scale)`` of the batch normalisations that a channel passes (Liu et al. 2017), before they are folded.

    The paper trains with a penalty on the scales first. Groups without one are left alone.

    >>> BatchNormScale().weights(Known(name="norm.weight", weights=np.array([-0.5, 2.0], np.float32)))
    array([0.5, 2. ], dtype=float32)
    """

    reads: ClassVar[Literal["matrices", "scales"]] = "scales"
    whole: ClassVar[bool] = True

    def weights(self, known: Known) -> Floats:
        """The magnitude of every scale."""
        return np.abs(known.weights)
