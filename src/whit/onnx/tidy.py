"""Leave in an exported ONNX model only what a runtime reads."""

from collections.abc import Set
from itertools import count
from typing import Any

import onnx

__all__ = ["shorten_", "tidy_"]

_RANDOM = frozenset(
    {"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
"""Nodes that compute something else each time."""


def tidy_(model: onnx.ModelProto, *, prefix: str) -> None:
    """Drop traces of the exporter (metadata, doc strings, shapes in between), and ``prefix`` from weights' names."""
    names = {item.name: item.name.removeprefix(prefix) for item in model.graph.initializer}
    weights = set(names.values())
    names |= {name: f"{name}:made" for node in model.graph.node for name in node.output if name in weights}
    model.ClearField("doc_string")
    del model.metadata_props[:]
    graph = model.graph
    graph.ClearField("doc_string")
    graph.name = "whit"
    del graph.value_info[:], graph.metadata_props[:], graph.quantization_annotation[:]
    for place, node in enumerate(graph.node):
        node.name = f"{place}.{node.op_type}"
        node.ClearField("doc_string")
        del node.metadata_props[:]
        for tensors in (node.input, node.output):
            for position, name in enumerate(tensors):
                tensors[position] = names.get(name, name)
        _drop_empty_attributes(node)
    items: list[Any] = [*graph.initializer, *graph.input, *graph.output]
    for item in items:
        item.name = names.get(item.name, item.name)
        item.ClearField("doc_string")
        del item.metadata_props[:]


def _drop_empty_attributes(node: onnx.NodeProto) -> None:
    """Attributes that say no more than their absence would."""
    kept = [item for item in node.attribute if not _says_nothing(node.op_type, item)]
    del node.attribute[:]
    node.attribute.extend(kept)


def _says_nothing(op_type: str, item: onnx.AttributeProto) -> bool:
    schema: Any = onnx.defs.get_schema(op_type, 21)
    default = schema.attributes[item.name].default_value if item.name in schema.attributes else None
    return default is not None and default.type == item.type and default.SerializeToString() == item.SerializeToString()


def shorten_(model: onnx.ModelProto, weights: Set[str]) -> None:
    """Say the same in fewer bytes: no tensor but inputs, outputs and ``weights`` keeps its name, no node has one.

    Constants that are equal become one, so do nodes that compute the same of the same, and a weight's DequantizeLinear
    stands before the first node that reads it.
    A model with graphs inside of nodes, which see names of the outer one, stays as it is.
    """
    graph = model.graph
    if any(item.HasField("g") or item.graphs for node in graph.node for item in node.attribute):
        return
    model.ClearField("producer_name")
    model.ClearField("producer_version")
    names = _Names(weights | {item.name for item in (*graph.input, *graph.output)})
    _merge_constants_(graph, names)
    _sort_late_(graph)
    for node in graph.node:
        node.ClearField("name")
        _drop_implied_(node)
        for tensors in (node.input, node.output):
            for position, name in enumerate(tensors):
                tensors[position] = names[name]
    _merge_nodes_(graph)


class _Names(dict[str, str]):
    """Short names by old ones, made up when they are first asked for; those of ``kept`` stay."""

    def __init__(self, kept: Set[str]) -> None:
        super().__init__({name: name for name in kept | {""}})
        self.free = (name for name in (f"{place:x}" for place in count()) if name not in kept)

    def __missing__(self, name: str) -> str:
        self[name] = next(self.free)
        return self[name]


def _merge_constants_(graph: onnx.GraphProto, names: _Names) -> None:
    """Keep one of equal initializers, whose name is then that of all."""
    found: dict[bytes, str] = {}
    kept: list[onnx.TensorProto] = []
    for item in graph.initializer:
        if item.name not in names:
            old = item.name
            item.ClearField("name")
            content = item.SerializeToString(deterministic=True)
            item.name = names[old] = found.get(content) or names[old]
            if content in found:
                continue
            found[content] = item.name
        kept.append(item)
    copies = [item.SerializeToString(deterministic=True) for item in kept]
    del graph.initializer[:]
    for copy in copies:
        graph.initializer.add().ParseFromString(copy)


def _merge_nodes_(graph: onnx.GraphProto) -> None:
    """Keep the first of nodes that compute the same of the same, such as a division for several layers."""
    outputs = {item.name for item in graph.output}
    found: dict[bytes, list[str]] = {}
    same: dict[str, str] = {}
    for node in list(graph.node):
        for position, name in enumerate(node.input):
            node.input[position] = same.get(name, name)
        made = list(node.output)
        if node.op_type in _RANDOM or outputs.intersection(made):
            continue
        node.ClearField("output")
        first = found.setdefault(node.SerializeToString(deterministic=True), made)
        node.output.extend(made)
        if first is not made:
            same.update(zip(made, first, strict=True))
            graph.node.remove(node)


def _sort_late_(graph: onnx.GraphProto) -> None:
    """Move nodes that depend on nothing but initializers to before the first node that reads what they make."""
    makers = {name: node for node in graph.node for name in node.output}
    known = {item.name for item in graph.initializer} | {""}
    late: set[int] = set()
    for node in graph.node:
        if known.issuperset(node.input):
            late.add(id(node))
            known.update(node.output)
    nodes: list[onnx.NodeProto] = []
    taken: set[int] = set()

    def take(node: onnx.NodeProto) -> None:
        if id(node) not in taken:
            taken.add(id(node))
            for name in node.input:
                if name in makers and id(makers[name]) in late:
                    take(makers[name])
            nodes.append(node)

    outputs = {item.name for item in graph.output}
    for node in graph.node:
        if id(node) not in late or outputs.intersection(node.output):
            take(node)
    copies = [node.SerializeToString(deterministic=True) for node in nodes]
    del graph.node[:]
    for copy in copies:
        graph.node.add().ParseFromString(copy)


def _drop_implied_(node: onnx.NodeProto) -> None:
    """Drop a convolution's attributes that its weight and the standard imply."""
    if node.op_type != "Conv":
        return
    kept = [
        item
        for item in node.attribute
        if item.name != "kernel_shape"
        and not (item.name in ("strides", "dilations") and set(item.ints) == {1})
        and not (item.name == "pads" and set(item.ints) == {0})
    ]
    del node.attribute[:]
    node.attribute.extend(kept)
