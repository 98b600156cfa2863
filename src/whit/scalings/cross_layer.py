"""Cross-layer equalization: ranges of weights, from one layer to the next."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from whit.moments import Doubles
from whit.scalings.base import Channels, Scaling, largest

__all__ = ["CrossLayer"]


@dataclass(frozen=True, slots=True)
class CrossLayer(Scaling):
    """Give each channel the same range in the weights that make it as in those that read it.

    The factor is ``sqrt(made / read)``, of the largest magnitudes in either (Nagel et al. 2019): so of all factors the
    channels of both layers fill one grid a tensor best. It needs no samples. What it makes even in weights it may make
    uneven in activations, whose ranges it does not look at.

    >>> few = np.array([[8.0], [0.5]], np.float32)
    >>> ones = np.ones((2, 3), np.float32)
    >>> nothing = np.zeros(2)
    >>> channels = Channels(made=(few,), read=(2 * ones,), largest=nothing, mean=nothing, growth=lambda *_: 0.0)
    >>> CrossLayer().factors(channels).tolist()
    [2.0, 0.5]
    """

    needs: ClassVar[Literal["makers", "inputs"]] = "makers"
    repeats: ClassVar[bool] = True

    def factors(self, channels: Channels) -> Doubles:
        """1 where a channel is nothing but zeros on one side."""
        made, read = largest(channels.made), largest(channels.read)
        some = (made > 0) & (read > 0)
        return np.sqrt(np.divide(made, read, out=np.ones_like(made), where=some))
