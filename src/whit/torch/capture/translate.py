"""ATen operators in the graph's own vocabulary: one row an operator, nothing framework-specific beyond this file."""

from collections.abc import Callable
from operator import getitem
from typing import Any

import torch
from torch.fx import Node

from whit.torch.capture import contracting, moving
from whit.torch.capture.nodes import Translation, argument, operator, rank_of

__all__ = ["translate"]

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
            "detach_.default",
            "alias.default",
            "to.dtype",
            "to.dtype_layout",
            "to.device",
            "to.other",
            "type_as.default",
            "lift_fresh_copy.default",
        ),
    ),
}
_POINTWISE = (
    *("pow.Tensor_Scalar", "pow.Scalar", "rsqrt.default", "sqrt.default", "exp.default", "log.default", "abs.default"),
    *("sin.default", "cos.default", "erf.default", "reciprocal.default", "softplus.default", "mish.default"),
    *("mish_.default", "selu.default", "celu.default", "log_sigmoid.default", "square.default"),
    *("where.self", "where.ScalarOther", "where.ScalarSelf", "masked_fill.Scalar", "masked_fill_.Scalar"),
    *("masked_fill.Tensor", "maximum.default", "minimum.default", "addcmul.default", "lerp.Scalar", "lerp.Tensor"),
    *("pow.Tensor_Tensor", "sign.default", "floor.default", "logical_not.default", "bitwise_not.default"),
    *("clamp_min.default", "clamp_max.default", "clamp_min_.default", "prelu.default", "clamp.Tensor"),
    *("div.Tensor_mode", "div.Scalar_mode", "remainder.Scalar", "fmod.Scalar", "expm1.default", "log1p.default"),
    *("exp2.default", "log2.default", "atan.default", "asinh.default", "sinh.default", "cosh.default"),
    *("softsign.default", "hardshrink.default", "softshrink.default", "threshold.default", "nan_to_num.default"),
    *("exp_.default", "sqrt_.default", "rsqrt_.default", "square_.default", "abs_.default", "neg_.default"),
    *("round.default", "ceil.default", "trunc.default", "isnan.default", "isinf.default", "logical_and.default"),
    *(f"{name}.{kind}" for name in ("eq", "ne", "lt", "le", "gt", "ge") for kind in ("Scalar", "Tensor")),
    *("add_.Scalar", "sub_.Scalar", "mul_.Scalar", "div_.Scalar"),
)
_RESHAPE = (
    *("view.default", "reshape.default", "_unsafe_view.default", "flatten.using_ints", "unflatten.int"),
    *("squeeze.dim", "squeeze.dims", "squeeze.default", "unsqueeze.default", "view_as.default", "reshape_as.default"),
    *("squeeze_.dim", "unsqueeze_.default"),
)
_INTERPOLATE = (
    *("_upsample_bilinear2d_aa.vec", "_upsample_bicubic2d_aa.vec"),
    *(
        f"upsample_{how}.{overload}"
        for how in ("nearest1d", "nearest2d", "nearest3d", "linear1d", "bilinear2d", "bicubic2d", "trilinear3d")
        for overload in ("vec", "default")
    ),
)
_POOL = tuple(f"{name}{rank}d.default" for rank in (1, 2, 3) for name in ("avg_pool", "adaptive_avg_pool"))
_MAX_POOL = tuple(
    f"{name}{rank}d{kind}.default"
    for rank in (1, 2, 3)
    for name, kind in (("max_pool", ""), ("max_pool", "_with_indices"), ("adaptive_max_pool", ""))
)


def translate(node: Node) -> Translation | None:
    """Kind, tensor inputs and attributes of a node; an operator that has no row keeps its ATen name.

    None for a node that gives a list of parts of its input: each part is an operation of its own.
    """
    if node.target is getitem:
        return moving.part(node)
    if node.target in moving.PARTS or node.target in _CHECKS:
        return None
    rule = _RULES.get(node.target)
    found = rule(node) if rule is not None else None
    if found is not None:
        return found
    if node.target is torch.ops.whit.mark.default:
        return "identity", node.all_input_nodes, {}
    return str(node.target), node.all_input_nodes, {}


def _plain(kind: str) -> Callable[[Node], Translation]:
    return lambda node: (kind, node.all_input_nodes, {})


def _elementwise(kind: str) -> Callable[[Node], Translation]:
    return lambda node: (kind, [one for one in node.args if isinstance(one, Node)], {})


def _conv(place: int) -> Callable[[Node], Translation]:
    """Convolutions: x, weight, bias and their groups, which stand at ``place`` among the arguments."""
    return lambda node: ("conv", _matrix_inputs(node), {"groups": int(argument(node, place, "groups", 1))})


def _matrix_inputs(node: Node) -> list[Node]:
    return [one for one in node.args[:3] if isinstance(one, Node)]


def _batch_norm(node: Node) -> Translation:
    present = [one for one in node.args[:5] if isinstance(one, Node)]
    return "batch_norm", present, {}


def _norm(place: int) -> Callable[[Node], Translation]:
    """A normalisation over the last axes: x, and what stands at ``place`` and behind it, its weight and its bias."""

    def rule(node: Node) -> Translation:
        present = [one for one in (node.args[0], *node.args[place : place + 2]) if isinstance(one, Node)]
        sizes: Any = node.args[1]
        rank = rank_of(node)
        return "layer_norm", present, {"axes": tuple(range(rank - len(sizes), rank))}

    return rule


def _axes(node: Node, place: int) -> tuple[int, ...]:
    """The axes that an argument names, or all."""
    rank = rank_of(node.args[0])  # type: ignore[arg-type]
    axes = argument(node, place, "dim", None)
    every = range(rank) if axes is None or axes == [] else [axes] if isinstance(axes, int) else axes
    return tuple(axis % rank for axis in every)


def _mean(node: Node) -> Translation:
    late = any(part in str(node.target) for part in (".correction", "var.dim", "std.dim"))
    keepdim = bool(argument(node, 3 if late else 2, "keepdim", False))
    return "mean", node.all_input_nodes, {"axes": _axes(node, 1), "keepdim": keepdim}


def _sum(node: Node) -> Translation:
    """A sum, of absolute values or squares as well: what is zero adds nothing to it."""
    if node.target == operator("sum.default"):
        return "sum", node.all_input_nodes, {"axes": tuple(range(rank_of(node.args[0]))), "keepdim": False}
    place = 1 if node.target == operator("sum.dim_IntList") else 2
    keepdim = bool(argument(node, place + 1, "keepdim", False))
    return "sum", node.all_input_nodes, {"axes": _axes(node, place), "keepdim": keepdim}


def _along(kind: str) -> Callable[[Node], Translation]:
    """What mixes values along axes that its second argument names."""
    if kind == "softmax":
        return lambda node: (kind, node.all_input_nodes, {"axes": _axes(node, 1)})
    place = {operator("roll.default"): 2}
    return lambda node: (
        kind,
        node.all_input_nodes,
        {"axes": _rolled(node) if node.target in place else _axes_of(node)},
    )


def _axes_of(node: Node) -> tuple[int, ...]:
    return _axes(node, 1) if node.target != operator("flip.default") else _flipped(node)


def _flipped(node: Node) -> tuple[int, ...]:
    axes: Any = argument(node, 1, "dims", ())
    return tuple(axis % rank_of(node) for axis in axes)


def _rolled(node: Node) -> tuple[int, ...]:
    axes: Any = argument(node, 2, "dims", ())
    return tuple(axis % rank_of(node) for axis in axes) or tuple(range(rank_of(node)))


def _spatial(node: Node) -> Translation:
    return "mix", [node.args[0]], {"axes": tuple(range(2, rank_of(node)))}  # type: ignore[list-item]


def _first(kind: str) -> Callable[[Node], Translation]:
    """Of what reads others for their shapes only."""
    return lambda node: (kind, [node.args[0]], {})  # type: ignore[list-item]


def _transposed(node: Node) -> Translation:
    return "conv_transpose", _matrix_inputs(node), {"groups": int(argument(node, 6, "groups", 1))}


def _group_norm(node: Node) -> Translation:
    present = [one for one in (node.args[0], *node.args[2:4]) if isinstance(one, Node)]
    return "group_norm", present, {"groups": int(node.args[1])}  # type: ignore[arg-type]


def _instance_norm(node: Node) -> Translation:
    """A group for every channel."""
    present = [one for one in node.args[:3] if isinstance(one, Node)]
    return "group_norm", present, {"groups": int(node.meta["val"].shape[1])}


def _recurrent(kind: str) -> Callable[[Node], Translation | None]:
    """Its parameters by layer and direction; None where it projects what it hands on."""

    def rule(node: Node) -> Translation | None:
        x, hidden, parameters, biased, depth, _, _, both = node.args[:8]
        directions, each = 1 + bool(both), 4 if biased else 2
        if len(parameters) != depth * directions * each:  # type: ignore[arg-type, operator]
            return None
        states = list(hidden) if isinstance(hidden, list | tuple) else [hidden]
        layers = [
            [parameters[(row * directions + way) * each :][:each] for way in range(directions)]  # type: ignore[index]
            for row in range(depth)  # type: ignore[arg-type]
        ]
        return kind, [x, *states, *parameters], {"layers": layers}  # type: ignore[list-item, misc]

    return rule


def _clip(low: float | None, high: float | None) -> Callable[[Node], Translation]:
    """A clip, to these bounds where it is called with no others."""

    def rule(node: Node) -> Translation:
        names = ("min", "max") if node.target == operator("clamp.default") else ("min_val", "max_val")
        ends = (argument(node, place, names[place - 1], end) for place, end in ((1, low), (2, high)))
        return "clip", node.all_input_nodes, dict(zip(("low", "high"), ends, strict=True))

    return rule


def _rules() -> dict[Any, Callable[[Node], Translation | None]]:
    rules: dict[str, Callable[[Node], Translation | None]] = {}
    for kind, names in _ELEMENTWISE.items():
        rules |= dict.fromkeys(names, _elementwise(kind))
    rules |= dict.fromkeys(_RESHAPE, _first("reshape"))
    rules |= dict.fromkeys(_POOL, _plain("pool"))
    rules |= dict.fromkeys(_MAX_POOL, _plain("max_pool"))
    rules |= dict.fromkeys(("relu6.default", "relu6_.default"), _clip(0.0, 6.0))
    rules |= dict.fromkeys(("hardtanh.default", "hardtanh_.default"), _clip(-1.0, 1.0))
    rules |= dict.fromkeys(("clamp.default", "clamp_.default"), _clip(None, None))
    rules |= dict.fromkeys(("conv1d.default", "conv2d.default", "conv3d.default"), _conv(6))
    rules |= dict.fromkeys(("conv1d.padding", "conv2d.padding", "conv3d.padding"), _conv(6))
    rules |= dict.fromkeys(
        ("conv_transpose1d.default", "conv_transpose2d.input", "conv_transpose3d.input"), _transposed
    )
    rules |= dict.fromkeys(_POINTWISE, _elementwise("pointwise"))
    rules |= dict.fromkeys(_INTERPOLATE, _spatial)
    rules |= dict.fromkeys(("softmax.int", "log_softmax.int"), _along("softmax"))
    rules |= dict.fromkeys(("cumsum.default", "flip.default", "roll.default"), _along("mix"))
    rules |= dict.fromkeys(("sum.default", "sum.dim_IntList", "linalg_vector_norm.default", "norm.ScalarOpt_dim"), _sum)
    rules |= dict.fromkeys(
        (
            *("amax.default", "amin.default", "max.dim", "min.dim", "logsumexp.default"),
            *("var.correction", "std.correction", "var.dim", "std.dim"),
        ),
        _mean,
    )
    rules |= dict.fromkeys(("matmul.default", "bmm.default", "mm.default"), contracting.matmul)
    rules |= dict.fromkeys(("transpose.int", "swapaxes.default", "swapdims.default"), moving.transpose)
    rules |= dict.fromkeys(("t.default", "mT.default"), moving.turned)
    rules |= dict.fromkeys(("movedim.int", "movedim.intlist", "moveaxis.int", "moveaxis.intlist"), moving.moved)
    rules |= {
        "linear.default": lambda node: ("linear", _matrix_inputs(node), {}),
        "embedding.default": lambda node: ("embedding", [node.args[1], node.args[0]], {}),  # type: ignore[list-item]
        "batch_norm.default": _batch_norm,
        "layer_norm.default": _norm(2),
        "rms_norm.default": _norm(2),
        "group_norm.default": _group_norm,
        "instance_norm.default": _instance_norm,
        "addmm.default": contracting.addmm,
        "einsum.default": contracting.einsum,
        "scaled_dot_product_attention.default": contracting.attention,
        "select.int": moving.select,
        "expand.default": _first("expand"),
        "expand_as.default": _first("expand"),
        "repeat.default": moving.repeat,
        "tile.default": moving.repeat,
        "repeat_interleave.self_int": moving.repeat_each,
        "stack.default": moving.stack,
        "narrow.default": moving.narrow,
        "unfold.default": lambda node: ("windows", [node.args[0]], {"axis": int(node.args[1]) % rank_of(node.args[0])}),  # type: ignore[list-item, arg-type]
        "im2col.default": moving.patches("spread", 1),
        "col2im.default": moving.patches("gathered", 2),
        "pixel_shuffle.default": moving.shuffle("gathered"),
        "pixel_unshuffle.default": moving.shuffle("spread"),
        "index.Tensor": moving.gather,
        "index_select.default": moving.index_select,
        "lstm.input": _recurrent("lstm"),
        "gru.input": _recurrent("gru"),
        "rnn_tanh.input": _recurrent("rnn"),
        "rnn_relu.input": _recurrent("rnn"),
        "zeros_like.default": _first("zeros"),
        "mean.dim": _mean,
        "mean.default": _mean,
        "cat.default": moving.concat,
        "permute.default": moving.permute,
        "slice.Tensor": moving.slice_of,
        "pad.default": moving.pad,
        "constant_pad_nd.default": moving.pad,
    }
    return {operator(name): rule for name, rule in rules.items() if operator(name) is not None}


_RULES = _rules()

_CHECKS = {
    operator(name)
    for name in ("_assert_tensor_metadata.default", "_assert_scalar.default", "sym_constrain_range_for_size.default")
}
