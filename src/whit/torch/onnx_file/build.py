"""A torch module from the graph of an ONNX file."""

import inspect
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from whit.data import Array
from whit.errors import ModelError, listed
from whit.torch.onnx_file.file import Node, OnnxGraph
from whit.torch.onnx_file.layers import LAYERS, Layer
from whit.torch.onnx_file.network import OnnxNetwork, Step
from whit.torch.onnx_file.operators import OPERATORS, function_of
from whit.torch.onnx_file.operators.values import sizes

__all__ = ["built"]

_QUANTIZED = re.compile(r"QLinear|QGemm|.*(Quantize|Dequantize)Linear|.*Integer|MatMulNBits")


def built(graph: OnnxGraph) -> OnnxNetwork:
    """The module.

    Raises:
        ModelError: An operator is not known, or not in this form; the message names the node.
    """
    return _Builder(graph).network()


class _Builder:
    def __init__(self, graph: OnnxGraph) -> None:
        self.graph = graph
        self.steps: list[Step] = []
        self.layers: dict[tuple[Any, ...], tuple[str, Layer]] = {}
        self.modules: dict[str, nn.Module] = {}
        self.parameters: dict[str, torch.Tensor] = {}
        self.constants: dict[str, float | Array] = {}
        self.tensors: dict[str, str] = {}

    def network(self) -> OnnxNetwork:
        graph = self.graph
        for node in graph.nodes:
            self._add(node)
        network = OnnxNetwork(
            declared=graph.inputs,
            steps=_forgetting(self.steps, graph.output),
            output=graph.output,
            constants=self.constants,
            tensors=self.tensors,
            batch=graph.batch,
        )
        for name, module in self.modules.items():
            network.add_module(name, module)
        for name, tensor in self.parameters.items():
            if tensor.is_floating_point() and tensor.numel() > 1:
                network.register_parameter(name, nn.Parameter(tensor))
            else:
                network.register_buffer(name, tensor)
        return network.eval()

    def _add(self, node: Node) -> None:
        if self._as_layer(node):
            return
        function = function_of(node.operator, self.graph.opset)
        if function is None:
            raise ModelError(self._unknown(node))
        node = self._with_free_batch(node)
        attributes = dict(node.attributes)
        if node.operator == "Split":
            attributes.setdefault("num_outputs", len(node.outputs))
        elif any(node.outputs[1:]):
            raise ModelError(
                f"{node}, opset {self.graph.opset}, makes {listed(node.outputs)}; whit knows its first output"
            )
        try:
            inspect.signature(function).bind(*node.inputs, **attributes)
        except TypeError as error:
            raise ModelError(
                f"{node}, opset {self.graph.opset}, is used in a way that whit does not know: {error}"
            ) from error
        self.steps.append(
            Step(
                node=str(node),
                run=function,
                inputs=tuple(self._value(name) if name else None for name in node.inputs),
                outputs=node.outputs,
                attributes=attributes,
            )
        )

    def _as_layer(self, node: Node) -> bool:
        """Add a node as a layer with weights, if it is one."""
        rule = LAYERS.get(node.operator)
        if rule is None or len(node.inputs) <= rule.reads:
            return False
        x = node.inputs[rule.reads]
        given = [name for place, name in enumerate(node.inputs) if place != rule.reads]
        if not given or x in self.graph.constants or any(name and name not in self.graph.constants for name in given):
            return False
        made = self._layer(node, rule.make, tuple(given))
        if made is None:
            return False
        name, layer = made
        if layer.before is not None:
            padded = f"{node.outputs[0]}:padded"
            self.steps.append(Step(node=str(node), run=layer.before, inputs=(x,), outputs=(padded,), attributes={}))
            x = padded
        self.steps.append(Step(node=str(node), run=name, inputs=(x,), outputs=node.outputs[:1], attributes={}))
        return True

    def _layer(self, node: Node, make: Callable[..., Layer | None], given: tuple[str, ...]) -> tuple[str, Layer] | None:
        """The layer of a node; nodes that do the same with the same weights share it."""
        key = (node.operator, given, repr(sorted(node.attributes.items())))
        if key not in self.layers:
            arrays = [self.graph.constants[name] if name else None for name in given]
            try:
                inspect.signature(make).bind(*arrays, **node.attributes)
                layer = make(*arrays, **node.attributes)
            except (TypeError, ValueError, RuntimeError) as error:
                raise ModelError(f"{node}, opset {self.graph.opset}, cannot be read: {error}") from error
            if layer is None:
                return None
            name = self._free_name(node.name)
            self.modules[name] = layer.module
            self.layers[key] = name, layer
        return self.layers[key]

    def _value(self, name: str) -> str:
        """The name of a value that a step reads; a constant is kept in the way that operators take it."""
        array = self.graph.constants.get(name)
        if array is None or name in self.constants or name in self.tensors:
            return name
        if array.dtype.kind != "f":
            self.constants[name] = sizes(array)
        elif array.ndim == 0:
            self.constants[name] = float(array)
        else:
            self.tensors[name] = self._free_name(name)
            self.parameters[self.tensors[name]] = torch.from_numpy(np.array(array))
        return name

    def _with_free_batch(self, node: Node) -> Node:
        """A reshape to the file's one batch size keeps the size that is there."""
        if node.operator != "Reshape" or self.graph.batch is None or node.attributes.get("allowzero"):
            return node
        target = self.graph.constants.get(node.inputs[1])
        if target is None or target.size == 0 or target[0] != self.graph.batch:
            return node
        free = f"{node.outputs[0]}:shape"
        self.constants[free] = sizes([0, *target[1:]])
        return replace(node, inputs=(node.inputs[0], free))

    def _free_name(self, name: str) -> str:
        """A name for a submodule or parameter, made of what a file calls it."""
        name = re.sub(r"\W+", "_", name).strip("_") or "unnamed"
        name = f"n{name}" if name[0].isdigit() else name
        taken = {*self.modules, *self.parameters, *dir(OnnxNetwork), *vars(nn.Module())}
        taken |= {"declared", "steps", "output", "constants", "tensors", "batch"}
        places = (name if place == 1 else f"{name}_{place}" for place in range(1, len(taken) + 2))
        return next(one for one in places if one not in taken)

    def _unknown(self, node: Node) -> str:
        known = listed(sorted({*OPERATORS, *LAYERS}), most=100)
        if _QUANTIZED.match(node.operator):
            return (
                f"{node} is of a network that is quantized already; give whit the floating-point network it was made of"
            )
        if node.operator in LAYERS:
            return f"{node}, opset {self.graph.opset}, has weights that are computed; whit reads constant ones"
        return f"{node}, opset {self.graph.opset}, is not an operator that whit knows. It knows {known}"


def _forgetting(steps: list[Step], output: str) -> list[Step]:
    """The same steps, each with what nobody reads after it."""
    seen: set[str] = {output}
    made = {name for step in steps for name in step.outputs}
    found: list[Step] = []
    for step in reversed(steps):
        values = {name for name in (*step.inputs, *step.outputs) if name is not None and name in made}
        found.append(replace(step, last=tuple(sorted(values - seen))))
        seen |= values
    return found[::-1]
