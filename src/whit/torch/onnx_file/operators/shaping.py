"""Operators that move values and change none, and those that make shapes."""

from collections.abc import Callable
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from whit.data import Array
from whit.torch.onnx_file.operators.values import floating, numbers, sizes

__all__ = ["SHAPING"]

_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}
_FEW = 64
"""How many whole numbers may stand for a shape."""


def reshape(x: Any, shape: Any, *, allowzero: int = 0) -> Any:
    """The same values in another shape, in which 0 stands for the size that was there."""
    target = numbers(shape, "sizes")
    if not allowzero:
        target = [x.shape[axis] if size == 0 else size for axis, size in enumerate(target)]
    return x.reshape(tuple(target))


def flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    """A matrix, its rows what is before an axis."""
    axis = axis % max(x.dim(), 1) if axis < 0 else axis
    return x.flatten(1) if axis == 1 and x.dim() > 1 else x.reshape(prod(x.shape[:axis]), -1)


def transpose(x: Tensor, *, perm: Any = None) -> Tensor:
    """The axes in another order, by default from last to first."""
    return x.permute(tuple(reversed(range(x.dim())) if perm is None else perm))


def squeeze(x: Any, axes: Any = None) -> Any:
    """Axes of size 1 left out."""
    if axes is None:
        raise ValueError("it names no axes, so what it squeezes would depend on the batch size")
    rank = x.ndim
    places = tuple(axis % rank for axis in numbers(axes, "axes"))
    return x.squeeze(places)


def unsqueeze(x: Any, axes: Any) -> Any:
    """Axes of size 1 put in."""
    places = numbers(axes, "axes")
    rank = x.ndim + len(places)
    for place in sorted(axis % rank for axis in places):
        x = x.unsqueeze(place) if isinstance(x, Tensor) else np.expand_dims(x, place)
    return x


def concat(*parts: Any, axis: int) -> Any:
    """Values one after another along an axis."""
    if not any(isinstance(part, Tensor) for part in parts):
        return np.concatenate([sizes(part) for part in parts], axis)
    return torch.cat([part if isinstance(part, Tensor) else torch.as_tensor(part.tolist()) for part in parts], axis)


def split(x: Tensor, split: Any = None, *, axis: int = 0, num_outputs: int) -> tuple[Tensor, ...]:
    """Parts of given sizes along an axis, or as many equal ones as there are outputs."""
    size = x.shape[axis]
    each = -(-size // num_outputs)
    lengths = [min(each, size - each * part) for part in range(num_outputs)]
    if split is not None:
        lengths = numbers(split, "sizes")
    ends = [0, *np.cumsum(lengths).tolist()]
    return tuple(x.narrow(axis, start, end - start) for start, end in pairwise(ends))


def cut(x: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    """A part along some axes."""
    first, last = numbers(starts, "starts"), numbers(ends, "ends")
    places = range(len(first)) if axes is None else numbers(axes, "axes")
    strides = [1] * len(first) if steps is None else numbers(steps, "steps")
    index = [slice(None)] * x.ndim
    for axis, start, end, step in zip(places, first, last, strides, strict=True):
        if step < 1:
            raise ValueError(f"it goes backwards along axis {axis}, which whit does not know")
        index[axis] = slice(start, end, step)
    return x[tuple(index)]


def gather(x: Any, indices: Any, *, axis: int = 0) -> Any:
    """What stands at some places along an axis."""
    if not isinstance(x, Tensor):
        return sizes(np.take(x, numbers(indices, "indices"), axis)).reshape(np.shape(indices) + x.shape[1:])
    if isinstance(indices, np.ndarray) and indices.ndim == 0:
        return x.select(axis, indices.item())
    places = indices if isinstance(indices, Tensor) else torch.as_tensor(indices.tolist())
    return x[(slice(None),) * (axis % x.dim()) + (places,)]


def expand(x: Tensor, shape: Any) -> Tensor:
    """Values repeated along axes of size 1."""
    target = numbers(shape, "sizes")
    rank = max(x.dim(), len(target))
    target = [1] * (rank - len(target)) + target
    before = [1] * (rank - x.dim()) + list(x.shape)
    return x.expand([old if new == 1 else new for old, new in zip(before, target, strict=True)])


def pad(x: Tensor, pads: Any, value: Any = None, axes: Any = None, *, mode: str = "constant") -> Tensor:
    """More values before and after, along some axes."""
    if mode not in _MODES:
        raise ValueError(f"its mode is {mode}; whit knows {', '.join(_MODES)}")
    amounts = numbers(pads, "amounts")
    places = [axis % x.dim() for axis in (range(x.dim()) if axes is None else numbers(axes, "axes"))]
    pairs = {axis: (amounts[at], amounts[at + len(places)]) for at, axis in enumerate(places)}
    from_last = [pairs.get(axis, (0, 0)) for axis in reversed(range(x.dim()))]
    while from_last and from_last[-1] == (0, 0):
        del from_last[-1]
    flat = [amount for pair in from_last for amount in pair]
    if mode == "constant":
        return F.pad(x, flat, value=floating(value) or 0.0) if flat else x
    return F.pad(x, flat, mode=_MODES[mode]) if flat else x


def shape_of(x: Any, *, start: int = 0, end: int | None = None) -> Array:
    """The sizes of the axes."""
    return sizes(tuple(x.shape)[start:end])


def filled(shape: Any, *, value: Array | None = None) -> Any:
    """One value everywhere."""
    target = tuple(numbers(shape, "sizes"))
    number = 0.0 if value is None else value.reshape(()).item()
    if isinstance(number, int) and len(target) == 1 and target[0] <= _FEW:
        return sizes([number] * target[0])
    return torch.full(target, number)


def arange(start: Any, limit: Any, delta: Any) -> Tensor:
    """Whole numbers from one to another."""
    return torch.arange(*(numbers(one, "bounds")[0] for one in (start, limit, delta)))


def identity(x: Any) -> Any:
    """The same."""
    return x


def dropout(x: Any, ratio: Any = 0.5, training_mode: Any = None, *, seed: int = 0) -> Any:
    """The same: a network that is compressed is trained already."""
    return x


SHAPING: dict[str, Callable[..., Any]] = {
    "Concat": concat,
    "ConstantOfShape": filled,
    "Dropout": dropout,
    "Expand": expand,
    "Flatten": flatten,
    "Gather": gather,
    "Identity": identity,
    "Pad": pad,
    "Range": arange,
    "Reshape": reshape,
    "Shape": shape_of,
    "Slice": cut,
    "Split": split,
    "Squeeze": squeeze,
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
}
