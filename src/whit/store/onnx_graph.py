"""An ONNX graph without its weights, and the weights put back: neither needs the ``onnx`` package.

A protocol buffer's message followed by another of the same type is the two merged: repeated fields are appended. So a
graph gets its initializers back by appending a model that holds nothing but them.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from whit.data import Array
from whit.formats import nibbles

__all__ = ["CODES", "FLOATS", "INTEGERS", "TYPES", "UINT4", "Initializer", "with_initializers"]

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
"""``TensorProto.DataType`` by dtype; 4-bit types are given as their own number."""
BFLOAT16, FLOAT8E4M3FN, FLOAT8E5M2, UINT4, INT4 = 16, 17, 19, 21, 22
CODES: dict[int, tuple[str, int, int]] = {
    TYPES["uint8"]: ("uint8", 0, 255),
    TYPES["int8"]: ("int8", -128, 127),
    TYPES["uint16"]: ("uint16", 0, 65535),
    TYPES["int16"]: ("int16", -32768, 32767),
    TYPES["float16"]: ("uint16", 0, 65535),
    BFLOAT16: ("uint16", 0, 65535),
    FLOAT8E4M3FN: ("uint8", 0, 255),
    FLOAT8E5M2: ("uint8", 0, 255),
    UINT4: ("uint8", 0, 15),
    INT4: ("int8", -8, 7),
}
"""The types in which patterns of codes are stored: the integers that have their bits, and the smallest and largest."""
INTEGERS = {TYPES["uint8"], TYPES["int8"], TYPES["uint16"], TYPES["int16"], UINT4, INT4}
"""Those of them whose values are the codes themselves."""
FLOATS = {(5, 10): TYPES["float16"], (8, 7): BFLOAT16, (4, 3): FLOAT8E4M3FN, (5, 2): FLOAT8E5M2}
"""Those of them that are floats, by exponent and mantissa bits."""

# Field numbers of onnx.proto: ModelProto.graph, GraphProto.initializer, TensorProto.dims, data_type, name, raw_data.
_GRAPH, _INITIALIZER = 7, 5
_DIMS, _DATA_TYPE, _NAME, _RAW_DATA = 1, 2, 8, 9
_VARINT, _BYTES = 0, 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Initializer:
    """One weight of an ONNX graph: its shape, its ONNX type and its little-endian bytes."""

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


def with_initializers(graph: bytes, initializers: Iterable[Initializer]) -> bytes:
    """A serialized model with initializers appended to its graph."""
    body = b"".join(_field(_INITIALIZER, _tensor(item)) for item in initializers)
    return graph + _field(_GRAPH, body)


def _tensor(item: Initializer) -> bytes:
    dims = b"".join(_tag(_DIMS, _VARINT) + _varint(size) for size in item.shape)
    kind = _tag(_DATA_TYPE, _VARINT) + _varint(item.data_type)
    return dims + kind + _field(_NAME, item.name.encode()) + _field(_RAW_DATA, item.raw)


def _field(number: int, content: bytes) -> bytes:
    return _tag(number, _BYTES) + _varint(len(content)) + content


def _tag(number: int, wire: int) -> bytes:
    return _varint(number << 3 | wire)


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    parts.append(value)
    return bytes(parts)
