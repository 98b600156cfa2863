"""SmoothQuant: difficulty moved from activations into weights."""

from dataclasses import dataclass

import numpy as np

from whit.errors import PlanError
from whit.moments import Doubles
from whit.scalings.base import Channels, Scaling, largest

__all__ = ["SmoothQuant"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SmoothQuant(Scaling):
    """Divide activations by ``largest ** alpha / read ** (1 - alpha)`` (Xiao et al. 2022).

    ``largest`` is the largest magnitude of a channel in what layers read, ``read`` that of the weights which multiply
    it. Channels that stand out, as behind the normalisations of language models, leave a grid of one scale a tensor
    with few steps for all others.

    Attributes:
        alpha: How much of the difficulty is moved: with 0.5 channel and weights end with equal ranges, with 1 all
            channels of the activation.

    >>> weights = (np.full((2, 3), 0.25, np.float32),)
    >>> channels = Channels(
    ...     made=(), read=weights, largest=np.array([64.0, 4.0]), mean=np.ones(2), growth=lambda *_: 0.0
    ... )
    >>> SmoothQuant(alpha=0.5).factors(channels).tolist()
    [16.0, 4.0]
    """

    alpha: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise PlanError(f"SmoothQuant(alpha={self.alpha}): the share that is moved lies in [0, 1]")

    def factors(self, channels: Channels) -> Doubles:
        """1 where nothing but zeros was read, or multiplies it."""
        read = largest(channels.read)
        some = (channels.largest > 0) & (read > 0)
        seen, read = np.where(some, channels.largest, 1.0), np.where(some, read, 1.0)
        return seen**self.alpha / read ** (1 - self.alpha)
