"""Layers in an exported program: its calls of convolutions, linear layers and batch normalisations as modules again.

``torch.export`` keeps the names of parameters and makes functions of the modules that owned them. As modules they can
be folded and cut, and bear the names that they had in the user's own network.
"""

from typing import Any, cast

import torch
from torch import nn
from torch.fx import GraphModule, Node

__all__ = ["with_layers_"]

_aten: Any = torch.ops.aten
_CONVOLUTIONS: dict[Any, type[nn.Module]] = {
    getattr(getattr(_aten, f"conv{rank}d"), overload): kind
    for rank, kind in ((1, nn.Conv1d), (2, nn.Conv2d), (3, nn.Conv3d))
    for overload in ("default", "padding")
}
_NORMS: dict[int, type[nn.Module]] = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def with_layers_(program: GraphModule) -> GraphModule:
    """Make modules, in place, of every layer that is used once and owns just the tensors that it is called with.

    Batch normalisations are in evaluation mode, as they were when they were exported.
    """
    uses: dict[str, int] = {}
    for node in program.graph.nodes:
        if node.op == "get_attr":
            uses[node.target] = uses.get(node.target, 0) + len(node.users)
    for node in list(program.graph.nodes):
        found = _layer(node) if node.op == "call_function" else None
        if found is None:
            continue
        layer, tensors = found
        if (path := _owner(program, tensors)) is None or any(uses[str(one.target)] > 1 for one in tensors.values()):
            continue
        for name, tensor in _state(program.get_submodule(path)).items():
            setattr(layer, name, tensor)
        program.set_submodule(path, layer.eval())
        with program.graph.inserting_before(node):
            call = program.graph.call_module(path, (node.args[0],))
        node.replace_all_uses_with(call)
        program.graph.erase_node(node)
    program.graph.eliminate_dead_code()
    program.recompile()
    return program


def _layer(node: Node) -> tuple[nn.Module, dict[str, Node]] | None:
    """A module of the right sizes that does what a call does, without its values; and the call's tensors by name."""
    arguments = _arguments(node)
    if arguments is None:
        return None
    names = {"weight": "weight", "bias": "bias", "running_mean": "running_mean", "running_var": "running_var"}
    tensors = {name: arguments[key] for key, name in names.items() if arguments.get(key) is not None}
    if "weight" not in tensors or any(not isinstance(one, Node) or one.op != "get_attr" for one in tensors.values()):
        return None
    shape = tensors["weight"].meta["val"].shape
    bias = "bias" in tensors
    if node.target is _aten.linear.default:
        return nn.Linear(shape[1], shape[0], bias=bias, device="meta"), tensors
    if node.target is _aten.batch_norm.default:
        kind: Any = _NORMS.get(node.meta["val"].dim())
        if kind is None or arguments["training"] or not bias or "running_mean" not in tensors:
            return None
        return kind(shape[0], eps=arguments["eps"], momentum=arguments["momentum"], device="meta"), tensors
    groups = arguments.get("groups", 1)
    options = {name: arguments[name] for name in ("stride", "padding", "dilation")}
    sizes: dict[str, Any] = {key: tuple(x) if isinstance(x, list) else x for key, x in options.items()}
    made: Any = _CONVOLUTIONS[node.target]
    return made(
        shape[1] * groups, shape[0], tuple(shape[2:]), groups=groups, bias=bias, device="meta", **sizes
    ), tensors


def _arguments(node: Node) -> dict[str, Any] | None:
    """The arguments of a call of a layer by name, defaults filled in; None for other calls."""
    if node.target not in _CONVOLUTIONS and node.target not in (_aten.linear.default, _aten.batch_norm.default):
        return None
    schema: Any = cast(Any, node.target)._schema
    given = dict(zip((argument.name for argument in schema.arguments), node.args, strict=False))
    return {argument.name: argument.default_value for argument in schema.arguments} | given | node.kwargs


def _owner(program: GraphModule, tensors: dict[str, Node]) -> str | None:
    """The module that owns tensors under their own names and nothing else that counts."""
    path = str(tensors["weight"].target).rpartition(".")[0]
    if not path or any(str(one.target) != f"{path}.{name}" for name, one in tensors.items()):
        return None
    owner = program.get_submodule(path)
    return None if set(_state(owner)) - {*tensors, "num_batches_tracked"} or list(owner.children()) else path


def _state(owner: nn.Module) -> dict[str, Any]:
    return {**dict(owner.named_parameters(recurse=False)), **dict(owner.named_buffers(recurse=False))}
