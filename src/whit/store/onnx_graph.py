"""An ONNX graph without its weights, and the weights put back: neither needs the ``onnx`` package.

A protocol buffer's message followed by another of the same type is the two merged: repeated fields are appended. So a
graph gets its initializers back by appending a model that holds nothing but them.
"""

from collections.abc import Iterable

from whit.onnx.initializers import Initializer

__all__ = ["with_initializers"]

# Field numbers of onnx.proto: ModelProto.graph, GraphProto.initializer, TensorProto.dims, data_type, name, raw_data.
_GRAPH, _INITIALIZER = 7, 5
_DIMS, _DATA_TYPE, _NAME, _RAW_DATA = 1, 2, 8, 9
_VARINT, _BYTES = 0, 2


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
