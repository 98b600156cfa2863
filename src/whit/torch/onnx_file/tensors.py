"""Tensors of an ONNX file as arrays, having seen that what is declared is there."""

from math import prod

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from whit.data import Array
from whit.errors import ModelError, listed

__all__ = ["array_of", "dtype_of"]

_FIELDS: dict[int, str] = {
    TensorProto.FLOAT: "float_data",
    TensorProto.INT64: "int64_data",
    TensorProto.INT32: "int32_data",
    TensorProto.INT8: "int32_data",
    TensorProto.UINT8: "int32_data",
    TensorProto.BOOL: "int32_data",
}
"""Where values are that are not in ``raw_data``, for every type that whit reads."""


def dtype_of(kind: int, what: str) -> np.dtype[np.generic]:
    """The dtype of an ONNX type; ``what`` has it, for the message.

    Raises:
        ModelError: whit does not read that type.
    """
    if kind not in _FIELDS:
        names = {value: name for name, value in TensorProto.DataType.items()}
        read = listed(names[one].lower() for one in _FIELDS)
        raise ModelError(
            f"{what} has type {names.get(kind, str(kind)).lower()}; whit reads {read}. Write the network in "
            "single precision, as it was before it was converted or quantized"
        )
    return onnx.helper.tensor_dtype_to_np_dtype(kind)


def array_of(tensor: TensorProto, what: str) -> Array:
    """The values of a tensor; ``what`` it is, for messages.

    Raises:
        ModelError: They are elsewhere, of a type that whit does not read, or not as many as declared.
    """
    if tensor.external_data or tensor.data_location == TensorProto.EXTERNAL:
        raise ModelError(
            f"{what} lies in another file, where whit reads no more than weights. Put it into this one: "
            'onnx.save(onnx.load("model.onnx"), "whole.onnx")'
        )
    dtype = dtype_of(tensor.data_type, what)
    dims = tuple(tensor.dims)
    raw = tensor.HasField("raw_data")
    held = len(tensor.raw_data if raw else getattr(tensor, _FIELDS[tensor.data_type]))
    wanted = prod(dims) * (dtype.itemsize if raw else 1)
    if min(dims, default=0) < 0 or held != wanted or tensor.HasField("segment"):
        unit = "bytes" if raw else "values"
        raise ModelError(f"{what} declares the shape {dims}, {wanted} {unit}, and holds {held}; the file is damaged")
    return numpy_helper.to_array(tensor)
