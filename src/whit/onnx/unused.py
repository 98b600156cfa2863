"""What of an ONNX model no output needs."""

import onnx

__all__ = ["drop_unused_"]


def drop_unused_(graph: onnx.GraphProto) -> None:
    """Drop nodes and initializers that no output needs."""
    used = {one.name for one in graph.output}
    kept: list[bytes] = []
    for node in reversed(graph.node):
        if used.intersection(node.output):
            kept.append(node.SerializeToString(deterministic=True))
            used.update(node.input)
            used.update(name for item in node.attribute for inner in _graphs(item) for name in _read(inner))
    del graph.node[:]
    for content in reversed(kept):
        graph.node.add().ParseFromString(content)
    left = [one.SerializeToString(deterministic=True) for one in graph.initializer if one.name in used]
    del graph.initializer[:]
    for content in left:
        graph.initializer.add().ParseFromString(content)


def _graphs(item: onnx.AttributeProto) -> list[onnx.GraphProto]:
    return [item.g, *item.graphs] if item.HasField("g") else list(item.graphs)


def _read(graph: onnx.GraphProto) -> set[str]:
    """Every name that a graph inside of a node reads, from within or from outside."""
    inner = {name for node in graph.node for item in node.attribute for one in _graphs(item) for name in _read(one)}
    return {name for node in graph.node for name in node.input} | {one.name for one in graph.output} | inner
