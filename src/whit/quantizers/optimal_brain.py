"""Codes that do the least harm for their bits: the Optimal Brain Surgeon recursion, at a price for every bit."""

import os
from dataclasses import dataclass
from math import isfinite, log

import numpy as np

from whit import _core
from whit.errors import PlanError
from whit.formats import Codes, Floats, Format, Int, Integers, short
from whit.moments import Doubles, Moments
from whit.quantizers.base import Quantizer, check_fitting

__all__ = ["OptimalBrain"]

_COARSENESS = 1.8
"""Steps in units of the best for many small ones. Measured on ResNet-20 at 50,000 bytes of codes: 1 gives a divergence
from the original of 0.08, 1.6 and 2 of 0.04, since what a coarse step misses, later columns make up for."""
_FEWEST = 1e-4
"""No row counts for less than this share of the layer's most sensitive one."""
_SHRUNK = np.linspace(1.0, 0.3, 36)
"""Without a price: shares of the full range that are tried."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimalBrain(Quantizer):
    """Minimise the growth of the loss plus ``rate`` times the bits of the codec's own adaptive model.

    The growth is that of a quadratic model: the curvature of the loss by the layer's outputs times the second moment of
    its inputs. Weights are rounded column by column; what a column misses, those still to come make up for (Hassibi and
    Stork 1993; Frantar et al. 2023), and errors of earlier layers are made up for too, since a layer aims at what the
    original layer made of its own inputs. Weights that are exactly zero stay zero.

    With a ``rate``, a row's step follows from it too: where codes are many, the best step is the square root of
    ``6 * rate / (log(2) * curvature)``. The format's width only bounds the codes then, so leave it at 8 bits. Without
    one (``rate=0``) the grid is the format's own, with the range that minimises the error.

    Attributes:
        rate: Price of a bit, in units of the loss of a sample; 0 for plain rounding. One price for the whole network
            spends its bits where they save most. ``Quantize(target_bytes=...)`` finds it.
        damping: Added to the diagonal of the second moment, as a share of its mean; more trusts the samples less.
        sweeps: How often to go over a matrix, each time with the code lengths that the last left.

    >>> read = np.eye(3)[None]
    >>> moments = Moments(second=read, cross=read, mean=read[0, :1], original=read[0, :1], sensitivity=np.ones(1))
    >>> weights = np.array([[0.9, 0.1, -1.0]], np.float32)
    >>> OptimalBrain(rate=0.1).quantize(weights, Int(bits=8), moments).codes.tolist()
    [[1, 0, -1]]
    """

    rate: float = 0.0
    damping: float = 0.01
    sweeps: int = 2

    def __post_init__(self) -> None:
        for name, lowest in (("rate", "0 or more"), ("damping", "positive")):
            value = getattr(self, name)
            if not (isfinite(value) and value >= 0) or (name == "damping" and value == 0):
                raise PlanError(f"OptimalBrain({name}={value}): it is {lowest}")
        if self.sweeps < 1:
            raise PlanError(f"OptimalBrain(sweeps={self.sweeps}): go over a matrix at least once")

    @property
    def observes(self) -> bool:
        """It does."""
        return True

    @property
    def short(self) -> bool:
        """With a price for bits, numbers beside the codes are kept to 8 significant bits."""
        return self.rate > 0

    def check(self, target: Format) -> None:
        """Raise ``PlanError`` unless the format is integers with a zero and float32 scales, as the recursion needs."""
        check_fitting(self, target)

    def quantize(self, matrix: Floats, target: Format, moments: Moments | None = None) -> Codes:
        """Codes for a ``(rows, columns)`` float32 matrix, from the moments of what it is multiplied with.

        Raises:
            PlanError: There are no moments, because whoever asks cannot run the network, or the format is no grid of
                integers with a zero and float32 scales.
        """
        if moments is None:
            raise PlanError("OptimalBrain needs to see what a layer reads, which is not known here; use Nearest()")
        self.check(target)
        assert isinstance(target, Int)
        columns = matrix.shape[1]
        kept = matrix != 0
        damped = moments.damped(self.damping)
        wanted = np.where(kept, moments.wanted(matrix, damped), 0).astype(np.float32)
        rows = np.maximum(moments.sensitivity, _FEWEST * moments.sensitivity.max(initial=0.0))
        rows = np.where(rows > 0, rows, 1.0)
        scale, zero_point = self._grid(wanted, target, damped, rows)
        codes, _, _ = _core.optimal_brain(
            wanted,
            damped,
            rows,
            scale,
            zero_point,
            target.block(columns),
            target.low,
            target.high,
            self.rate,
            0.0,
            mask=kept.view(np.uint8),
            sweeps=self.sweeps,
            threads=os.cpu_count() or 1,
        )
        return Codes(codes, scale, zero_point)

    def _grid(self, wanted: Floats, target: Int, damped: Doubles, rows: Doubles) -> tuple[Floats, Integers]:
        blocks = target.blocked(wanted)
        low, high = blocks.min(axis=2), blocks.max(axis=2)
        least, zero_point = target.grid(low, high)
        if self.rate == 0:
            return _closest(wanted, target, damped, low, high)
        # The curvature along one column, given that those to come make up for it: a pivot of the recursion.
        pivots = [np.linalg.cholesky(regular[::-1, ::-1]).diagonal() for regular in damped]
        curvature = rows * np.repeat([np.exp(2 * np.log(pivot).mean()) for pivot in pivots], len(rows) // len(damped))
        step = _COARSENESS * np.sqrt(6 * self.rate / (log(2) * curvature))[:, None]
        if target.per == "tensor":
            step = np.exp(np.log(step).mean(axis=0, keepdims=True))
        # A step beyond four times the largest weight makes everything zero, and so does that one.
        step = np.minimum(step, 4 * np.maximum(np.maximum(-low, high), np.finfo(np.float32).tiny))
        scale = short(np.maximum(step, least * (1 + 1 / 256)).astype(np.float32))
        if not target.symmetric:
            zero_point = np.clip(np.rint(-np.minimum(low, 0) / scale), target.low, target.high).astype(np.int32)
        return scale, zero_point


def _closest(wanted: Floats, target: Int, damped: Doubles, low: Floats, high: Floats) -> tuple[Floats, Integers]:
    """Of grids that cover less and less of the weights, for every block the one with the least weighted error."""
    diagonal = np.repeat(np.stack([regular.diagonal() for regular in damped]), len(wanted) // len(damped), axis=0)
    weight = target.blocked(diagonal.astype(np.float32))
    best = np.full(low.shape, np.inf)
    found = target.grid(low, high)
    scale, zero_point = found[0].copy(), found[1].copy()
    for share in _SHRUNK:
        tried = target.grid((low * share).astype(np.float32), (high * share).astype(np.float32))
        error = wanted - target.dequantize(target.quantize(wanted, *tried), *tried)
        loss = (target.blocked(error).astype(np.float64) ** 2 * weight).sum(axis=2, dtype=np.float64)
        better = loss < best
        best = np.where(better, loss, best)
        scale, zero_point = np.where(better, tried[0], scale), np.where(better, tried[1], zero_point)
    return scale.astype(np.float32), zero_point.astype(np.int32)
