"""What every number format answers, and what its codes are."""

from abc import abstractmethod
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from whit.errors import PlanError
from whit.formats.scales import Floats, ScaleFormat, fitting_scales

__all__ = [
    "Codes",
    "Floats",
    "Format",
    "Integers",
    "Layout",
    "bounds_between",
    "check_layout",
    "is_short",
    "nibbles",
    "short",
]

Integers = NDArray[np.int32]
Layout = Literal["tensor", "channel", "group"]
_Number = TypeVar("_Number", np.float32, np.int32)


class Codes(NamedTuple):
    """A weight matrix as integers: ``weights ~= (codes - zero_point) * scale``, or ``levels[codes] * scale``.

    Attributes:
        codes: ``(rows, columns)``, int32.
        scale: ``(1 or rows, groups)``, float32, positive.
        zero_point: Same shape as ``scale``, int32; 0 but for asymmetric integers.
        codebook: ``(levels,)``, float32, rising: what the codes 0, 1, ... of a ``Codebook`` stand for; else None.
    """

    codes: Integers
    scale: Floats
    zero_point: Integers
    codebook: Floats | None = None


class Format:
    """A number format for weights: ``Int``, ``Float`` or ``Codebook``.

    A file must be readable without code of others, so these are all there are; a new one is a file beside them.
    What is here holds for formats whose levels are symmetric about zero; the others say where they differ.

    Attributes:
        per: What shares one scale: the whole ``"tensor"``, an output ``"channel"`` (a row of the weight matrix), or
            a ``"group"`` of neighbouring weights in a row.
        group_size: Weights in a group; needed with ``per="group"`` and only there.
    """

    __slots__ = ()
    per: Layout
    group_size: int | None

    @property
    @abstractmethod
    def name(self) -> str:
        """For people: ``int4``, ``fp8 e4m3``."""

    @property
    @abstractmethod
    def low(self) -> int:
        """The smallest code."""

    @property
    @abstractmethod
    def high(self) -> int:
        """The largest code."""

    @property
    def has_zero(self) -> bool:
        """Whether a weight can be zero whatever the scale, so that a mask can hold."""
        return True

    @property
    def scale_format(self) -> ScaleFormat:
        """What a scale is stored as."""
        return "float32"

    @abstractmethod
    def levels(self, codebook: Floats | None = None) -> Floats:
        """What the codes stand for at scale 1 and zero point 0, rising, float32."""

    @abstractmethod
    def patterns(self, codes: Integers) -> Integers:
        """Codes as the integers that stand in an ONNX file: the bits of a float, else the codes themselves."""

    def table(self, codebook: Floats | None = None) -> Floats:
        """What each pattern from 0 on stands for at scale 1, float32; 0 for patterns of no code."""
        codes = np.arange(self.low, self.high + 1, dtype=np.int32)[: self.levels(codebook).size]
        patterns = self.patterns(codes)
        table = np.zeros(int(patterns.max()) + 1, np.float32)
        table[patterns] = self.levels(codebook)
        return table

    def are_codes(self, integers: Integers) -> bool:
        """Whether integers are codes of this format."""
        return not integers.size or self.low <= int(integers.min()) <= int(integers.max()) <= self.high

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
        largest = np.maximum(np.maximum(-low, high), 0).astype(np.float32)
        levels = self.levels()
        scale = fitting_scales(largest, float(levels[-1]), float(levels[levels > 0][0]), self.scale_format)
        return scale, np.zeros(scale.shape, np.int32)

    def quantize(self, matrix: Floats, scale: Floats, zero_point: Integers, codebook: Floats | None = None) -> Integers:
        """Nearest codes of a weight matrix; where two are equally near, the even one.

        Args:
            matrix: ``(rows, columns)``, float32, finite.
            scale: ``(1 or rows, groups)``, float32, positive.
            zero_point: Same shape, int32.
            codebook: Of a ``Codebook``.

        Returns:
            Codes ``(rows, columns)``, int32, from ``low`` to ``high``.

        Raises:
            ValueError: A weight is not finite.
        """
        if not np.isfinite(matrix).all():
            bad = int(np.isnan(matrix).sum()), int(np.isinf(matrix).sum())
            raise ValueError(f"weights of shape {matrix.shape} hold {bad[0]} NaN and {bad[1]} infinite values")
        levels = self.levels(codebook)
        with np.errstate(over="ignore"):  # what overflows lies beyond the last level, and gets it
            quotients = matrix / self.spread(scale, matrix.shape[1])
        return (np.searchsorted(bounds_between(levels, self.low), quotients, "right") + self.low).astype(np.int32)

    def dequantize(
        self, codes: Integers, scale: Floats, zero_point: Integers, codebook: Floats | None = None
    ) -> Floats:
        """What codes stand for, ``(rows, columns)``, float32: an exact level times a scale, rounded once."""
        with np.errstate(over="ignore"):  # no quantizer chooses such scales, but a stranger's file may hold them
            return self.levels(codebook)[codes - self.low] * self.spread(scale, codes.shape[1])

    def spread(self, groups: NDArray[_Number], columns: int) -> NDArray[_Number]:
        """Scales or zero points of groups for every column, or for all where a row has one group."""
        return groups if groups.shape[1] == 1 else np.repeat(groups, self.block(columns), axis=1)[:, :columns]


def bounds_between(levels: Floats, low: int) -> Floats:
    """Where the nearest of rising levels changes, so that every framework rounds alike.

    Args:
        levels: ``(n,)``, float32.
        low: Code of the first level.

    Returns:
        ``(n - 1,)``, float32: ``x`` gets the code ``low + np.searchsorted(bounds, x, "right")``. In the middle between
        two levels that is the even code.

    >>> bounds = bounds_between(np.array([-1, 0, 1, 2], np.float32), low=-1)
    >>> (np.searchsorted(bounds, [-0.5, 0.5, 1.5], "right") - 1).tolist()
    [0, 0, 2]
    """
    middle = (levels[:-1].astype(np.float64) + levels[1:]) / 2
    bounds = middle.astype(np.float32)
    stays = (np.arange(low, low + bounds.size) % 2 == 0) & (bounds == middle)
    return np.where((bounds < middle) | stays, np.nextafter(bounds, np.float32(np.inf)), bounds)


def check_layout(target: Format) -> None:
    """Raise ``PlanError`` unless what shares a scale is well said."""
    kind, per, size = type(target).__name__, target.per, target.group_size
    if per not in ("tensor", "channel", "group"):
        raise PlanError(f'{kind}(per={per!r}): choose "tensor", "channel" or "group"')
    if (per == "group") != (size is not None):
        raise PlanError(f'{kind}(per={per!r}, group_size={size}): a group size goes with per="group", and only with it')
    if size is not None and size < 1:
        raise PlanError(f"{kind}(group_size={size}): a group holds at least one weight")


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
