"""Layer-adaptive magnitude: shares that need no choice by hand."""

from dataclasses import dataclass

import numpy as np

from whit.formats import Floats
from whit.scores.base import Known, Score

__all__ = ["LAMP"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LAMP(Score):
    """``weight ** 2`` over the sum of squares of all weights of the layer that are no smaller (Lee et al. 2021).

    Within a layer it ranks as magnitude does; with ``Prune(scope="global")`` it chooses each layer's share, and leaves
    every layer its largest weight, which is worth 1.

    >>> LAMP().weights(Known(name="w", weights=np.array([1.0, -2.0, 2.0], np.float32))).tolist()
    [0.1111111119389534, 0.5, 1.0]
    """

    def weights(self, known: Known) -> Floats:
        """The share that a weight has of what is left when all smaller ones are gone; of equal ones the first goes."""
        flat = np.square(known.weights.reshape(-1), dtype=np.float64)
        order = np.argsort(flat, kind="stable")
        left = np.cumsum(flat[order][::-1])[::-1]
        shares = np.zeros(flat.size)
        shares[order] = flat[order] / np.maximum(left, np.finfo(np.float64).tiny)
        return shares.astype(np.float32).reshape(known.weights.shape)
