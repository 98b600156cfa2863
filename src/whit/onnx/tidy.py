"""Leave in an exported ONNX model only what a runtime reads."""

from typing import Any

import onnx

__all__ = ["tidy_"]


def tidy_(model: onnx.ModelProto, *, prefix: str) -> None:
    """Drop traces of the exporter (metadata, doc strings, shapes in between), and ``prefix`` from weights' names."""
    names = {item.name: item.name.removeprefix(prefix) for item in model.graph.initializer}
    model.doc_string = ""
    del model.metadata_props[:]
    graph = model.graph
    graph.doc_string = ""
    graph.name = "whit"
    del graph.value_info[:], graph.metadata_props[:], graph.quantization_annotation[:]
    for place, node in enumerate(graph.node):
        node.name = f"{place}.{node.op_type}"
        node.doc_string = ""
        del node.metadata_props[:]
        for position, name in enumerate(node.input):
            node.input[position] = names.get(name, name)
        _drop_empty_attributes(node)
    items: list[Any] = [*graph.initializer, *graph.input, *graph.output]
    for item in items:
        item.name = names.get(item.name, item.name)
        item.doc_string = ""
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
