"""ATen operators in the graph's own vocabulary: one row an operator, nothing framework-specific beyond this file."""

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Node

__all__ = ["translate"]

_aten: Any = torch.ops.aten

Translation = tuple[str, list[Node], dict[str, Any]]

_ELEMENTWISE: dict[str, tuple[str, ...]] = {
    "add": ("add.Tensor", "add_.Tensor", "add.Scalar"),
    "sub": ("sub.Tensor", "sub_.Tensor", "sub.Scalar", "rsub.Scalar"),
    "mul": ("mul.Tensor", "mul_.Tensor", "mul.Scalar"),
    "div": ("div.Tensor", "div_.Tensor", "div.Scalar"),
    "neg": ("neg.default",),
    "relu": ("relu.default", "relu_.default"),
    "leaky_relu": ("leaky_relu.default", "leaky_relu_.default"),
    "elu": ("elu.default", "elu_.default"),
    "sigmoid": ("sigmoid.default", "sigmoid_.default"),
    "tanh": ("tanh.default", "tanh_.default"),
    "silu": ("silu.default", "silu_.default"),
    "gelu": ("gelu.default",),
    "hardswish": ("hardswish.default", "hardswish_.default"),
    "hardsigmoid": ("hardsigmoid.default", "hardsigmoid_.default"),
    "identity": (
        *("dropout.default", "dropout_.default", "feature_dropout.default", "alpha_dropout.default"),
        *(
            "clone.default",
            "contiguous.default",
            "detach.default",
            "alias.default",
            "to.dtype",
            "lift_fresh_copy.default",
        ),
    ),
}
_RESHAPE = (
    *("view.default", "reshape.default", "_unsafe_view.default", "flatten.using_ints", "unflatten.int"),
    *("squeeze.dim", "squeeze.dims", "squeeze.default", "unsqueeze.default"),
)
_POOL = tuple(f"{name}{rank}d.default" for rank in (1, 2, 3) for name in ("avg_pool", "adaptive_avg_pool"))
_MAX_POOL = tuple(f"max_pool{rank}d.default" for rank in (1, 2, 3))


def translate(node: Node) -> Translation:
    """Kind, tensor inputs and attributes of a node; an operator that has no row keeps its ATen name."""
    rule = _RULES.get(node.target)
    if rule is not None:
        return rule(node)
    if node.target is torch.ops.whit.mark.default:
        return "identity", node.all_input_nodes, {}
    return str(node.target), node.all_input_nodes, {}


def _plain(kind: str) -> Callable[[Node], Translation]:
    return lambda node: (kind, node.all_input_nodes, {})


def _elementwise(kind: str) -> Callable[[Node], Translation]:
    return lambda node: (kind, [one for one in node.args if isinstance(one, Node)], {})


def _rank(node: Node) -> int:
    value: Any = node.meta["val"]
    return len(value.shape)


def _argument(node: Node, place: int, name: str, default: Any) -> Any:
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def _conv(place: int) -> Callable[[Node], Translation]:
    """Convolutions: x, weight, bias and their groups, which stand at ``place`` among the arguments."""
    return lambda node: ("conv", _matrix_inputs(node), {"groups": int(_argument(node, place, "groups", 1))})


def _matrix_inputs(node: Node) -> list[Node]:
    return [one for one in node.args[:3] if isinstance(one, Node)]


def _batch_norm(node: Node) -> Translation:
    present = [one for one in node.args[:5] if isinstance(one, Node)]
    return "batch_norm", present, {}


def _norm(place: int) -> Callable[[Node], Translation]:
    """A normalisation over the last axes: x, and what stands at ``place`` and behind it, its weight and its bias."""

    def rule(node: Node) -> Translation:
        present = [one for one in (node.args[0], *node.args[place : place + 2]) if isinstance(one, Node)]
        return "layer_norm", present, {}

    return rule


def _mean(node: Node) -> Translation:
    rank = _rank(node.args[0])  # type: ignore[arg-type]
    axes = _argument(node, 1, "dim", None)
    axes = (
        tuple(range(rank))
        if axes is None
        else tuple(axis % rank for axis in ([axes] if isinstance(axes, int) else axes))
    )
    return "mean", node.all_input_nodes, {"axes": axes, "keepdim": bool(_argument(node, 2, "keepdim", False))}


def _concat(node: Node) -> Translation:
    parts: Any = node.args[0]
    return "concat", list(parts), {"axis": int(_argument(node, 1, "dim", 0))}


def _permute(node: Node) -> Translation:
    rank = _rank(node)
    return "permute", node.all_input_nodes, {"axes": tuple(axis % rank for axis in _argument(node, 1, "dims", ()))}


def _transpose(node: Node) -> Translation:
    rank = _rank(node)
    first, second = (int(axis) % rank for axis in node.args[1:3])  # type: ignore[arg-type]
    axes = list(range(rank))
    axes[first], axes[second] = axes[second], axes[first]
    return "permute", node.all_input_nodes, {"axes": tuple(axes)}


def _slice(node: Node) -> Translation:
    axis, start, stop, step = (
        _argument(node, p, n, d) for p, n, d in ((1, "dim", 0), (2, "start", None), (3, "end", None), (4, "step", 1))
    )
    value: Any = node.args[0].meta["val"]  # type: ignore[union-attr]
    size = int(value.shape[axis])
    start, stop, step = slice(start, stop, step).indices(size)
    if (start, stop, step) == (0, size, 1):
        return "identity", node.all_input_nodes, {}
    return "slice", node.all_input_nodes, {"axis": int(axis), "start": start, "stop": stop, "step": step}


def _pad(node: Node) -> Translation:
    rank = _rank(node)
    amounts: Any = node.args[1]
    grown = tuple(rank - 1 - place // 2 for place, amount in enumerate(amounts) if amount)
    by_value = node.target is _aten.constant_pad_nd.default
    value = _argument(node, 2, "value", 0.0) if by_value else _argument(node, 3, "value", None) or 0.0
    constant = by_value or _argument(node, 2, "mode", "constant") == "constant"
    attributes = {"axes": tuple(dict.fromkeys(grown)), "value": float(value) if constant else None}
    return "pad", node.all_input_nodes, attributes


def _clip(low: float | None, high: float | None) -> Callable[[Node], Translation]:
    """A clip, to these bounds where it is called with no others."""

    def rule(node: Node) -> Translation:
        names = ("min", "max") if node.target == _operator("clamp.default") else ("min_val", "max_val")
        ends = (_argument(node, place, names[place - 1], end) for place, end in ((1, low), (2, high)))
        return "clip", node.all_input_nodes, dict(zip(("low", "high"), ends, strict=True))

    return rule


def _operator(name: str) -> Any:
    """An ATen overload by its name, or None where this torch does not have it."""
    packet, _, overload = name.partition(".")
    return getattr(getattr(_aten, packet, None), overload, None)


def _rules() -> dict[Any, Callable[[Node], Translation]]:
    rules: dict[str, Callable[[Node], Translation]] = {}
    for kind, names in _ELEMENTWISE.items():
        rules |= dict.fromkeys(names, _elementwise(kind))
    rules |= dict.fromkeys(_RESHAPE, _plain("reshape"))
    rules |= dict.fromkeys(_POOL, _plain("pool"))
    rules |= dict.fromkeys(_MAX_POOL, _plain("max_pool"))
    rules |= dict.fromkeys(("relu6.default", "relu6_.default"), _clip(0.0, 6.0))
    rules |= dict.fromkeys(("hardtanh.default", "hardtanh_.default"), _clip(-1.0, 1.0))
    rules |= dict.fromkeys(("clamp.default", "clamp_.default"), _clip(None, None))
    rules |= dict.fromkeys(("conv1d.default", "conv2d.default", "conv3d.default"), _conv(6))
    rules |= dict.fromkeys(("conv1d.padding", "conv2d.padding", "conv3d.padding"), _conv(6))
    rules |= dict.fromkeys(("softmax.int", "log_softmax.int"), _plain("softmax"))
    rules |= {
        "linear.default": lambda node: ("linear", _matrix_inputs(node), {}),
        "embedding.default": lambda node: ("embedding", [node.args[1], node.args[0]], {}),  # type: ignore[list-item]
        "batch_norm.default": _batch_norm,
        "layer_norm.default": _norm(2),
        "rms_norm.default": _norm(2),
        "mean.dim": _mean,
        "mean.default": _mean,
        "cat.default": _concat,
        "permute.default": _permute,
        "transpose.int": _transpose,
        "slice.Tensor": _slice,
        "pad.default": _pad,
        "constant_pad_nd.default": _pad,
    }
    return {_operator(name): rule for name, rule in rules.items() if _operator(name) is not None}


_RULES = _rules()
