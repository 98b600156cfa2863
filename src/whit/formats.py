"""Number formats: which codes there are, and which real number each stands for.

``weights ~= (codes - zero_point) * scale``: a format fixes the codes and how finely scales are laid out; a range
(``whit.ranges``) and a quantizer (``whit.quantizers``) choose the rest.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from whit import _core
from whit.errors import PlanError

__all__ = ["Codes", "Floats", "Int", "Integers", "is_short", "nibbles", "short"]

Floats = NDArray[np.float32]
Integers = NDArray[np.int32]

_SMALLEST_SCALE = np.float32(np.finfo(np.float32).tiny)


class Codes(NamedTuple):
    """A weight matrix as integers: ``weights ~= (codes - zero_point) * scale``.

    Attributes:
        codes: ``(rows, columns)``, int32.
        scale: ``(1 or rows, groups)``, float32, positive.
        zero_point: Same shape as ``scale``, int32.
    """

    codes: Integers
    scale: Floats
    zero_point: Integers


@dataclass(frozen=True, kw_only=True, slots=True)
class Int:
    """Integers of 2 to 8 bits.

    Symmetric codes are signed and have no lowest value (8 bits: -127 to 127), so that zero and sign are exact and
    ``zero_point`` is 0. Asymmetric codes are unsigned (8 bits: 0 to 255).

    Attributes:
        bits: Width of a code, 2 to 8.
        symmetric: Whether the grid is centred on zero.
        per: What shares one scale: the whole ``"tensor"``, an output ``"channel"`` (a row of the weight matrix), or
            a ``"group"`` of neighbouring weights in a row.
        group_size: Weights in a group; needed with ``per="group"`` and only there.
        reduce_range: Give up one bit of the range but keep the width, so that 8-bit products cannot saturate the
            16-bit sums of CPUs without VNNI (8 bits symmetric: -64 to 64).

    >>> Int(bits=4).low, Int(bits=4).high, Int(bits=4, symmetric=False).high
    (-7, 7, 15)
    """

    bits: int
    symmetric: bool = True
    per: Literal["tensor", "channel", "group"] = "channel"
    group_size: int | None = None
    reduce_range: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise PlanError(f"Int(bits={self.bits}): integers have 2 to 8 bits; choose one of these")
        if self.per not in ("tensor", "channel", "group"):
            raise PlanError(f'Int(per={self.per!r}): choose "tensor", "channel" or "group"')
        if (self.per == "group") != (self.group_size is not None):
            raise PlanError(
                f"Int(per={self.per!r}, group_size={self.group_size}): "
                'a group size goes with per="group", and only with it'
            )
        if self.group_size is not None and self.group_size < 1:
            raise PlanError(f"Int(group_size={self.group_size}): a group holds at least one weight")
        if self.reduce_range and self.bits < 3:
            raise PlanError("Int(bits=2, reduce_range=True) would leave a single bit; use bits=3 or more")

    @property
    def low(self) -> int:
        """The smallest code."""
        return -self.high if self.symmetric else 0

    @property
    def high(self) -> int:
        """The largest code."""
        if self.symmetric:
            return 1 << (self.bits - 2) if self.reduce_range else (1 << (self.bits - 1)) - 1
        return (1 << (self.bits - self.reduce_range)) - 1

    def block(self, columns: int) -> int:
        """How many neighbouring weights of a row share a scale, for rows of ``columns`` weights."""
        return columns if self.group_size is None else min(self.group_size, columns)

    def blocked(self, matrix: Floats) -> Floats:
        """The matrix as ``(scale rows, scale groups, weights)``, the last group filled up with zeros.

        Zeros widen no range, since every range that a grid covers includes zero.
        """
        rows, columns = matrix.shape
        if self.per == "tensor":
            return matrix.reshape(1, 1, -1)
        block = self.block(columns)
        missing = -columns % block
        padded = np.pad(matrix, ((0, 0), (0, missing))) if missing else matrix
        return padded.reshape(rows, -1, block)

    def grid(self, low: Floats, high: Floats) -> tuple[Floats, Integers]:
        """Scale and zero point of the grid that covers ``low`` to ``high`` and represents zero exactly.

        Args:
            low: Smallest values to cover, any shape, float32.
            high: Largest values to cover, same shape.

        Returns:
            ``scale`` (float32, positive and not denormal) and ``zero_point`` (int32), of the shape of ``low``. Where
            there is nothing but zero to cover, the scale is 1. Every number of the grid is finite.
        """
        low = np.minimum(low, 0).astype(np.float32)
        high = np.maximum(high, 0).astype(np.float32)
        if self.symmetric:
            scale = np.maximum(-low, high) / np.float32(self.high)
            zero_point = np.zeros(scale.shape, np.int32)
        else:
            scale = high / np.float32(self.high) - low / np.float32(self.high)
            safe = np.maximum(scale, _SMALLEST_SCALE)
            zero_point = np.clip(np.rint(-low / safe), self.low, self.high).astype(np.int32)
        # What stands for a value near the largest float32 must not be infinite itself.
        steps = np.maximum(zero_point - self.low, self.high - zero_point).astype(np.float32)
        scale = np.minimum(scale, np.nextafter(np.finfo(np.float32).max / steps, np.float32(0)))
        empty = (low == 0) & (high == 0)
        scale = np.where(empty, np.float32(1), np.maximum(scale, _SMALLEST_SCALE)).astype(np.float32)
        return scale, np.where(empty, 0, zero_point).astype(np.int32)

    def quantize(self, matrix: Floats, scale: Floats, zero_point: Integers) -> Integers:
        """Nearest codes of a weight matrix.

        Args:
            matrix: ``(rows, columns)``, float32, finite.
            scale: ``(1 or rows, groups)``, float32, positive.
            zero_point: Same shape, int32.

        Returns:
            Codes ``(rows, columns)``, int32, from ``low`` to ``high``.
        """
        matrix = np.ascontiguousarray(matrix, np.float32)
        block = self.block(matrix.shape[1])
        return _core.quantize(matrix, scale, zero_point, block, self.low, self.high)

    def dequantize(self, codes: Integers, scale: Floats, zero_point: Integers) -> Floats:
        """``(codes - zero_point) * scale``, ``(rows, columns)``, float32."""
        codes = np.ascontiguousarray(codes, np.int32)
        return _core.dequantize(codes, scale, zero_point, self.block(codes.shape[1]))


def short(values: Floats) -> Floats:
    """Numbers rounded to 8 significant bits, as in bfloat16, so that they can be stored in few bytes.

    >>> short(np.array([1.0, 1.001, -3.1415926], np.float32)).tolist()
    [1.0, 1.0, -3.140625]
    """
    fraction, exponent = np.frexp(np.asarray(values, np.float32))
    return np.ldexp(np.rint(fraction * np.float32(256)) / np.float32(256), exponent).astype(np.float32)


def is_short(values: Floats) -> bool:
    """Whether numbers have no more than 8 significant bits."""
    return bool(np.array_equal(values, short(values)))


def nibbles(codes: NDArray[np.integer[Any]]) -> bytes:
    """4-bit codes two to a byte, the first in the low half, as ONNX stores INT4 and UINT4.

    >>> nibbles(np.array([1, -1, 2])).hex()
    'f102'
    """
    flat = codes.reshape(-1).astype(np.int32) & 15
    even = np.append(flat, 0) if flat.size % 2 else flat
    return (even[::2] | even[1::2] << 4).astype(np.uint8).tobytes()
