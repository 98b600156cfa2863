"""Integers in an ONNX model: weights stored as codes behind DequantizeLinear, biases as int32 where runtimes need it.

Every exporter of quantized networks goes through here, so that all of them deliver the ledger's own codes.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from whit.data import Array
from whit.errors import ModelError
from whit.formats import nibbles
from whit.ledger import Ledger, Rounded, RoundedBias

__all__ = ["BIAS_SUFFIXES", "WEIGHT_SUFFIXES", "store_integers_"]

WEIGHT_SUFFIXES = (":codes", ":scale", ":zero_point")
"""Initializers that stand for a rounded weight are named after it with these."""
BIAS_SUFFIXES = (":int32", ":scale")
"""Likewise for the bias of a layer that runs in integers."""

_TYPES = {
    (4, True): TensorProto.INT4,
    (4, False): TensorProto.UINT4,
    (8, True): TensorProto.INT8,
    (8, False): TensorProto.UINT8,
}

_MOVES = frozenset({"Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "MaxPool", "Identity"})


def store_integers_(model: onnx.ModelProto, ledger: Ledger) -> None:
    """Replace the initializers that the ledger rounds by its codes.

    Raises:
        ModelError: The exporter changed a weight, so that the codes are not those of the exported network.
    """
    makers = {node.output[0]: node for node in model.graph.node}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for name, decision in ledger.rounded().items():
        _check_unchanged(model, name, decision.values())
        # Integer kernels read bytes; where floats are made of the codes first, two of them fit in one.
        small = decision.target.bits <= 4 and not any(_reads_integers(node, makers) for node in readers[name])
        _replace_weight_(model, decision, _TYPES[4 if small else 8, decision.target.symmetric])
    for name, decision in ledger.biases().items():
        if all(node.op_type in ("Conv", "Gemm") for node in readers[name]):
            _check_unchanged(model, name, decision.values())
            _replace_bias_(model, decision)


def _reads_integers(node: onnx.NodeProto, makers: dict[str, onnx.NodeProto]) -> bool:
    """Whether what a node reads was dequantized before, so that a runtime can run the node in integers."""
    maker = makers.get(node.input[0])
    while maker is not None and maker.op_type in _MOVES:
        maker = makers.get(maker.input[0])
    return maker is not None and maker.op_type == "DequantizeLinear"


def _check_unchanged(model: onnx.ModelProto, name: str, values: Array) -> None:
    item = next((item for item in model.graph.initializer if item.name == name), None)
    if item is None or not np.array_equal(numpy_helper.to_array(item), values):
        raise ModelError(
            f"the exporter merged or changed {name}, so its codes cannot be stored in the file; please report the "
            "architecture"
        )


def _replace_weight_(model: onnx.ModelProto, decision: Rounded, data_type: int) -> None:
    name, target = decision.parameter, decision.target
    grouped = target.per == "group"
    shape = decision.codes.shape if grouped else decision.shape
    codes, scale, zero_point = (f"{name}{suffix}" for suffix in WEIGHT_SUFFIXES)
    layout = {"tensor": (), "channel": (decision.scale.size,), "group": decision.scale.shape}[target.per]
    _drop_(model, name)
    model.graph.initializer.extend(
        [
            _integers(codes, decision.codes if grouped else decision.shaped(decision.codes), data_type),
            numpy_helper.from_array(np.ascontiguousarray(decision.scale.reshape(layout)), scale),
            _integers(zero_point, decision.zero_point.reshape(layout), data_type),
        ]
    )
    reshaped = grouped and decision.shape != shape
    node = helper.make_node(
        "DequantizeLinear", [codes, scale, zero_point], [f"{name}:matrix" if reshaped else name], name=f"weight.{name}"
    )
    if target.per != "tensor":
        node.attribute.append(helper.make_attribute("axis", 1 if grouped else decision.axis))
    if grouped:
        node.attribute.append(helper.make_attribute("block_size", target.block(decision.codes.shape[1])))
    nodes = [node]
    if reshaped:
        model.graph.initializer.append(numpy_helper.from_array(np.array(decision.shape, np.int64), f"{name}:shape"))
        nodes.append(helper.make_node("Reshape", [f"{name}:matrix", f"{name}:shape"], [name], name=f"shape.{name}"))
    for place, one in enumerate(nodes):
        model.graph.node.insert(place, one)


def _replace_bias_(model: onnx.ModelProto, decision: RoundedBias) -> None:
    """Integer kernels add the bias to int32 sums, so it is stored in their scale."""
    name = decision.parameter
    codes, scale = (f"{name}{suffix}" for suffix in BIAS_SUFFIXES)
    per_channel = decision.scale.size > 1
    steps = decision.scale if per_channel else decision.scale.reshape(())
    _drop_(model, name)
    model.graph.initializer.append(numpy_helper.from_array(decision.codes, codes))
    model.graph.initializer.append(numpy_helper.from_array(steps, scale))
    dequantize = helper.make_node("DequantizeLinear", [codes, scale], [name], name=f"weight.{name}")
    if per_channel:
        dequantize.attribute.append(helper.make_attribute("axis", 0))
    model.graph.node.insert(0, dequantize)


def _drop_(model: onnx.ModelProto, name: str) -> None:
    kept = [item for item in model.graph.initializer if item.name != name]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def _integers(name: str, values: Array, data_type: int) -> onnx.TensorProto:
    """Codes as an initializer; 4-bit ones go two to a byte, the first in the low half."""
    if data_type in (TensorProto.INT8, TensorProto.UINT8):
        kind = np.int8 if data_type == TensorProto.INT8 else np.uint8
        return numpy_helper.from_array(np.ascontiguousarray(values.astype(kind)), name)
    return helper.make_tensor(name, data_type, values.shape, nibbles(values), raw=True)
