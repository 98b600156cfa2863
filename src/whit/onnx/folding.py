"""What an exported ONNX model would compute anew in every call: shapes that are known but for the batch size."""

from collections.abc import Mapping
from math import prod
from typing import NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from whit.data import Array
from whit.onnx.unused import drop_unused_

__all__ = ["fold_"]

_LARGE = 256
"""Elements of an initializer that says nothing about shapes."""

Shape = tuple[int | str, ...]
"""Sizes; a free one has a name, or none, which is ``""``."""


class _Known(NamedTuple):
    """What is known of the model's values before it runs: of most what they are like, of some what they are."""

    types: Mapping[str, int]
    shapes: Mapping[str, Shape]
    constants: Mapping[str, Array]

    def same_shape(self, one: str, other: str) -> bool:
        """Whether two values have the same shape, whatever the batch size is."""
        shape = self.shapes.get(one)
        return shape is not None and "" not in shape and shape == self.shapes.get(other)

    def same_sizes(self, one: str, other: str) -> bool:
        """Whether two values of as many elements have the same shape: one size may be free, as the others imply it."""
        first, second = self.shapes.get(one, ()), self.shapes.get(other, ())
        pairs = zip(first, second, strict=False)
        known = [(a, b) for a, b in pairs if not isinstance(a, str) and not isinstance(b, str)]
        alike = len(first) == len(second) > 0 and all(a == b != 0 for a, b in known)
        return alike and len(known) >= len(first) - 1

    def same_type(self, one: str, other: str) -> bool:
        """Whether two values have the same type."""
        return one in self.types and self.types[one] == self.types.get(other)


def fold_(model: onnx.ModelProto) -> None:
    """Have constants stand in the model as such, shapes that a ``Reshape`` is told too, and drop nodes that do nothing.

    A size that only the runtime knows, the batch size, is what the others leave: -1. Weights stay as they are, and so
    does what is computed of them. The model's shapes in between must still be there. A model with graphs inside of
    nodes, which see names of the outer one, stays as it is.
    """
    graph = model.graph
    if any(item.HasField("g") or item.graphs for node in graph.node for item in node.attribute):
        return
    _store_constants_(graph)
    known = _known(model)
    outputs = {one.name for one in graph.output}
    makers: dict[str, onnx.NodeProto] = {}
    instead: dict[str, str] = {}
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = instead.get(name, name)
        if node.op_type == "Reshape":
            _tell_shape_(node, graph, known, makers)
        elif node.op_type == "Transpose":
            _join_transposes_(node, makers)
        if node.output[0] not in outputs and _does_nothing(node, known):
            instead[node.output[0]] = node.input[0]
        else:
            makers.update(dict.fromkeys(node.output, node))
    drop_unused_(graph)


def _store_constants_(graph: onnx.GraphProto) -> None:
    """Initializers in place of ``Constant`` nodes: equal ones can then be told, and take fewer bytes."""
    outputs = {one.name for one in graph.output}
    for place in reversed(range(len(graph.node))):
        node = graph.node[place]
        if node.op_type != "Constant" or outputs.intersection(node.output):
            continue
        [item] = node.attribute
        match item.name:
            case "value":
                made = onnx.TensorProto()
                made.CopyFrom(item.t)
            case "value_int" | "value_ints":
                made = numpy_helper.from_array(np.array(helper.get_attribute_value(item), np.int64))
            case "value_float" | "value_floats":
                made = numpy_helper.from_array(np.array(helper.get_attribute_value(item), np.float32))
            case _:
                continue  # strings, and sparse tensors
        made.name = node.output[0]
        graph.initializer.append(made)
        del graph.node[place]


def _known(model: onnx.ModelProto) -> _Known:
    """As ONNX infers it, from the model without its weights."""
    graph = model.graph
    small = [one for one in graph.initializer if prod(one.dims) <= _LARGE]
    large = [one for one in graph.initializer if prod(one.dims) > _LARGE]
    given = [helper.make_tensor_value_info(one.name, one.data_type, one.dims) for one in large]
    bare = helper.make_model(
        helper.make_graph(
            graph.node, graph.name, [*graph.input, *given], graph.output, small, value_info=graph.value_info
        ),
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
    )
    graph = shape_inference.infer_shapes(bare, data_prop=True).graph
    types = {one.name: one.data_type for one in graph.initializer}
    shapes: dict[str, Shape] = {one.name: tuple(one.dims) for one in graph.initializer}
    for one in (*graph.value_info, *graph.input, *graph.output):
        kind = one.type.tensor_type
        types[one.name] = kind.elem_type
        if kind.HasField("shape"):
            shapes[one.name] = tuple(
                size.dim_value if size.HasField("dim_value") else size.dim_param for size in kind.shape.dim
            )
    return _Known(types, shapes, {one.name: numpy_helper.to_array(one) for one in graph.initializer})


def _tell_shape_(
    node: onnx.NodeProto, graph: onnx.GraphProto, known: _Known, makers: Mapping[str, onnx.NodeProto]
) -> None:
    """Give a ``Reshape`` numbers for a shape that is computed, and what the one before it reads."""
    shape = known.shapes.get(node.output[0], ())
    free = [isinstance(size, str) for size in shape]
    # The exporter says of some shapes that are computed that they are single numbers, which they are not.
    if not shape or sum(free) > 1 or 0 in shape:
        return
    if node.input[1] not in known.constants:
        sizes = [-1 if isinstance(size, str) else size for size in shape]
        made = numpy_helper.from_array(np.array(sizes, np.int64), f"{node.output[0]}:shape")
        graph.initializer.append(made)
        node.input[1] = made.name
        del node.attribute[:]
    elif not known.constants[node.input[1]].all():
        return  # a zero is the size that it reads
    before = makers.get(node.input[0])
    if before is not None and before.op_type == "Reshape":
        node.input[0] = before.input[0]


def _join_transposes_(node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto]) -> None:
    """Have the second of two transpositions in a row do what both do."""
    before = makers.get(node.input[0])
    if before is None or before.op_type != "Transpose":
        return
    first, second = (_order(one) for one in (before, node))
    if first and second:
        node.input[0] = before.input[0]
        del node.attribute[:]
        node.attribute.append(helper.make_attribute("perm", [first[axis] for axis in second]))


def _order(node: onnx.NodeProto) -> list[int]:
    """The axes of a transposition; empty where all are turned round."""
    return [axis for item in node.attribute if item.name == "perm" for axis in item.ints]


def _does_nothing(node: onnx.NodeProto, known: _Known) -> bool:
    """Whether what a node makes is its first input."""
    first, output = node.input[0] if node.input else "", node.output[0]
    match node.op_type:
        case "Identity":
            return True
        case "Cast" | "CastLike":
            return known.same_type(first, output)
        case "Reshape":
            return known.same_sizes(first, output)
        case "Expand":
            return known.same_shape(first, output)
        case "Transpose":
            order = _order(node)
            return bool(order) and order == sorted(order)
        case "Slice":
            return _is_whole(node, known)
        case "Concat":
            return len(node.input) == 1
        case _:
            return False


def _is_whole(node: onnx.NodeProto, known: _Known) -> bool:
    """Whether a ``Slice`` leaves nothing out."""
    shape = known.shapes.get(node.input[0])
    starts, ends = (known.constants.get(name) for name in node.input[1:3])
    if shape is None or starts is None or ends is None or starts.any():
        return False
    named, stepped = [*node.input[3:], "", ""][:2]
    axes = known.constants.get(named) if named else np.arange(len(ends))
    steps = known.constants.get(stepped) if stepped else np.ones(len(ends))
    if axes is None or steps is None or (steps != 1).any():
        return False
    most = np.iinfo(np.int32).max
    sizes = [shape[axis] for axis in axes.tolist()]
    return all(end >= (most if isinstance(size, str) else size) for end, size in zip(ends, sizes, strict=True))
