"""A module as the operations that ``torch.export`` sees, run from one activation to another, on parameters at will."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind
from torch.fx import Node
from torch.fx.node import map_arg

from whit.graph import own_input
from whit.graph.blocks import LayerBlock, blocks
from whit.torch.activations import INPUT
from whit.torch.capture import Reader, exported

__all__ = ["Program", "Visit"]

_aten: Any = torch.ops.aten
_WEIGHTED = frozenset(
    {_aten.linear.default}
    | {getattr(getattr(_aten, f"conv{rank}d"), kind) for rank in (1, 2, 3) for kind in ("default", "padding")}
)

Visit = Callable[[str, Tensor], Tensor]
"""Takes the name of an activation and the activation, and gives what is gone on with."""


class Program:
    """A module taken apart into blocks, for batches of one size.

    Attributes:
        graph: What it computes.
        blocks: In the order in which they run.
    """

    def __init__(self, module: nn.Module, inputs: Sequence[Tensor]) -> None:
        """Export a module, without the rounding of its activations, on a batch of the size that it will run on."""
        self.program = exported(module, inputs)
        reader = Reader(self.program, batch=inputs[0].shape[0])
        self.graph = reader.graph()
        self.blocks = blocks(self.graph)
        self.names = reader.names
        # Of the nodes of one name the last is the mark, which hands on what was rounded.
        self.ends = {self.names[node]: node for node in self.program.graph.nodes if node in self.names}
        self.specs = {spec.arg.name: spec for spec in self.program.graph_signature.input_specs}  # pyright: ignore
        self.needed: dict[LayerBlock, list[Node]] = {}

    def run(
        self,
        block: LayerBlock,
        inputs: Sequence[Tensor],
        begin: Tensor | None,
        parameters: Mapping[str, Tensor],
        visit: Visit,
    ) -> Tensor:
        """What a block makes.

        Args:
            block: Which.
            inputs: Of the network, for what does not depend on any layer.
            begin: The activation that the block reads; None for the first.
            parameters: Parameters and buffers by name.
            visit: Called on all activations inside, and on what layers are about to read, as a ``Tracker`` does.
        """
        values: dict[Node, Any] = {}
        for node in self._nodes(block):
            if block.reads is not None and node is self.ends[block.reads]:
                values[node] = begin
            elif node.op == "placeholder":
                values[node] = self._given(node, inputs, parameters, visit)
            else:
                args, kwargs = (map_arg(part, values.__getitem__) for part in (node.args, node.kwargs))
                values[node] = self._called(node, args, kwargs, visit)
        return values[self.ends[block.makes]]

    def _nodes(self, block: LayerBlock) -> list[Node]:
        """What has to run, in order."""
        if block not in self.needed:
            begin = None if block.reads is None else self.ends[block.reads]
            found: set[Node] = set()
            reached = [self.ends[block.makes]]
            while reached:
                node = reached.pop()
                if node not in found:
                    found.add(node)
                    reached += [] if node is begin else node.all_input_nodes
            self.needed[block] = [node for node in self.program.graph.nodes if node in found]
        return self.needed[block]

    def _given(self, node: Node, inputs: Sequence[Tensor], parameters: Mapping[str, Tensor], visit: Visit) -> Tensor:
        spec = self.specs[node.name]
        if spec.kind == InputKind.USER_INPUT:
            name = self.names[node]
            x = inputs[int(name.removeprefix(f"{INPUT}."))]
            return visit(name, x) if x.is_floating_point() else x
        if self.names.get(node) in parameters:
            return parameters[self.names[node]]
        constant = self.program.constants[str(spec.target)]  # or a buffer that is not in a module's state
        assert isinstance(constant, Tensor)
        return constant

    def _called(self, node: Node, args: Any, kwargs: Any, visit: Visit) -> Any:
        if node.op == "get_attr":
            return getattr(self.program.graph_module, str(node.target))
        if node.target is torch.ops.whit.mark.default:
            return visit(args[1], args[0])
        if node.target in _WEIGHTED and own_input(self.names[node]) not in self.graph.tensors:
            args = (visit(own_input(self.names[node]), args[0]), *args[1:])  # else it was visited when it was made
        target: Any = node.target
        return target(*args, **kwargs)
