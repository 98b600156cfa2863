"""Half-quadratic quantization: the grid with the least error in a norm that forgives outliers."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from whit.errors import PlanError
from whit.formats import Codes, Floats, Format, Int, Integers
from whit.moments import Doubles, Moments
from whit.quantizers.base import Quantizer, check_fitting
from whit.quantizers.nearest import Nearest

__all__ = ["HalfQuadratic"]

_BETA = 10.0
"""At first, how dear it is to take an error for an outlier; errors are counted in steps of the grid."""
_GROWTH = 1.01
"""How much dearer from one iteration to the next."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HalfQuadratic(Quantizer):
    """Minimise the sum of ``abs(error) ** norm``, with a norm below 1: a few large errors make many others smaller.

    HQQ (Badri and Shaji 2023), which needs no samples. In turns, errors that stand out are set aside by generalized
    soft thresholding, and zero point and scale are fitted to the rest in closed form. HQQ fits zero points that are
    fractions, and no scales; the zero points of runtimes are whole, so here scales are fitted too. It begins where the
    squared error is least (``Nearest(clip="mse")``), and of all grids of a block the best is kept.

    Attributes:
        norm: Of the error, above 0 and below 1; less forgives more.
        iterations: How often to fit.

    >>> weights = np.random.default_rng(0).standard_t(3, (8, 64)).astype(np.float32)
    >>> target, error = Int(bits=3), {}
    >>> for method in (Nearest(clip="mse"), HalfQuadratic()):
    ...     wrong = np.abs(target.dequantize(*method.quantize(weights, target)) - weights)
    ...     error[type(method)] = float((wrong**0.7).sum())
    >>> error[HalfQuadratic] < 0.95 * error[Nearest]
    True
    """

    norm: float = 0.7
    iterations: int = 20

    def __post_init__(self) -> None:
        if not 0 < self.norm < 1:
            raise PlanError(
                f"HalfQuadratic(norm={self.norm}): the norm lies between 0 and 1; for the squared error take "
                'Nearest(clip="mse")'
            )
        if self.iterations < 1:
            raise PlanError(f"HalfQuadratic(iterations={self.iterations}): fit at least once")

    def check(self, target: Format) -> None:
        """Raise ``PlanError`` unless the format is integers with a zero and float32 scales, which can be fitted."""
        check_fitting(self, target)

    def quantize(self, matrix: Floats, target: Format, moments: Moments | None = None) -> Codes:
        """Codes for a ``(rows, columns)`` float32 matrix, which is all that it looks at."""
        self.check(target)
        assert isinstance(target, Int)
        blocks = _Blocks(matrix, target)
        scale, zero_point = Nearest(clip="mse").quantize(matrix, target)[1:3]
        best, least = (scale, zero_point), blocks.missed(scale, zero_point, self.norm)
        for iteration in range(self.iterations):
            scale, zero_point = blocks.fitted(scale, zero_point, self.norm, _BETA * _GROWTH**iteration)
            missed = blocks.missed(scale, zero_point, self.norm)
            better = missed < least
            least = np.where(better, missed, least)
            best = np.where(better, scale, best[0]), np.where(better, zero_point, best[1])
        return Codes(target.quantize(matrix, *best), *best)


class _Blocks:
    """Weights that share a scale each, ``(scale rows, scale groups, weights)``."""

    def __init__(self, matrix: Floats, target: Int) -> None:
        self.target = target
        self.weights = target.blocked(matrix)
        self.there = target.blocked(np.ones_like(matrix)) > 0

    def _steps(self, scale: Floats, zero_point: Integers) -> Doubles:
        """What the nearest codes stand for, in units of the scale."""
        rows = self.weights.reshape(len(self.weights), -1)
        codes = self.target.quantize(rows, scale, zero_point).reshape(self.weights.shape)
        return (codes - zero_point[..., None]).astype(np.float64)

    def missed(self, scale: Floats, zero_point: Integers, norm: float) -> Doubles:
        """The error of every block."""
        values = self._steps(scale, zero_point) * scale[..., None]
        return np.sum(np.abs(values - self.weights) ** norm, axis=2, where=self.there)

    def fitted(self, scale: Floats, zero_point: Integers, norm: float, beta: float) -> tuple[Floats, Integers]:
        """The grid nearest to the weights without what stands out, for the codes that they have on this one."""
        steps = self._steps(scale, zero_point)
        weights = self.weights / scale[..., None].astype(np.float64)
        weights -= _standing_out(weights - steps, norm, beta)
        zero = zero_point.astype(np.float64)
        if not self.target.symmetric:
            means = [np.mean(x, axis=2, where=self.there, keepdims=True) for x in (steps, weights)]
            slope = _slope(steps - means[0], weights - means[1], self.there)
            moved = np.rint(zero + (means[0] - means[1] / slope[..., None])[..., 0])
            moved = np.clip(moved, self.target.low, self.target.high)
            steps, zero = steps + (zero - moved)[..., None], moved
        unit = scale * _slope(steps, weights, self.there)
        most = np.finfo(np.float32).max
        low, high = (np.clip(unit * (end - zero), -most, most) for end in (self.target.low, self.target.high))
        return self.target.grid(low.astype(np.float32), high.astype(np.float32))


def _standing_out(error: Doubles, norm: float, beta: float) -> Doubles:
    """Generalized soft thresholding: zero for a small error, most of a large one."""
    size = np.maximum(np.abs(error), np.finfo(np.float32).tiny)
    return np.sign(error) * np.maximum(size - size ** (norm - 1) / beta, 0)


def _slope(steps: Doubles, weights: Doubles, there: NDArray[np.bool_]) -> Doubles:
    """By what to multiply the steps of each block so that they are nearest to its weights, 1 where nothing tells."""
    along = np.sum(steps * weights, axis=2, where=there)
    length = np.sum(steps * steps, axis=2, where=there)
    return np.divide(along, length, out=np.ones_like(along), where=(along > 0) & (length > 0))
