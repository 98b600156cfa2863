"""A module as a graph, read from ``torch.export``; the module itself stays as it is."""

import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from operator import getitem
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec
from torch.fx import Node

from whit.errors import ModelError
from whit.graph import Graph, Operation
from whit.graph import Tensor as GraphTensor
from whit.graph.residuals import without_zeros
from whit.torch.activations import INPUT, Tracker, mark, unrounded
from whit.torch.capture.inlining import inlined_
from whit.torch.capture.translate import translate

__all__ = ["Reader", "capture", "exported"]


class _Marked(nn.Module):
    """A network whose activations are marked with their names."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *args: Any) -> Any:
        with Tracker(lambda name, x: mark(x, name)):
            return self.network(*args)


def capture(module: nn.Module, inputs: Sequence[Tensor]) -> Graph:
    """Describe a module, without the rounding of activations, by running it once on symbols of these shapes.

    Raises:
        ModelError: ``torch.export`` cannot follow the module's code.
    """
    return without_zeros(Reader(exported(module, inputs), batch=inputs[0].shape[0]).graph())


def exported(module: nn.Module, inputs: Sequence[Tensor]) -> ExportedProgram:
    """What ``torch.export`` sees of a module, its activations marked with their names and not rounded.

    Raises:
        ModelError: ``torch.export`` cannot follow the module's code; the message says where.
    """
    module.eval()
    try:
        with torch.no_grad(), unrounded(module), warnings.catch_warnings():
            # A recurrent layer keeps a list of its own parameters, which are the same afterwards.
            warnings.filterwarnings("ignore", r"The tensor attributes? .*_flat_weights", UserWarning)
            return inlined_(torch.export.export(_Marked(module), tuple(inputs), strict=False))
    except Exception as error:  # torch.export raises whatever the traced code raises
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"torch.export cannot follow {type(module).__name__} on inputs of shape "
            f"{[tuple(x.shape) for x in inputs]}: {reason}{_line(error)}"
        ) from error


def _line(error: Exception) -> str:
    """Where in the user's own code an error arose: the innermost line that is neither torch's nor whit's."""
    ours = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))
    frames = [one for one in traceback.extract_tb(error.__traceback__) if not one.filename.startswith((*ours, "<"))]
    return f" ({frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line})" if frames else ""


class Reader:
    """Reads an exported program into a graph.

    Attributes:
        names: Of every node that stands for something that has a name, once ``graph`` was asked.
    """

    def __init__(self, program: ExportedProgram, batch: int) -> None:
        self.program = program
        self.batch = batch
        self.names: dict[Node, str] = {}
        self.tensors: dict[str, GraphTensor] = {}
        self.inputs: list[str] = []
        self.marked: set[str] = set()

    def graph(self) -> Graph:
        """The graph."""
        nodes = list(self.program.graph.nodes)
        self._name_placeholders(nodes)
        for node in nodes:
            if node.target is torch.ops.whit.mark.default:
                marked, name = cast(tuple[Node, str], node.args)
                self.names[node] = name
                self.marked.add(name)
                self.names[marked] = self.names.get(marked, name) if marked.op == "placeholder" else name
        operations: list[Operation] = []
        outputs: list[str] = []
        for node in nodes:
            if node.op == "output":
                outputs = [self._name(one) for one in node.all_input_nodes]
            elif node.op == "get_attr":
                self._add(node, self._name(node), "constant")
            elif node.op == "call_function":
                operations += self._operation(node)
        return Graph(
            tensors=self.tensors,
            operations=tuple(operations),
            inputs=tuple(self.inputs),
            outputs=tuple(outputs),
            batch=self.batch,
        )

    def _name_placeholders(self, nodes: Sequence[Node]) -> None:
        specs = {spec.arg.name: spec for spec in self.program.graph_signature.input_specs}  # pyright: ignore
        for node in nodes:
            if node.op != "placeholder":
                continue
            spec = specs[node.name]
            if spec.kind == InputKind.USER_INPUT:
                self.names[node] = f"{INPUT}.{len(self.inputs)}"
                self.inputs.append(self.names[node])
                self._add(node, self.names[node], "input")
            elif spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
                self.names[node] = str(spec.target).removeprefix("network.")
                self._add(node, self.names[node], _role(node, spec))
            else:
                self._add(node, self._name(node), "constant")

    def _name(self, node: Node) -> str:
        return self.names.get(node, node.name)

    def _add(self, node: Node, name: str, role: Any) -> None:
        value = node.meta.get("val")
        if isinstance(value, list | tuple) and value:
            value = value[0]
        shape = tuple(int(size) for size in value.shape) if isinstance(value, Tensor) else ()
        inner = role == "activation" and name not in self.marked
        self.tensors.setdefault(name, GraphTensor(name=name, shape=shape, role=role, inner=inner))

    def _operation(self, node: Node) -> list[Operation]:
        name = self._name(node)
        self._add(node, name, "activation")
        if node.target is torch.ops.whit.mark.default and self._name(cast(Node, node.args[0])) == name:
            return []
        if node.target is getitem and not node.users:  # of several results one that nobody reads
            return []
        translated = translate(node)
        if translated is None:
            return []
        kind, inputs, attributes = translated
        if "layers" in attributes:
            attributes = {"layers": _named(attributes["layers"], self._name)}
        return [
            Operation(
                kind=kind,
                inputs=tuple(self._name(one) for one in inputs),
                output=name,
                layer=_layer(node.meta.get("nn_module_stack")),
                attributes=attributes,
            )
        ]


def _role(node: Node, spec: InputSpec) -> str:
    """What a parameter is, or a buffer, which the network's state has or not."""
    if not node.meta["val"].is_floating_point():
        return "constant"
    if spec.kind == InputKind.PARAMETER:
        return "parameter"
    return "buffer" if spec.persistent is False else "state"


def _named(value: Any, name: Callable[[Node], str]) -> Any:
    """Nodes by their names, however they are nested."""
    return name(value) if isinstance(value, Node) else tuple(_named(one, name) for one in value)


def _layer(stack: Mapping[str, tuple[str, Any]] | None) -> str:
    """Dotted name of the innermost module that ran a node."""
    path = list(stack.values())[-1][0] if stack else ""
    return path.removeprefix("network").removeprefix(".")
