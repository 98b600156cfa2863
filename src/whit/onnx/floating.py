"""A rounded network in floating point: what its integers have to be faster than."""

from collections.abc import Sequence
from typing import Any

import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

__all__ = ["in_floating_point"]


def in_floating_point(content: bytes) -> bytes:
    """A serialized ONNX model without its rounding: its weights are the float32 that their codes stand for."""
    model = onnx.load_model_from_string(content)
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    sources = {
        node.output[0]: source
        for node in graph.node
        if node.op_type == "DequantizeLinear" and (source := _unrounded(node, makers)) is not None
    }
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = _followed(name, sources)
    constant = {item.name for item in graph.initializer} | {""}
    fixed: list[onnx.NodeProto] = []
    rest: list[onnx.NodeProto] = []
    for node in graph.node:
        alone = constant.issuperset(node.input) and not {one.name for one in graph.output}.intersection(node.output)
        (fixed if alone else rest).append(node)
        constant.update(node.output if alone else ())
    rest = _read(rest, {one.name for one in graph.output})
    read = {name for node in rest for name in node.input}
    made = _computed(model, fixed, [name for node in fixed for name in node.output if name in read])
    kept = [item for item in graph.initializer if item.name in read]
    floating = helper.make_graph(rest, graph.name, graph.input, graph.output, [*kept, *made])
    return helper.make_model(
        floating, opset_imports=model.opset_import, ir_version=model.ir_version
    ).SerializeToString()


def _unrounded(node: onnx.NodeProto, makers: dict[str, onnx.NodeProto]) -> str | None:
    """What a DequantizeLinear would give had nothing been rounded before it; None where it makes a weight."""
    maker = makers.get(node.input[0])
    if maker is not None and maker.op_type == "Clip":
        maker = makers.get(maker.input[0])
    return maker.input[0] if maker is not None and maker.op_type == "QuantizeLinear" else None


def _followed(name: str, sources: dict[str, str]) -> str:
    while name in sources:
        name = sources[name]
    return name


def _read(nodes: Sequence[onnx.NodeProto], outputs: set[str]) -> list[onnx.NodeProto]:
    """The nodes that outputs depend on."""
    needed, kept = set(outputs), list[onnx.NodeProto]()
    for node in reversed(nodes):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    return kept[::-1]


def _computed(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], names: Sequence[str]) -> list[TensorProto]:
    """What nodes make that depend on nothing but initializers, as initializers."""
    if not names:
        return []
    outputs = [helper.make_empty_tensor_value_info(name) for name in names]
    graph = helper.make_graph(nodes, "constants", [], outputs, model.graph.initializer)
    alone = _model(graph, model)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session: Any = onnxruntime.InferenceSession(alone.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [numpy_helper.from_array(array, name) for name, array in zip(names, session.run(names, {}), strict=True)]


def _model(graph: onnx.GraphProto, like: onnx.ModelProto) -> onnx.ModelProto:
    return helper.make_model(graph, opset_imports=like.opset_import, ir_version=like.ir_version)
