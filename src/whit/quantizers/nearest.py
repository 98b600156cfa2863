"""Round to nearest on a min-max grid."""

from dataclasses import dataclass

from whit.formats import Codes, Floats, Int
from whit.moments import Moments
from whit.quantizers.base import Quantizer

__all__ = ["Nearest"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Nearest(Quantizer):
    """Every weight takes the nearest code of a grid that covers all weights sharing its scale.

    The error of a weight is at most half a step: ``abs(weight - (code - zero_point) * scale) <= scale / 2``.
    """

    def quantize(self, matrix: Floats, target: Int, moments: Moments | None = None) -> Codes:
        """Codes for a ``(rows, columns)`` float32 matrix, which is all that it looks at."""
        blocks = target.blocked(matrix)
        scale, zero_point = target.grid(blocks.min(axis=2), blocks.max(axis=2))
        return Codes(target.quantize(matrix, scale, zero_point), scale, zero_point)
