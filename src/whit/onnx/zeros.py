"""Sums with zeros in an exported ONNX model, which stand for branches that were left out, and what only they need."""

from math import prod

import onnx

from whit.onnx.unused import drop_unused_

__all__ = ["drop_zeros_"]

_ZERO_STAYS = frozenset({"Mul", "Identity", "Relu", "Reshape", "Transpose", "Cast"})


def drop_zeros_(model: onnx.ModelProto) -> None:
    """Have a value read in place of its sum with zeros, and of the second of two ReLUs in a row.

    Only zeros that were made for a shape count, not a bias that happens to be zero. The model's shapes in between must
    still be there.
    """
    graph = model.graph
    shapes = {one.name: one.type.SerializeToString() for one in (*graph.value_info, *graph.input, *graph.output)}
    scalars = [one for one in graph.initializer if prod(one.dims) == 1]
    empty = {one.name for one in scalars if not onnx.numpy_helper.to_array(one).any()}
    outputs = {one.name for one in graph.output}
    zeros: set[str] = set()
    positive: set[str] = set()
    instead: dict[str, str] = {}
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = instead.get(name, name)
        output, made = node.output[0], zeros.intersection(node.input)
        if (node.op_type == "Expand" and node.input[0] in empty) or (node.op_type in _ZERO_STAYS and made):
            zeros.add(output)
        rest = [name for name in node.input if name not in zeros]
        summed = node.op_type == "Add" and len(rest) == 1 and shapes.get(rest[0]) == shapes.get(output)
        if output not in outputs and (summed or (node.op_type == "Relu" and rest[0] in positive)):
            instead[output] = rest[0]
        elif node.op_type == "Relu":
            positive.add(output)
    if instead:
        drop_unused_(graph)
