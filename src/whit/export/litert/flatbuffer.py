"""A ``.tflite`` file while it is made: its tensors, its operators, and the flatbuffer that holds them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from whit.data import Array
from whit.export.exporter import package
from whit.formats import nibbles

__all__ = ["Flatbuffer", "Grid"]

_TYPES = {"float32": "FLOAT32", "int4": "INT4", "int8": "INT8", "int32": "INT32", "int64": "INT64", "bool": "BOOL"}
_VERSIONS = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4, "DEQUANTIZE": 5, "RESHAPE": 1, "QUANTIZE": 1}
"""Of operators that read bytes, as the schema's history has them; of all others it is 2."""
_FLOATS = {"TRANSPOSE_CONV": 3}
"""Likewise of those that read none; of all others it is 1."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Grid:
    """What codes stand for: ``(codes - zero_point) * scale``, one scale a tensor, or one a place on an axis."""

    scale: Array
    zero_point: Array
    axis: int = 0

    @classmethod
    def of(cls, scale: Array, zero_point: Array | int = 0, axis: int = 0) -> "Grid":
        """A grid of scales ``(n,)`` or ``()``, and as many zero points or one."""
        scale = np.atleast_1d(scale)
        return cls(scale=scale, zero_point=np.broadcast_to(zero_point, scale.shape).astype(np.int64), axis=axis)


class Flatbuffer:
    """Tensors are known by their number. The schema comes with the runtime's package."""

    def __init__(self) -> None:
        """A file with nothing in it."""
        self.schema = package("ai_edge_litert.schema_py_generated", "litert")
        self.buffers: list[Any] = [self.schema.BufferT()]
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.codes: dict[tuple[str, int], int] = {}
        self.constants: dict[tuple[Any, ...], int] = {}

    def tensor(self, shape: Sequence[int], dtype: str, grid: Grid | None = None, name: str = "") -> int:
        """A tensor that an operator makes, or an input; ``shape`` is that for one sample."""
        schema = self.schema
        quantization = None
        if grid is not None:
            quantization = schema.QuantizationParametersT(
                scale=grid.scale, zeroPoint=grid.zero_point, quantizedDimension=grid.axis
            )
        kind = getattr(schema.TensorType, _TYPES[dtype])
        self.tensors.append(schema.TensorT(list(shape), kind, 0, name or None, quantization, hasRank=True))
        return len(self.tensors) - 1

    def constant(self, values: Array, grid: Grid | None = None) -> int:
        """A tensor that the file holds; without a grid, equal ones are one. Weights of 4 bits go two to a byte."""
        raw = np.ascontiguousarray(values).tobytes()
        key = (values.dtype, values.shape, raw)
        if grid is None and key in self.constants:
            return self.constants[key]
        halves = grid is not None and values.ndim > 1 and values.dtype == np.int8 and np.abs(values).max(initial=0) < 8
        place = self.tensor(values.shape, "int4" if halves else values.dtype.name, grid)
        self.tensors[place].buffer = len(self.buffers)
        self.buffers.append(self.schema.BufferT(np.frombuffer(nibbles(values) if halves else raw, np.uint8)))
        if grid is None:
            self.constants[key] = place
        return place

    def operator(self, kind: str, inputs: Sequence[int], output: int, options: str = "", **settings: Any) -> int:
        """An operator that makes a tensor, with options of one of the schema's classes; gives the tensor."""
        schema = self.schema
        integers = (schema.TensorType.INT8, schema.TensorType.INT4)
        whole = any(self.tensors[place].type in integers for place in inputs)
        key = (kind, _VERSIONS.get(kind, 2) if whole else _FLOATS.get(kind, 1))
        made = schema.OperatorT(self.codes.setdefault(key, len(self.codes)), list(inputs), [output])
        if options:
            made.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            made.builtinOptions = getattr(schema, f"{options}T")(**settings)
        self.operators.append(made)
        return output

    def finished(self, inputs: Sequence[int], output: int) -> bytes:
        """The file, with a free size on the first axis of every input."""
        schema = self.schema
        for place in inputs:
            tensor = self.tensors[place]
            tensor.shapeSignature = [-1, *tensor.shape[1:]]
        codes: list[Any] = []
        for kind, version in self.codes:
            number = getattr(schema.BuiltinOperator, kind)
            # Older readers look at the first of the two numbers, which has a byte.
            codes.append(schema.OperatorCodeT(min(number, 127), None, version, number))
        graph = schema.SubGraphT(self.tensors, list(inputs), [output], self.operators)
        model = schema.ModelT(3, codes, [graph], "whit", self.buffers)
        builder = _builder()
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def _builder() -> Any:
    """What packs tables, with equal vectors standing once: a zero point takes 8 bytes, and every channel has two."""
    import flatbuffers

    class Builder(flatbuffers.Builder):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__(1024)
            self.vectors: dict[tuple[Any, bytes], int] = {}

        def CreateNumpyVector(self, x: Array) -> int:  # noqa: N802 (the library's own name)
            key = (x.dtype, x.tobytes())
            if key not in self.vectors:
                self.vectors[key] = super().CreateNumpyVector(x)
            return self.vectors[key]

    return Builder()
