"""Parts of an exported program that stand in graphs of their own, in the program's graph."""

from operator import getitem
from typing import Any, cast

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

__all__ = ["inlined_"]

_higher: Any = torch.ops.higher_order


def inlined_(program: ExportedProgram) -> ExportedProgram:
    """Put what runs without gradients or without automatic casts among the other nodes of a program, in place.

    What is cast automatically stays apart: among the others it would be cast no more.
    """
    whole = program.graph_module
    while (call := next((node for node in whole.graph.nodes if _inner(node) is not None), None)) is not None:
        _inline_(whole, call, cast(Node, _inner(call)))
    return program


def _inner(call: Node) -> Node | None:
    """The node that stands for the graph that a node calls, if that can be put in its place."""
    if call.target is _higher.wrap_with_set_grad_enabled:
        return cast(Node, call.args[1])
    if call.target is _higher.wrap_with_autocast and not call.args[2]:
        return cast(Node, call.args[4])
    return None


def _inline_(whole: GraphModule, call: Node, inner: Node) -> None:
    part = cast(GraphModule, getattr(whole, str(inner.target)))
    for node in part.graph.nodes:
        if node.op == "get_attr" and not hasattr(whole, node.target):
            setattr(whole, node.target, getattr(part, node.target))
    inputs = call.args[call.args.index(inner) + 1 :]
    placeholders = (node for node in part.graph.nodes if node.op == "placeholder")
    with whole.graph.inserting_before(call):
        made: Any = whole.graph.graph_copy(part.graph, dict(zip(placeholders, inputs, strict=True)))  # type: ignore[arg-type]
    for user in list(call.users):
        assert user.target is getitem
        user.replace_all_uses_with(made[user.args[1]])
        whole.graph.erase_node(user)
    whole.graph.erase_node(call)
    whole.graph.erase_node(inner)
