"""Codes in an ONNX model: weights stored as codes behind what turns them into float32, biases as int32 where needed.

Every exporter of quantized networks goes through here, so that all of them deliver the ledger's own codes.
"""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from whit.data import Array
from whit.errors import ModelError
from whit.formats import Float, Int, nibbles
from whit.ledger import Ledger, Rounded, RoundedBias

__all__ = ["BIAS_SUFFIXES", "WEIGHT_SUFFIXES", "store_integers_"]

WEIGHT_SUFFIXES = (":codes", ":scale", ":zero_point", ":levels")
"""Initializers that stand for a rounded weight are named after it with these."""
BIAS_SUFFIXES = (":int32", ":scale")
"""Likewise for the bias of a layer that runs in integers."""

_TYPES = {
    (4, True): TensorProto.INT4,
    (4, False): TensorProto.UINT4,
    (8, True): TensorProto.INT8,
    (8, False): TensorProto.UINT8,
    (16, True): TensorProto.INT16,
    (16, False): TensorProto.UINT16,
}
_FLOATS = {
    (5, 10): TensorProto.FLOAT16,
    (8, 7): TensorProto.BFLOAT16,
    (4, 3): TensorProto.FLOAT8E4M3FN,
    (5, 2): TensorProto.FLOAT8E5M2,
}
"""Floats of ONNX by exponent and mantissa bits."""
_DTYPES: dict[int, type[np.integer[Any]]] = {
    TensorProto.INT16: np.int16,
    TensorProto.UINT16: np.uint16,
    TensorProto.INT8: np.int8,
    TensorProto.UINT8: np.uint8,
    TensorProto.FLOAT16: np.uint16,
    TensorProto.BFLOAT16: np.uint16,
    TensorProto.FLOAT8E4M3FN: np.uint8,
    TensorProto.FLOAT8E5M2: np.uint8,
}
"""Integers with the bits of each type; those of 4 bits go two to a byte."""

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
        target = decision.target
        if not isinstance(target, Int):
            _replace_by_levels_(model, decision)
            continue
        # Integer kernels read bytes; where floats are made of the codes first, two of them fit in one.
        small = target.bits <= 4 and not any(_reads_integers(node, makers) for node in readers[name])
        _replace_weight_(model, decision, _TYPES[4 if small else 8 if target.bits <= 8 else 16, target.symmetric])
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
    codes, scale, zero_point, _ = (f"{name}{suffix}" for suffix in WEIGHT_SUFFIXES)
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


def _replace_by_levels_(model: onnx.ModelProto, decision: Rounded) -> None:
    """Codes become levels by a cast where ONNX has the format, else by a table; then the levels are scaled.

    A runtime does all this once, when it opens the file.
    """
    name, target = decision.parameter, decision.target
    codes, scale, _, levels = (f"{name}{suffix}" for suffix in WEIGHT_SUFFIXES)
    native = _FLOATS.get((target.exponent, target.mantissa)) if isinstance(target, Float) else None
    grouped = target.per == "group"
    patterns = target.patterns(decision.codes)
    patterns = patterns if grouped else decision.shaped(patterns)
    chain = _Chain(name)
    if native is not None:
        chain.arrays.append(_integers(codes, patterns, native))
        chain.then("Cast", codes, to=TensorProto.FLOAT)
    else:
        table = target.table(decision.codebook)
        chain.arrays.append(_integers(codes, patterns, TensorProto.UINT4 if table.size <= 16 else TensorProto.UINT8))
        chain.arrays.append(numpy_helper.from_array(table, levels))
        chain.then("Gather", levels, chain.then("Cast", codes, to=TensorProto.INT32))
    if grouped:
        chain.arrays.append(numpy_helper.from_array(decision.scale, scale))
        block = target.block(decision.codes.shape[1])
        groups = chain.array("groups", np.arange(decision.codes.shape[1], dtype=np.int32) // np.int32(block))
        chain.then("Mul", chain.last, chain.then("Gather", scale, groups, axis=1))
        if decision.shape != decision.codes.shape:
            chain.then("Reshape", chain.last, chain.array("shape", np.array(decision.shape, np.int64)))
    elif (decision.scale != 1).any():
        layout = [decision.scale.size if axis == decision.axis else 1 for axis in range(len(decision.shape))]
        chain.arrays.append(numpy_helper.from_array(decision.scale.reshape(layout), scale))
        chain.then("Mul", chain.last, scale)
    chain.nodes[-1].output[0] = name
    _drop_(model, name)
    model.graph.initializer.extend(chain.arrays)
    for place, node in enumerate(chain.nodes):
        model.graph.node.insert(place, node)


class _Chain:
    """Nodes that make a weight, one after the other, and the arrays that they read."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[onnx.NodeProto] = []
        self.arrays: list[onnx.TensorProto] = []
        self.last = ""

    def array(self, suffix: str, values: Array) -> str:
        """A small array of the exporter's own."""
        self.arrays.append(numpy_helper.from_array(values, f"{self.name}:{suffix}"))
        return self.arrays[-1].name

    def then(self, kind: str, *inputs: str, **attributes: int) -> str:
        """One more node; gives the name of its output."""
        self.last = f"{self.name}:{len(self.nodes)}"
        label = f"weight.{self.name}.{len(self.nodes)}"
        node = helper.make_node(kind, list(inputs), [self.last], name=label)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(node)
        return self.last


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
    """Patterns of codes as an initializer; 4-bit ones go two to a byte, the first in the low half."""
    dtype = _DTYPES.get(data_type)
    raw = nibbles(values) if dtype is None else values.astype(np.dtype(dtype).newbyteorder("<")).tobytes()
    return helper.make_tensor(name, data_type, values.shape, raw, raw=True)
