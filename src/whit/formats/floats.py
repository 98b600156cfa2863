"""Floating-point numbers of a few bits."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from whit.errors import PlanError
from whit.formats.base import Floats, Format, Integers, Layout, check_layout
from whit.formats.minifloat import magnitudes
from whit.formats.scales import ScaleFormat

__all__ = ["Float"]

_NAMES = {(5, 10): "fp16", (8, 7): "bf16"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Float(Format):
    """Floating-point numbers of a sign, an exponent and a mantissa: ``weights ~= levels[codes] * scale``.

    A code is the number's bits without the sign, negative for a negative number, so that codes rise with what they
    stand for and 0 stands for 0. There is no negative zero. Rounding is to nearest, ties to the even mantissa; what
    lies beyond the largest number gets the largest number, never infinity. ``whit.formats`` names the usual ones
    (``FP8_E4M3``, ``BF16``, ``MXFP4``, ``NVFP4``, ...).

    In an ``.onnx`` file codes of fp16, bf16, e4m3 and e5m2 are ONNX's own types behind a cast to float32. ONNX Runtime
    has no kernels for the others, so their bits are places in a table of levels (``Gather``), one byte a weight or half
    a byte for 4 bits and fewer. The weights are the same float32 numbers in each case, made once when a session opens.

    Attributes:
        exponent: Bits of the exponent, 2 to 8. Its bias and its special values are those of the OCP formats of less
            than 8 bits (no infinity, no NaN), of e4m3 (no infinity), and else of IEEE 754.
        mantissa: Bits of the mantissa, 0 to 10; with sign and exponent 3 to 16 bits.
        per: What shares one scale: the whole ``"tensor"``, an output ``"channel"`` (a row of the weight matrix), or
            a ``"group"`` of neighbouring weights in a row.
        group_size: Weights in a group; needed with ``per="group"`` and only there.
        scale: What a scale is: ``"float32"``; ``"e8m0"``, a power of two (MX); ``"e4m3"``, an 8-bit float times a
            float32 for the tensor (NVFP4); or ``"one"``, none at all, with ``per="tensor"``.

    >>> Float(exponent=4, mantissa=3).levels()[-1], Float(exponent=2, mantissa=1).levels()[8:].tolist()
    (np.float32(448.0), [0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
    """

    exponent: int
    mantissa: int
    per: Layout = "channel"
    group_size: int | None = None
    scale: ScaleFormat = "float32"

    def __post_init__(self) -> None:
        given = f"Float(exponent={self.exponent}, mantissa={self.mantissa})"
        if not (2 <= self.exponent <= 8 and 0 <= self.mantissa <= 10 and self.bits <= 16):
            raise PlanError(
                f"{given}: exponents have 2 to 8 bits, mantissas 0 to 10, and both at most 15; "
                "the nearest common ones are exponent=4, mantissa=3 (fp8) and exponent=5, mantissa=10 (fp16)"
            )
        check_layout(self)
        if self.scale not in ("float32", "e8m0", "e4m3", "one"):
            raise PlanError(f'Float(scale={self.scale!r}): choose "float32", "e8m0", "e4m3" or "one"')
        if self.scale == "one" and self.per != "tensor":
            raise PlanError(f'Float(scale="one", per={self.per!r}): the scale 1 is that of the whole per="tensor"')
        if self.exponent == 8 and self.scale != "one":
            raise PlanError(f'{given} reaches as far as float32, so it needs no scale; write scale="one", per="tensor"')

    @property
    def bits(self) -> int:
        """Width of a code, its sign included."""
        return 1 + self.exponent + self.mantissa

    @property
    def name(self) -> str:
        """For people: ``fp8 e4m3``."""
        pair = (self.exponent, self.mantissa)
        return _NAMES.get(pair, f"fp{self.bits} e{self.exponent}m{self.mantissa}")

    @property
    def low(self) -> int:
        """The smallest code."""
        return -self.high

    @property
    def high(self) -> int:
        """The largest code."""
        return magnitudes(self.exponent, self.mantissa).size - 1

    @property
    def scale_format(self) -> ScaleFormat:
        """What a scale is stored as."""
        return self.scale

    def levels(self, codebook: Floats | None = None) -> Floats:
        """What the codes from ``low`` to ``high`` stand for, float32."""
        return _levels(self.exponent, self.mantissa)

    def patterns(self, codes: Integers) -> Integers:
        """The bits: the sign above exponent and mantissa."""
        return np.where(codes < 0, (1 << (self.bits - 1)) - codes, codes).astype(np.int32)


@cache
def _levels(exponent: int, mantissa: int) -> Floats:
    positive = magnitudes(exponent, mantissa)
    levels = np.concatenate([-positive[:0:-1], positive])
    levels.setflags(write=False)
    return levels
