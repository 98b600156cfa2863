"""What stands in an ONNX graph for a parameter that a decision gives its values: arrays, by name, shape and type.

An exporter writes them, and a ``.whit`` gives them back from its decisions, so both ask here. No ``onnx`` package is
needed for that.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from whit.data import Array
from whit.formats import Float, Format, Int, nibbles
from whit.ledger import Assigned, Rounded, RoundedBias

__all__ = [
    "CODES",
    "LEVELS",
    "SCALE",
    "SUMS",
    "TYPES",
    "ZERO_POINT",
    "Initializer",
    "Source",
    "code_type",
    "initializers",
    "is_native",
]

Source = Rounded | RoundedBias | Assigned
"""A decision that gives a parameter its values."""

CODES, SCALE, ZERO_POINT, LEVELS, SUMS = ":codes", ":scale", ":zero_point", ":levels", ":int32"
"""What stands for a rounded parameter is named after it with these, the codes of a bias with the last."""

TYPES = {
    "float32": 1,
    "uint8": 2,
    "int8": 3,
    "uint16": 4,
    "int16": 5,
    "int32": 6,
    "int64": 7,
    "bool": 9,
    "float16": 10,
    "float64": 11,
}
"""``TensorProto.DataType`` by dtype; the next are those that NumPy does not have."""
BFLOAT16, FLOAT8E4M3FN, FLOAT8E5M2, UINT4, INT4 = 16, 17, 19, 21, 22

_SIGNED = {4: INT4, 8: TYPES["int8"], 16: TYPES["int16"]}
_UNSIGNED = {4: UINT4, 8: TYPES["uint8"], 16: TYPES["uint16"]}
"""Integers by their bits."""
_FLOATS = {(5, 10): TYPES["float16"], (8, 7): BFLOAT16, (4, 3): FLOAT8E4M3FN, (5, 2): FLOAT8E5M2}
"""Floats by exponent and mantissa bits."""
_STORED = {
    INT4: ("int8", -8, 7),
    TYPES["int8"]: ("int8", -128, 127),
    TYPES["int16"]: ("int16", -32768, 32767),
    UINT4: ("uint8", 0, 15),
    TYPES["uint8"]: ("uint8", 0, 255),
    TYPES["uint16"]: ("uint16", 0, 65535),
    FLOAT8E4M3FN: ("uint8", 0, 255),
    FLOAT8E5M2: ("uint8", 0, 255),
    TYPES["float16"]: ("uint16", 0, 65535),
    BFLOAT16: ("uint16", 0, 65535),
}
"""As which integers the patterns of codes are stored in each type, and the smallest and the largest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Initializer:
    """One array of an ONNX graph: its shape, its ONNX type and its little-endian bytes."""

    name: str
    shape: tuple[int, ...]
    data_type: int
    raw: bytes

    @classmethod
    def of(cls, name: str, values: Array, data_type: int | None = None) -> "Initializer":
        """An array as an initializer; 4-bit types go two to a byte, the first in the low half."""
        kind = TYPES[values.dtype.name] if data_type is None else data_type
        if kind in (UINT4, INT4):
            raw = nibbles(values)
        else:
            raw = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<")).tobytes()
        return cls(name=name, shape=values.shape, data_type=kind, raw=raw)


def is_native(target: Format) -> bool:
    """Whether ONNX has a type for the numbers of a format of floats."""
    return isinstance(target, Float) and (target.exponent, target.mantissa) in _FLOATS


def code_type(source: Rounded, *, whole_bytes: bool) -> int:
    """The narrowest ONNX type for the codes of a weight; with ``whole_bytes`` integers have at least 8 bits.

    Codes that have zero points go without them into a signed type that has room for that: kernels for weights whose
    zero is 0 are up to twice as fast.

    >>> from whit.quantizers import Nearest
    >>> weights = np.ones((1, 2), np.float32)
    >>> three = Int(bits=3)
    >>> source = Rounded.of("w", three, weights.shape, Nearest().quantize(weights, three))
    >>> code_type(source, whole_bytes=False) == INT4, code_type(source, whole_bytes=True) == TYPES["int8"]
    (True, True)
    """
    target = source.target
    if isinstance(target, Int):
        needed = target.bits
        least = 8 if whole_bytes else next(bits for bits in _SIGNED if needed <= bits)
        types = _SIGNED if target.symmetric or needed < least else _UNSIGNED
        return next(kind for bits, kind in types.items() if needed <= bits and bits >= 8 * whole_bytes)
    if isinstance(target, Float) and is_native(target):
        return _FLOATS[target.exponent, target.mantissa]
    patterns = target.table(source.codebook).size
    return next(kind for bits, kind in _UNSIGNED.items() if patterns <= 1 << bits)


def initializers(source: Source, kind: int) -> Iterator[Initializer]:
    """What stands in a graph for a source whose codes, or values, are there as an ONNX type; 0 says that they are not.

    Raises:
        ValueError: The source cannot stand there as this type.
    """
    name = source.parameter
    match source:
        case _ if kind == 0:
            return
        case Rounded(target=Int()):
            yield from _integers(source, kind)
        case Rounded():
            yield from _levels(source, kind)
        case RoundedBias() if kind == TYPES["int32"]:
            yield Initializer.of(f"{name}{SUMS}", source.codes)
            yield Initializer.of(f"{name}{SCALE}", source.scale if source.scale.size > 1 else source.scale.reshape(()))
        case RoundedBias() if kind == TYPES["float32"]:
            yield Initializer.of(name, source.values())
        case Assigned(values=values) if kind == TYPES[values.dtype.name]:
            yield Initializer.of(name, values)
        case _:
            raise ValueError(f"{type(source).__name__.lower()} values cannot be of ONNX type {kind}")


def _integers(source: Rounded, kind: int) -> Iterator[Initializer]:
    """Codes, scale and zero point, as DequantizeLinear reads them."""
    name, target = source.parameter, source.target
    assert isinstance(target, Int)  # initializers() asked
    if kind not in (*_SIGNED.values(), *_UNSIGNED.values()):
        raise _unfitting(target, kind)
    layout = {"tensor": (), "channel": (source.scale.size,), "group": source.scale.shape}[target.per]
    zero_point = source.zero_point
    if target.symmetric or kind in _UNSIGNED.values():
        yield _patterns(source, kind, target.low, target.high)
    else:  # without their zero points, so that zero is 0
        width = target.high - target.low
        codes = source.codes - target.spread(zero_point, source.codes.shape[1])
        source, zero_point = replace(source, codes=codes), np.zeros_like(zero_point)
        yield _patterns(source, kind, -width, width)
    yield Initializer.of(f"{name}{SCALE}", source.scale.reshape(layout))
    zero_point = zero_point.reshape(layout).astype(_STORED[kind][0])
    yield Initializer.of(f"{name}{ZERO_POINT}", zero_point, kind)


def _levels(source: Rounded, kind: int) -> Iterator[Initializer]:
    """Patterns of codes, the table of their levels unless ONNX has the format, and the scale where it is not 1."""
    name, target = source.parameter, source.target
    native = isinstance(target, Float) and _FLOATS.get((target.exponent, target.mantissa)) == kind
    if not native and kind not in _UNSIGNED.values():
        raise _unfitting(target, kind)
    table = target.table(source.codebook)
    yield _patterns(source, kind, 0, table.size - 1)
    if not native:
        yield Initializer.of(f"{name}{LEVELS}", table)
    if target.per == "group":
        yield Initializer.of(f"{name}{SCALE}", source.scale)
    elif (source.scale != 1).any():
        layout = [source.scale.size if axis == source.axis else 1 for axis in range(len(source.shape))]
        yield Initializer.of(f"{name}{SCALE}", source.scale.reshape(layout))


def _patterns(source: Rounded, kind: int, least: int, most: int) -> Initializer:
    """The patterns of codes, which lie from ``least`` to ``most``: a matrix with groups, else in the weight's shape."""
    dtype, low, high = _STORED[kind]
    if not low <= least <= most <= high:
        raise _unfitting(source.target, kind)
    patterns = source.target.patterns(source.codes).astype(dtype)
    patterns = patterns if source.target.per == "group" else source.shaped(patterns)
    return Initializer.of(f"{source.parameter}{CODES}", patterns, kind)


def _unfitting(target: Format, kind: int) -> ValueError:
    return ValueError(f"codes of {target} do not fit into ONNX type {kind}")
