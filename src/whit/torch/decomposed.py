"""A module as an exported program that says its rounding by PyTorch's own operators, as torch's compilers expect it."""

from collections.abc import Callable
from functools import reduce
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from whit.ledger import Ledger, Rounded
from whit.torch.capture.contracting import right_factor
from whit.torch.fake_quantize import OPERATOR

__all__ = ["decomposed"]

_LOW, _HIGH = -127, 127
"""Of weights of up to 8 bits, all of which are stored as bytes."""


def decomposed(module: nn.Module, examples: tuple[Tensor, ...], ledger: Ledger) -> ExportedProgram:
    """Export a module with ``quantized_decomposed`` operators in place of its rounding.

    Weights are their codes behind ``dequantize_per_channel``, rounded activations ``quantize_per_tensor`` behind which
    every reader has a ``dequantize_per_tensor`` of its own: so each can be merged into the operator that reads it, or
    not, without the others.

    Args:
        module: Rounded as the ledger says.
        examples: One batch of each input, whose sizes are those of the program.
        ledger: Weights of at most 8 bits, symmetric, per tensor or channel; activations of unsigned bytes.
    """
    graph_module = _unlifted(module, examples)
    graph = graph_module.graph
    rounded = ledger.rounded()
    for node in list(graph.nodes):
        if node.op == "get_attr" and node.target in rounded:
            weight = rounded[str(node.target)]
            _replace_weight_(graph_module, node, weight, turned=_turned_(graph_module, node, weight))
        elif node.target is OPERATOR:
            _replace_activation_(graph_module, node)
    graph.eliminate_dead_code()
    graph_module.recompile()
    # Exported once more, so that every node knows the shape and type of what it makes.
    return torch.export.export(graph_module, examples)


def _unlifted(module: nn.Module, examples: tuple[Tensor, ...]) -> GraphModule:
    found = torch.export.export(module, examples).module()
    assert isinstance(found, GraphModule)
    return found


def _turned_(graph_module: GraphModule, node: Node, weight: Rounded) -> bool:
    """Let products with a weight of inputs by outputs be linear layers, which XNNPACK runs; whether they are."""
    products = list(node.users)
    if (weight.axis, len(weight.shape)) != (1, 2) or not all(_is_layer(graph_module, one, node) for one in products):
        return False
    for product in products:
        *added, x, _ = product.args
        with node.graph.inserting_before(product):
            linear = node.graph.call_function(torch.ops.aten.linear.default, (x, node, *added))
        product.replace_all_uses_with(linear)
        node.graph.erase_node(product)
    return True


def _is_layer(graph_module: GraphModule, node: Node, weight: Node) -> bool:
    """Whether a node multiplies by the columns of a weight, and adds at most a vector of the network's own."""
    if right_factor(node) is not weight or node.kwargs:
        return False
    added = cast(tuple[Node, ...], node.args[:-2])
    return all(one.op == "get_attr" and _value(graph_module, one).dim() == 1 for one in added)


def _replace_weight_(graph_module: GraphModule, node: Node, weight: Rounded, *, turned: bool) -> None:
    graph, name = graph_module.graph, f"codes_{node.name}"
    rows = weight.shape[weight.axis]
    codes = torch.from_numpy(weight.codes if turned else weight.shaped(weight.codes)).to(torch.int8)
    scale = torch.from_numpy(weight.scale.reshape(-1)).expand(rows).clone()
    for suffix, values in (("", codes), ("_scale", scale), ("_zero", torch.zeros(rows, dtype=torch.int64))):
        graph_module.register_buffer(f"{name}{suffix}", values)
    with graph.inserting_before(node):
        stored = [graph.get_attr(f"{name}{suffix}") for suffix in ("", "_scale", "_zero")]
    _replace_readings_(
        node,
        torch.ops.quantized_decomposed.dequantize_per_channel.default,
        (*stored, 0 if turned else weight.axis, _LOW, _HIGH, torch.int8),
    )


def _replace_activation_(graph_module: GraphModule, node: Node) -> None:
    graph = graph_module.graph
    x, scale, zero_point, _, low, high = cast(Any, node.args)
    step, zero = (_number(graph_module, one) for one in (scale, zero_point))
    # Signed bytes, 128 lower than the unsigned ones.
    grid = (step, zero - 128, low - 128, high - 128, torch.int8)
    operators = torch.ops.quantized_decomposed
    if x.target is torch.ops.aten.cat.default:
        # XNNPACK puts bytes of one grid together, not of several; rounded before or after, the values are the same.
        with graph.inserting_before(x):
            parts = [graph.call_function(operators.quantize_per_tensor.default, (part, *grid)) for part in x.args[0]]
            parts = [graph.call_function(operators.dequantize_per_tensor.default, (part, *grid)) for part in parts]
        x.args = (parts, *x.args[1:])
    with graph.inserting_before(node):
        codes = graph.call_function(operators.quantize_per_tensor.default, (x, *grid))
    _replace_readings_(node, operators.dequantize_per_tensor.default, (codes, *grid))


def _replace_readings_(node: Node, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Let every reader of a node read a call of its own."""
    for reader in list(node.users):
        with node.graph.inserting_before(reader):
            own = node.graph.call_function(function, arguments)
        reader.replace_input_with(node, own)
    node.graph.erase_node(node)


def _number(graph_module: GraphModule, node: Any) -> Any:
    """The one number of a constant."""
    return _value(graph_module, node).item()


def _value(graph_module: GraphModule, node: Any) -> Any:
    """A parameter or a constant."""
    return reduce(getattr, str(node.target).split("."), cast(Any, graph_module))
