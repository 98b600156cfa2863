"""Chance, which every other score should beat."""

import zlib
from dataclasses import dataclass

import numpy as np

from whit.formats import Floats
from whit.scores.base import Known, Score

__all__ = ["Random"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Random(Score):
    """Numbers drawn evenly from [0, 1), by a seed and the parameter's name.

    >>> known = Known(name="w", weights=np.zeros((2, 2), np.float32))
    >>> bool((Random(seed=1).weights(known) == Random(seed=1).weights(known)).all())
    True
    """

    seed: int = 0

    def weights(self, known: Known) -> Floats:
        """Other numbers for every parameter."""
        random = np.random.default_rng([self.seed, zlib.crc32(known.name.encode())])
        return random.random(known.weights.shape, np.float32)
