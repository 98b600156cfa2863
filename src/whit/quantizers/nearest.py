"""Round to nearest."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from whit.errors import PlanError
from whit.formats import Codebook, Codes, Floats, Format
from whit.moments import Moments
from whit.quantizers.base import Quantizer

__all__ = ["Nearest"]

_COARSE = tuple(0.85**step for step in range(-5, 20))
"""What to multiply a range by at first: from 2.25, of use where scales are powers of two, down to a twentieth."""
_FINE = tuple(np.linspace(0.88, 1.14, 14).tolist())


@dataclass(frozen=True, kw_only=True, slots=True)
class Nearest(Quantizer):
    """Every weight takes the nearest code of a grid.

    If the grid covers all weights that share its scale, the error of a weight is at most half a step:
    ``abs(weight - (code - zero_point) * scale) <= scale / 2``.

    One symmetric bit takes the mean magnitude as its scale whatever ``clip`` says: that has the least squared error
    (Rastegari et al. 2016). A codebook is learned by k-means, which has no use for ``clip`` either.

    Attributes:
        clip: Where the grid ends: at the largest weight (``"max"``), or where the squared error of the weights that
            share a scale is least (``"mse"``), which clips a few for finer steps. With 2 to 4 bits that is worth much.

    >>> from whit.formats import Int
    >>> weights = np.array([[0.5, -0.5, 0.4, -0.6, 0.5, 1.0]], np.float32)
    >>> error = {}
    >>> for clip in ("max", "mse"):
    ...     codes, scale, *_ = Nearest(clip=clip).quantize(weights, Int(bits=2))
    ...     error[clip] = float(np.square(codes * scale - weights).sum())
    >>> error["mse"] < error["max"]
    True
    """

    clip: Literal["max", "mse"] = "max"

    def __post_init__(self) -> None:
        if self.clip not in ("max", "mse"):
            raise PlanError(f'Nearest(clip={self.clip!r}): choose "max" or "mse"')

    def quantize(self, matrix: Floats, target: Format, moments: Moments | None = None) -> Codes:
        """Codes for a ``(rows, columns)`` float32 matrix, which is all that it looks at."""
        low, high = self._covered(matrix, target)
        scale, zero_point = target.grid(low, high)
        codebook = target.learn(matrix, scale) if isinstance(target, Codebook) else None
        return Codes(target.quantize(matrix, scale, zero_point, codebook), scale, zero_point, codebook)

    def _covered(self, matrix: Floats, target: Format) -> tuple[Floats, Floats]:
        """The smallest and the largest value that each scale's grid covers."""
        blocks = target.blocked(matrix)
        if not target.has_zero:
            counts = target.blocked(np.ones_like(matrix)).sum(axis=2)
            mean = (np.abs(blocks).sum(axis=2, dtype=np.float64) / counts).astype(np.float32)
            return -mean, mean
        low, high = blocks.min(axis=2), blocks.max(axis=2)
        if self.clip == "max" or isinstance(target, Codebook) or target.scale_format == "one":
            return low, high
        best = np.ones_like(low)
        least = _errors(blocks, target, low, high)
        for factors in (_COARSE, _FINE):
            start = best
            for factor in factors:
                tried = (start * factor).astype(np.float32)
                errors = _errors(blocks, target, *_times(low, high, tried))
                best = np.where(errors < least, tried, best)
                least = np.minimum(errors, least)
        return _times(low, high, best)


def _times(low: Floats, high: Floats, factor: Floats) -> tuple[Floats, Floats]:
    """A range made narrower, or wider as far as float32 goes."""
    most = np.finfo(np.float32).max
    with np.errstate(over="ignore"):
        return np.maximum(low * factor, -most), np.minimum(high * factor, most)


def _errors(blocks: Floats, target: Format, low: Floats, high: Floats) -> Floats:
    """Squared error of every block, float64."""
    rows = blocks.reshape(blocks.shape[0], -1)
    scale, zero_point = target.grid(low, high)
    values = target.dequantize(target.quantize(rows, scale, zero_point), scale, zero_point)
    return np.square(values.astype(np.float64) - rows).reshape(blocks.shape).sum(axis=2)
