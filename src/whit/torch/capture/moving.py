"""ATen operators that move values, or give parts of a tensor: one row an operator."""

from collections.abc import Callable
from math import prod
from typing import Any

from torch.fx import Node

from whit.torch.capture.nodes import Translation, argument, operator, rank_of

__all__ = [
    "PARTS",
    "concat",
    "gather",
    "index_select",
    "moved",
    "narrow",
    "pad",
    "part",
    "patches",
    "permute",
    "repeat",
    "repeat_each",
    "select",
    "shuffle",
    "slice_of",
    "stack",
    "transpose",
    "turned",
]

PARTS = {
    operator(name)
    for name in (
        *("chunk.default", "split.Tensor", "split.sizes", "split_with_sizes.default", "unbind.int"),
        *("unsafe_chunk.default", "unsafe_split.Tensor", "tensor_split.sections", "tensor_split.indices"),
    )
}
"""Operators that give a list of parts of what they read."""


def select(node: Node) -> Translation:
    """One index of an axis, which goes."""
    source: Any = node.args[0]
    axis, index = int(node.args[1]) % rank_of(source), int(node.args[2])  # type: ignore[arg-type]
    return _selected(source, axis, index)


def _selected(source: Node, axis: int, index: int) -> Translation:
    return "select", [source], {"axis": axis, "index": index % int(source.meta["val"].shape[axis])}


def repeat(node: Node) -> Translation:
    """A tensor tiled along its axes."""
    times: Any = node.args[1]
    full = (1,) * (rank_of(node) - len(times)) + tuple(int(one) for one in times)
    return "repeat", [node.args[0]], {"times": full, "each": False}  # type: ignore[list-item]


def repeat_each(node: Node) -> Translation | None:
    """Every index of an axis repeated; None where it lays the tensor in one row."""
    axis: Any = argument(node, 2, "dim", None)
    if axis is None:
        return None
    times = [1] * rank_of(node)
    times[axis] = int(node.args[1])  # type: ignore[arg-type]
    return "repeat", [node.args[0]], {"times": tuple(times), "each": True}  # type: ignore[list-item]


def shuffle(kind: str) -> Callable[[Node], Translation]:
    """Channels that become pixels, or pixels that become channels, by a factor in height and width."""
    return lambda node: (kind, node.all_input_nodes, {"times": int(node.args[1]) ** 2})  # type: ignore[arg-type]


def patches(kind: str, place: int) -> Callable[[Node], Translation]:
    """Windows of an image as columns, a channel as many rows as they have places, or such columns as an image."""

    def rule(node: Node) -> Translation:
        size: Any = node.args[place]
        return kind, [node.args[0]], {"times": prod(size)}  # type: ignore[list-item]

    return rule


def gather(node: Node) -> Translation | None:
    """Indices for neighbouring axes; None for those that lie apart, whose axes move to the front."""
    source: Any = node.args[0]
    indices: Any = node.args[1]
    axes = [axis for axis, one in enumerate(indices) if one is not None]
    if axes != list(range(axes[0], axes[0] + len(axes))):
        return None
    rank = len(node.meta["val"].shape) - len(source.meta["val"].shape) + len(axes)
    return "gather", [source], {"axis": axes[0], "count": len(axes), "rank": rank}


def index_select(node: Node) -> Translation:
    """Indices along one axis."""
    axis = int(node.args[1]) % rank_of(node)  # type: ignore[arg-type]
    return "gather", [node.args[0]], {"axis": axis, "count": 1, "rank": 1}  # type: ignore[list-item]


def concat(node: Node) -> Translation:
    """Parts side by side along an axis."""
    parts: Any = node.args[0]
    return "concat", list(parts), {"axis": int(argument(node, 1, "dim", 0))}


def stack(node: Node) -> Translation:
    """Tensors of one shape side by side along a new axis."""
    parts: Any = node.args[0]
    return "stack", list(parts), {"axis": int(argument(node, 1, "dim", 0)) % rank_of(node)}


def permute(node: Node) -> Translation:
    """Axes in another order."""
    rank = rank_of(node)
    return "permute", node.all_input_nodes, {"axes": tuple(axis % rank for axis in argument(node, 1, "dims", ()))}


def transpose(node: Node) -> Translation:
    """Two axes swapped."""
    rank = rank_of(node)
    first, second = (int(axis) % rank for axis in node.args[1:3])  # type: ignore[arg-type]
    axes = list(range(rank))
    axes[first], axes[second] = axes[second], axes[first]
    return "permute", node.all_input_nodes, {"axes": tuple(axes)}


def turned(node: Node) -> Translation:
    """The last two axes of a matrix, or of many, swapped."""
    axes = list(range(rank_of(node)))
    axes[-2:] = axes[:-3:-1]
    return "permute", node.all_input_nodes, {"axes": tuple(axes)}


def moved(node: Node) -> Translation:
    """Axes moved to other places."""
    rank = rank_of(node)
    sources, goals = ([one] if isinstance(one, int) else list(one) for one in node.args[1:3])  # type: ignore[arg-type]
    by_goal = {goal % rank: source % rank for source, goal in zip(sources, goals, strict=True)}
    others = iter(axis for axis in range(rank) if axis not in by_goal.values())
    axes = tuple(by_goal[axis] if axis in by_goal else next(others) for axis in range(rank))
    return "permute", node.all_input_nodes, {"axes": axes}


def narrow(node: Node) -> Translation:
    """A number of indices of an axis, from one of them on."""
    source: Any = node.args[0]
    axis, start, length = (int(one) for one in node.args[1:4])  # type: ignore[arg-type]
    axis, start = axis % rank_of(source), start % int(source.meta["val"].shape[axis])
    return "slice", [source], {"axis": axis, "start": start, "stop": start + length, "step": 1}


def slice_of(node: Node) -> Translation:
    """A slice; the identity where it takes all."""
    axis, start, stop, step = (
        argument(node, p, n, d) for p, n, d in ((1, "dim", 0), (2, "start", None), (3, "end", None), (4, "step", 1))
    )
    value: Any = node.args[0].meta["val"]  # type: ignore[union-attr]
    size = int(value.shape[axis])
    start, stop, step = slice(start, stop, step).indices(size)
    if (start, stop, step) == (0, size, 1):
        return "identity", node.all_input_nodes, {}
    return (
        "slice",
        node.all_input_nodes,
        {"axis": int(axis) % len(value.shape), "start": start, "stop": stop, "step": step},
    )


def pad(node: Node) -> Translation:
    """Values beside those of a tensor."""
    rank = rank_of(node)
    amounts: Any = node.args[1]
    grown = tuple(rank - 1 - place // 2 for place, amount in enumerate(amounts) if amount)
    by_value = node.target is operator("constant_pad_nd.default")
    value = argument(node, 2, "value", 0.0) if by_value else argument(node, 3, "value", None) or 0.0
    constant = by_value or argument(node, 2, "mode", "constant") == "constant"
    attributes = {"axes": tuple(dict.fromkeys(grown)), "value": float(value) if constant else None}
    return "pad", node.all_input_nodes, attributes


def part(node: Node) -> Translation:
    """One of the parts that a node gives, read from what it splits; of several results the first."""
    source, place = node.args
    assert isinstance(source, Node)
    assert isinstance(place, int)
    if source.target not in PARTS:
        return ("identity", [source], {}) if place == 0 else (f"result {place} of {source.target}", [source], {})
    whole: Any = source.args[0]
    axis = int(argument(source, 1 if source.target == operator("unbind.int") else 2, "dim", 0)) % rank_of(whole)
    if source.target == operator("unbind.int"):
        return _selected(whole, axis, place)
    sizes = [int(one.shape[axis]) for one in source.meta["val"]]
    start = sum(sizes[:place])
    return "slice", [whole], {"axis": axis, "start": start, "stop": start + sizes[place], "step": 1}
