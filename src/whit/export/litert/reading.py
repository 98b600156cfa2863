"""whit's ONNX model as LiteRT's translation reads it: nodes, arrays, and the shape of everything for one sample."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from whit.data import Array
from whit.export.exporter import package

__all__ = ["Node", "Traced", "read"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """One operation; ``""`` stands for an input that it has not."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    @property
    def output(self) -> str:
        """The first of what it makes, which is the only one but for ``Split``."""
        return self.outputs[0]

    def input(self, place: int) -> str:
        """An input that may be left out, which is ``""`` then."""
        return self.inputs[place] if place < len(self.inputs) else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Traced:
    """A network that was run on one sample and on two, so that all sizes are numbers.

    Attributes:
        nodes: Those that depend on what the inputs hold, in an order in which they can run.
        constants: Initializers, and whatever depends on nothing but sizes. A size that follows the batch is -1.
        shapes: Of every value, for one sample.
        batches: The axis whose size follows the batch, of every value that has one.
        inputs: Names, in the order of the network's arguments.
        output: Name.
    """

    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]
    shapes: Mapping[str, tuple[int, ...]]
    batches: Mapping[str, int]
    inputs: tuple[str, ...]
    output: str


def read(content: bytes, example: tuple[Array, ...]) -> Traced:
    """Read a serialized model of whit's own; ``example`` is one sample of each input."""
    onnx = package("onnx", "litert")
    model = onnx.load_model_from_string(content)
    graph = model.graph
    constants: dict[str, Array] = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    nodes = [
        Node(
            operator=proto.op_type,
            inputs=tuple(proto.input),
            outputs=tuple(proto.output),
            attributes={item.name: onnx.helper.get_attribute_value(item) for item in proto.attribute},
        )
        for proto in graph.node
    ]
    inputs = tuple(item.name for item in graph.input)
    output: str = graph.output[0].name
    one, two = (_values(model, dict(zip(inputs, example, strict=True)), nodes, count) for count in (1, 2))
    shapes = {name: x.shape for name, x in (constants | one).items()}
    batches = {
        name: axis for name, x in one.items() for axis in range(x.ndim) if x.shape[axis] != two[name].shape[axis]
    }
    kept: list[Node] = []
    for node in nodes:
        weight = node.operator == "DequantizeLinear"  # codes stay codes
        asked = {"Shape": (), "CastLike": node.inputs[:1]}.get(node.operator, node.inputs)
        fixed = all(name in constants or not name for name in asked)
        if node.operator == "Split":
            kept.extend(_slices(node, shapes, constants))
        elif fixed and not weight and node.output != output:
            constants[node.output] = _of_any_batch(one[node.output], two[node.output])
        else:
            kept.append(node)
    return Traced(nodes=tuple(kept), constants=constants, shapes=shapes, batches=batches, inputs=inputs, output=output)


def _values(model: Any, inputs: dict[str, Array], nodes: list[Node], count: int) -> dict[str, Array]:
    """Every value for a batch of ``count`` equal samples."""
    import onnx
    import onnxruntime

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    names = [name for node in nodes for name in node.outputs if name]
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session: Any = onnxruntime.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
    batch = {name: np.repeat(x, count, axis=0) for name, x in inputs.items()}
    return batch | dict(zip(names, session.run(names, batch), strict=True))


def _slices(node: Node, shapes: Mapping[str, tuple[int, ...]], constants: dict[str, Array]) -> Iterator[Node]:
    """A ``Split`` as one ``Slice`` a part; their bounds go to ``constants``."""
    axis, start = node.attributes.get("axis", 0), 0
    for name in node.outputs:
        bounds = {"from": start, "to": start + shapes[name][axis], "axis": axis}
        start = bounds["to"]
        constants |= {f"{name}:{key}": np.array([value], np.int64) for key, value in bounds.items()}
        inputs = (node.inputs[0], *(f"{name}:{key}" for key in bounds))
        yield Node(operator="Slice", inputs=inputs, outputs=(name,), attributes={})


def _of_any_batch(one: Array, two: Array) -> Array:
    """Sizes that differ with the batch as -1, which stands for whatever fits."""
    if one.shape != two.shape or one.dtype.kind == "f":
        return one
    return np.where(one == two, one, -1).astype(one.dtype)
