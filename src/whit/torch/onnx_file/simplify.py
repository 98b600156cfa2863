"""An ONNX graph with less in it that computes the same: what converters leave around layers goes into the layers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from whit.data import Array
from whit.errors import ModelError
from whit.torch.onnx_file.file import Node, OnnxGraph
from whit.torch.onnx_file.limits import bounded
from whit.torch.onnx_file.operators import function_of
from whit.torch.onnx_file.operators.values import sizes

__all__ = ["simplified"]


def simplified(graph: OnnxGraph) -> OnnxGraph:
    """The graph without what is known before it runs, its paddings and biases in the layers that they belong to."""
    for rewrite in (_without_identities, _folded, _without_transpose_pairs, _with_biases, _with_pads, _used):
        graph = rewrite(graph)
    return graph


def _without_identities(graph: OnnxGraph) -> OnnxGraph:
    """Values that are handed on as they are have the name that they had before."""
    names: dict[str, str] = {}
    nodes: list[Node] = []
    for node in _renamed(graph, names):
        if node.operator in ("Identity", "Dropout") and node.inputs:
            names[node.outputs[0]] = node.inputs[0]
        else:
            nodes.append(node)
    return replace(graph, nodes=tuple(nodes), output=names.get(graph.output, graph.output))


def _folded(graph: OnnxGraph) -> OnnxGraph:
    """What depends on constants alone is a constant."""
    constants = dict(graph.constants)
    nodes: list[Node] = []
    for node in graph.nodes:
        function = function_of(node.operator, graph.opset)
        known = all(name in constants or not name for name in node.inputs)
        if function is None or not known or len(node.outputs) != 1:
            nodes.append(node)
            continue
        constants[node.outputs[0]] = _computed(node, function, [constants.get(name) for name in node.inputs])
    return replace(graph, nodes=tuple(nodes), constants=constants)


def _computed(node: Node, function: Callable[..., Any], inputs: Sequence[Array | None]) -> Array:
    values = [torch.from_numpy(np.array(x)) if x is not None and x.dtype.kind == "f" else x for x in inputs]
    values = [sizes(x) if isinstance(x, np.ndarray) else x for x in values]
    try:
        with bounded(str(node)):
            function(*values, **node.attributes)
        result = function(*values, **node.attributes)
    except ModelError:
        raise
    except Exception as error:  # torch and NumPy raise whatever their parts raise
        raise ModelError(f"{node} cannot be computed: {error}") from error
    return result.numpy() if isinstance(result, Tensor) else np.asarray(result.tolist())


def _without_transpose_pairs(graph: OnnxGraph) -> OnnxGraph:
    """Two transpositions in a row are one, or none."""
    before: dict[str, tuple[str, tuple[int, ...]]] = {}
    names: dict[str, str] = {}
    nodes: list[Node] = []
    for node in _renamed(graph, names):
        if node.operator != "Transpose" or "perm" not in node.attributes:
            nodes.append(node)
        else:
            order = tuple(node.attributes["perm"])
            source, first = before.get(node.inputs[0], (node.inputs[0], tuple(range(len(order)))))
            if sorted(order) != list(range(len(first))):
                raise ModelError(f"{node} puts {len(first)} axes in the order {order}; the file is damaged")
            order = tuple(first[axis] for axis in order)
            before[node.outputs[0]] = source, order
            if order == tuple(range(len(order))):
                names[node.outputs[0]] = source
            else:
                nodes.append(replace(node, inputs=(source,), attributes={"perm": list(order)}))
    return replace(graph, nodes=tuple(nodes), output=names.get(graph.output, graph.output))


def _with_biases(graph: OnnxGraph) -> OnnxGraph:
    """A constant vector that is added to a product, and to nothing else, is the bias of the layer."""
    makers = {node.outputs[0]: node for node in graph.nodes}
    readers = _readers(graph)
    nodes = {node.outputs[0]: node for node in graph.nodes}
    constants = dict(graph.constants)
    for node in graph.nodes:
        if node.operator != "Add":
            continue
        for name, other in (node.inputs, reversed(node.inputs)):
            maker, bias = makers.get(name), constants.get(other)
            if maker is None or bias is None or readers[name] > 1 or bias.dtype != np.float32:
                continue
            vector = _bias(maker, bias, constants)
            if vector is not None:
                constants[f"{node.outputs[0]}:bias"] = vector
                inputs = (*maker.inputs[:2], f"{node.outputs[0]}:bias")
                nodes[node.outputs[0]] = replace(maker, inputs=inputs, outputs=node.outputs)
                del nodes[name]
                break
    return replace(graph, nodes=tuple(nodes.values()), constants=constants)


def _bias(maker: Node, bias: Array, constants: dict[str, Array]) -> Array | None:
    """The bias of a layer without one to which an array is added; None where it is none."""
    weight = constants.get(maker.inputs[1]) if len(maker.inputs) == 2 else None
    if weight is None:
        return None
    if maker.operator == "MatMul" and weight.ndim == 2 and bias.shape == (weight.shape[1],):
        return bias
    channels = (len(weight),) + (1,) * (weight.ndim - 2)
    if maker.operator == "Conv" and bias.shape in (channels, (1, *channels)):
        return bias.reshape(-1)
    return None


def _with_pads(graph: OnnxGraph) -> OnnxGraph:
    """Zeros around an image belong to the convolution that reads it."""
    pads = {node.outputs[0]: node for node in graph.nodes if node.operator == "Pad"}
    nodes: list[Node] = []
    for node in graph.nodes:
        maker = pads.get(node.inputs[0]) if node.operator == "Conv" else None
        amounts = None if maker is None else _zeros_around(maker, graph.constants)
        if maker is None or amounts is None or node.attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            nodes.append(node)
            continue
        own = node.attributes.get("pads", [0] * len(amounts))
        attributes = {**node.attributes, "pads": [a + b for a, b in zip(own, amounts, strict=True)]}
        attributes.pop("auto_pad", None)
        nodes.append(replace(node, inputs=(maker.inputs[0], *node.inputs[1:]), attributes=attributes))
    return replace(graph, nodes=tuple(nodes))


def _zeros_around(node: Node, constants: Any) -> list[int] | None:
    """How many zeros a ``Pad`` puts before and after each axis behind the first two; None where it does more."""
    places = dict(zip(("pads", "value", "axes"), node.inputs[1:], strict=False))
    given = {key: constants.get(name) for key, name in places.items() if name}
    found: dict[str, Any] = {"value": 0.0, **node.attributes, **given}
    if found.pop("mode", "constant") != "constant" or set(found) != {"pads", "value"} or found["value"] is None:
        return None
    amounts = None if found["pads"] is None else [int(one) for one in found["pads"]]
    if amounts is None or float(np.asarray(found["value"]).reshape(())) != 0 or min(amounts) < 0:
        return None
    rank = len(amounts) // 2
    if amounts[:2] != [0, 0] or amounts[rank : rank + 2] != [0, 0]:
        return None
    return amounts[2:rank] + amounts[rank + 2 :]


def _renamed(graph: OnnxGraph, names: Mapping[str, str]) -> Iterator[Node]:
    """The nodes, reading values by new names, of which more may come up on the way."""
    for node in graph.nodes:
        yield replace(node, inputs=tuple(names.get(name, name) for name in node.inputs))


def _readers(graph: OnnxGraph) -> dict[str, int]:
    """How often each value is read, by nodes and as the output."""
    counts: dict[str, int] = {name: 0 for node in graph.nodes for name in node.outputs} | {graph.output: 1}
    for node in graph.nodes:
        for name in node.inputs:
            counts[name] = counts.get(name, 0) + 1
    return counts


def _used(graph: OnnxGraph) -> OnnxGraph:
    """Without nodes whose outputs nobody reads."""
    needed = {graph.output}
    nodes: list[Node] = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            needed.update(node.inputs)
            nodes.append(node)
    return replace(graph, nodes=tuple(reversed(nodes)))
