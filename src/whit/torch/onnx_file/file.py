"""An ONNX file, looked through before anything is made of it.

A file is a stranger's: nothing in it is followed to other files (``whole`` has put its weights into it), sizes are
checked against what is there, and every value must be made before it is read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto

from whit.data import Array
from whit.errors import ModelError, listed
from whit.torch.onnx_file.tensors import array_of, dtype_of

__all__ = ["OPSETS", "Declared", "Node", "OnnxGraph", "read_graph"]

OPSETS = range(7, 28)
"""Versions of the ONNX operators that are known to mean what whit takes them for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Declared:
    """An input as the file declares it; ``None`` stands for a size that is free."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | None, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """One operation: reads values by name (``""`` where it has no such input) and makes others."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def __str__(self) -> str:
        return f"node {self.name} ({self.operator})"


@dataclass(frozen=True, kw_only=True, slots=True)
class OnnxGraph:
    """What a file describes.

    Attributes:
        nodes: In an order in which they can run.
        constants: Initializers, and what ``Constant`` nodes hold, by name.
        inputs: In the order of the network's arguments.
        output: Name of the value that the network gives.
        opset: Version of the ONNX operators.
        batch: The size of the first axis of every input, or None where it is free.
    """

    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]
    inputs: tuple[Declared, ...]
    output: str
    opset: int
    batch: int | None


def read_graph(content: bytes) -> OnnxGraph:
    """The graph in the bytes of an ONNX file.

    Raises:
        ModelError: It is damaged, or holds what whit does not read; the message says what.
    """
    model = ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise ModelError("it is not a whole ONNX file; write it again") from error
    if not model.graph.node:
        raise ModelError("it holds no network: its graph has no nodes. Is it an ONNX file?")
    return _graph(model.graph, _opset(model))


def _opset(model: ModelProto) -> int:
    found = [item.version for item in model.opset_import if item.domain in ("", "ai.onnx")]
    if len(found) != 1 or found[0] not in OPSETS:
        raise ModelError(
            f"it uses ONNX operators of opset {listed(map(str, found))}; whit knows {OPSETS[0]} to {OPSETS[-1]}. "
            "onnx.version_converter.convert_version converts a model"
        )
    return found[0]


def _graph(graph: GraphProto, opset: int) -> OnnxGraph:
    if graph.sparse_initializer:
        raise ModelError("it holds sparse initializers; whit reads dense ones. Write the weights densely")
    constants: dict[str, Array] = {}
    for item in graph.initializer:
        name = _text(item.name)
        if name in constants:
            raise ModelError(f"it holds two initializers named {name}; the file is damaged")
        constants[name] = array_of(item, f"initializer {name}")
    # Before IR version 4 initializers were listed among the inputs too.
    inputs = tuple(_declared(item) for item in graph.input if item.name not in constants)
    if not inputs:
        raise ModelError("the network has no inputs")
    nodes: list[Node] = []
    known = constants.keys() | {one.name for one in inputs} | {""}
    for place, proto in enumerate(graph.node):
        node = _node(proto, place, opset)
        _check_order(node, known)
        known.update(node.outputs)
        if node.operator == "Constant":
            constants[node.outputs[0]] = _constant(node)
        else:
            nodes.append(node)
    outputs = [_text(item.name) for item in graph.output]
    if len(outputs) != 1 or outputs[0] not in known:
        raise ModelError(
            f"the network has the outputs {listed(outputs)}; whit compresses networks with one output that a node "
            "makes. onnx.utils.extract_model writes the part of a model that ends in one"
        )
    batches = {one.shape[0] for one in inputs}
    if len(batches) > 1:
        raise ModelError("its inputs have batches of different sizes; whit reads networks whose first axes are alike")
    return OnnxGraph(
        nodes=tuple(nodes), constants=constants, inputs=inputs, output=outputs[0], opset=opset, batch=batches.pop()
    )


def _declared(item: onnx.ValueInfoProto) -> Declared:
    """The input that an item describes."""
    name = _text(item.name)
    what = f"input {name}"
    if item.type.WhichOneof("value") != "tensor_type" or not item.type.tensor_type.HasField("shape"):
        raise ModelError(f"{what} is not a tensor with declared axes; whit reads networks whose inputs are")
    tensor = item.type.tensor_type
    shape = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim)
    if not shape:
        raise ModelError(
            f"{what} is a single number; whit reads networks whose inputs have samples on their first axis"
        )
    return Declared(name=name, dtype=dtype_of(tensor.elem_type, what), shape=shape)


def _node(proto: NodeProto, place: int, opset: int) -> Node:
    node = Node(
        name=_text(proto.name) or f"{_text(proto.op_type)}_{place}",
        operator=proto.op_type if proto.domain in ("", "ai.onnx") else f"{_text(proto.domain)}:{proto.op_type}",
        inputs=tuple(_text(name) for name in proto.input),
        outputs=tuple(_text(name) for name in proto.output),
        attributes={},
    )
    attributes: dict[str, Any] = {}
    for item in proto.attribute:
        name = _text(item.name)
        what = f"attribute {name} of {node}"
        if item.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
            raise ModelError(
                f"{node}, opset {opset}, runs a graph of its own; whit reads networks without branches and loops"
            )
        if item.type == AttributeProto.TENSOR:
            attributes[name] = array_of(item.t, what)
            continue
        try:
            value = onnx.helper.get_attribute_value(item)
            attributes[name] = value.decode() if isinstance(value, bytes) else value
        except ValueError as error:
            raise ModelError(f"{what} cannot be read: {error}") from error
    return Node(name=node.name, operator=node.operator, inputs=node.inputs, outputs=node.outputs, attributes=attributes)


def _text(name: str | bytes) -> str:
    """A name of the file, which protobuf gives as bytes where it is not text."""
    if isinstance(name, bytes):
        raise ModelError(f"it holds the name {name!r}, which is no text; the file is damaged")
    return name


def _check_order(node: Node, known: set[str]) -> None:
    """Raise ``ModelError`` unless a node reads what is known already, and makes what is not."""
    if missing := [name for name in node.inputs if name not in known]:
        raise ModelError(
            f"{node} reads {listed(missing)}, which nothing before it makes: the file has a cycle, is not in order, or "
            "is damaged. onnx.checker.check_model says more"
        )
    made = [name for name in node.outputs if name]
    if not made or len(set(made)) < len(made) or known.intersection(made):
        raise ModelError(f"{node} makes {listed(made)}, of which something is made already; the file is damaged")


def _constant(node: Node) -> Array:
    """What a ``Constant`` holds."""
    match node.attributes:
        case {"value": np.ndarray() as value}:
            return value
        case {"value_float": value} | {"value_floats": value}:
            return np.array(value, np.float32)
        case {"value_int": value} | {"value_ints": value}:
            return np.array(value, np.int64)
        case _:
            raise ModelError(
                f"{node} holds {listed(node.attributes)}; whit reads constants that are tensors or numbers"
            )
