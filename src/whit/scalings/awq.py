"""AWQ: weights that multiply large activations get finer steps."""

from dataclasses import dataclass

import numpy as np

from whit.errors import PlanError
from whit.formats import Floats, Format, Int
from whit.moments import Doubles
from whit.quantizers import Nearest, Quantizer
from whit.scalings.base import Channels, Scaling

__all__ = ["AWQ"]


@dataclass(frozen=True, kw_only=True, slots=True)
class AWQ(Scaling):
    """Divide activations by ``mean ** share``, of their mean magnitude, with the share that does the least harm.

    Activation-aware weight quantization (Lin et al. 2023): a weight that is scaled up before it is rounded, and down
    after, is rounded more finely, at the cost of its neighbours. The shares 0, 1 / steps, ... 1 are tried; harm is
    what the loss grows by, as ``whit.moments`` foretells it, when the layers that read the channels are rounded.

    Attributes:
        weights: The format that weights are going to have.
        method: How their codes are going to be chosen, or a method like it that looks at weights alone.
        steps: How many shares to try.
    """

    weights: Format = Int(bits=4)
    method: Quantizer = Nearest()
    steps: int = 20

    def __post_init__(self) -> None:
        if self.method.observes:
            raise PlanError(
                f"AWQ(method={self.method}): it rounds each layer many times, and this method would have to observe "
                'each time; take method=Nearest(clip="mse") here, and the other in Quantize'
            )
        self.method.check(self.weights)
        if self.steps < 1:
            raise PlanError(f"AWQ(steps={self.steps}): try at least one share")

    def factors(self, channels: Channels) -> Doubles:
        """Those of the share that does the least harm, the smallest of equals; with a share of 0 all are 1."""
        some = channels.mean > 0
        mean = np.where(some, channels.mean, 1.0)
        tried = [mean ** (step / self.steps) for step in range(self.steps + 1)]
        tried = [np.where(some, factors / np.sqrt(factors.max() * factors.min()), 1.0) for factors in tried]
        return min(tried, key=lambda factors: channels.growth(factors, self._rounded))

    def _rounded(self, matrix: Floats) -> Floats:
        return self.weights.dequantize(*self.method.quantize(matrix, self.weights))
