"""Integers of a few bits."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from whit import _core
from whit.errors import PlanError
from whit.formats.base import Floats, Format, Integers, Layout, check_layout
from whit.formats.scales import ScaleFormat, bounded, fitting_scales

__all__ = ["Int"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Int(Format):
    """Integers of 1 to 16 bits: ``weights ~= (codes - zero_point) * scale``.

    Symmetric codes are signed and have no lowest value (8 bits: -127 to 127), so that zero and sign are exact and
    ``zero_point`` is 0. Asymmetric codes are unsigned (8 bits: 0 to 255).

    Two symmetric bits are ternary weights, -1, 0 and 1 (Li et al. 2016); ``Nearest(clip="mse")`` finds their scale. One
    symmetric bit is binary weights, -1 and 1 (Rastegari et al. 2016): it has no zero, so that a mask cannot hold.

    Attributes:
        bits: Width of a code, 1 to 16.
        symmetric: Whether the grid is centred on zero.
        per: What shares one scale: the whole ``"tensor"``, an output ``"channel"`` (a row of the weight matrix), or
            a ``"group"`` of neighbouring weights in a row.
        group_size: Weights in a group; needed with ``per="group"`` and only there.
        reduce_range: Give up one bit of the range but keep the width, so that 8-bit products cannot saturate the
            16-bit sums of CPUs without VNNI (8 bits symmetric: -64 to 64).
        scale: What a scale is: ``"float32"``; ``"e8m0"``, a power of two (MX); or ``"e4m3"``, an 8-bit float times a
            float32 for the tensor.

    >>> Int(bits=4).low, Int(bits=4).high, Int(bits=4, symmetric=False).high
    (-7, 7, 15)
    """

    bits: int
    symmetric: bool = True
    per: Layout = "channel"
    group_size: int | None = None
    reduce_range: bool = False
    scale: Literal["float32", "e8m0", "e4m3"] = "float32"

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 16:
            raise PlanError(f"Int(bits={self.bits}): integers have 1 to 16 bits; choose one of these")
        check_layout(self)
        if self.reduce_range and self.bits < 3:
            raise PlanError(f"Int(bits={self.bits}, reduce_range=True) would leave a single bit; use bits=3 or more")
        if self.scale not in ("float32", "e8m0", "e4m3"):
            raise PlanError(f'Int(scale={self.scale!r}): choose "float32", "e8m0" or "e4m3"')
        if self.scale != "float32" and (self.reduce_range or not self.symmetric):
            raise PlanError(
                f'Int(scale="{self.scale}", symmetric={self.symmetric}, reduce_range={self.reduce_range}): such scales '
                'go with the whole symmetric range; drop the other settings or write scale="float32"'
            )

    @property
    def name(self) -> str:
        """For people: ``int4``, ``uint8``."""
        return f"{'int' if self.symmetric else 'uint'}{self.bits}"

    @property
    def low(self) -> int:
        """The smallest code."""
        return -self.high if self.symmetric else 0

    @property
    def high(self) -> int:
        """The largest code."""
        if self.symmetric:
            return 1 << (self.bits - 2) if self.reduce_range else max((1 << (self.bits - 1)) - 1, 1)
        return (1 << (self.bits - self.reduce_range)) - 1

    @property
    def has_zero(self) -> bool:
        """Whether a weight can be zero: not with one symmetric bit."""
        return not (self.bits == 1 and self.symmetric)

    @property
    def scale_format(self) -> ScaleFormat:
        """What a scale is stored as."""
        return self.scale

    def levels(self, codebook: Floats | None = None) -> Floats:
        """The codes themselves, float32."""
        return np.arange(self.low, self.high + 1, 1 if self.has_zero else 2).astype(np.float32)

    def patterns(self, codes: Integers) -> Integers:
        """The codes themselves."""
        return codes

    def are_codes(self, integers: Integers) -> bool:
        """Whether integers are codes of this format."""
        return Format.are_codes(self, integers) and (self.has_zero or bool(integers.all()))

    def grid(self, low: Floats, high: Floats) -> tuple[Floats, Integers]:
        """As ``Format.grid``; the zero point of a symmetric grid is 0, another is where ``low`` is the lowest code."""
        low = np.minimum(low, 0).astype(np.float32)
        high = np.maximum(high, 0).astype(np.float32)
        if self.symmetric:
            scale = fitting_scales(np.maximum(-low, high), self.high, 1.0, self.scale)
            return scale, np.zeros(scale.shape, np.int32)
        scale = (high / np.float32(self.high) - low / np.float32(self.high)).astype(np.float32)
        safe = np.maximum(scale, np.finfo(np.float32).tiny)
        zero_point = np.clip(np.rint(-low / safe), self.low, self.high).astype(np.int32)
        empty = (low == 0) & (high == 0)
        scale = bounded(scale, np.maximum(zero_point - self.low, self.high - zero_point), empty)
        return scale, np.where(empty, 0, zero_point).astype(np.int32)

    def quantize(self, matrix: Floats, scale: Floats, zero_point: Integers, codebook: Floats | None = None) -> Integers:
        """Nearest codes of a weight matrix; where two are equally near, the even one, and 1 of -1 and 1.

        Args:
            matrix: ``(rows, columns)``, float32, finite.
            scale: ``(1 or rows, groups)``, float32, positive.
            zero_point: Same shape, int32.
            codebook: None.

        Returns:
            Codes ``(rows, columns)``, int32, from ``low`` to ``high``.

        Raises:
            ValueError: A weight is not finite, or a scale not positive.
        """
        matrix = np.ascontiguousarray(matrix, np.float32)
        block = self.block(matrix.shape[1])
        codes = _core.quantize(matrix, scale, zero_point, block, self.low, self.high)
        return codes if self.has_zero else np.where(matrix >= 0, np.int32(1), np.int32(-1))

    def dequantize(
        self, codes: Integers, scale: Floats, zero_point: Integers, codebook: Floats | None = None
    ) -> Floats:
        """``(codes - zero_point) * scale``, ``(rows, columns)``, float32."""
        codes = np.ascontiguousarray(codes, np.int32)
        return _core.dequantize(codes, scale, zero_point, self.block(codes.shape[1]))
