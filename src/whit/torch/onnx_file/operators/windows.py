"""Padding and pooling over windows, and over all there is."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["WINDOWS", "pad_window", "window_pads"]

_AVERAGE: Any = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
_MAX: Any = (F.max_pool1d, F.max_pool2d, F.max_pool3d)


def window_pads(
    extents: Sequence[int], strides: Sequence[int], size: Sequence[int], pads: Sequence[int] | None, auto_pad: str
) -> list[tuple[int, int]]:
    """How much is added before and after each axis.

    Args:
        extents: How far a window reaches, ``dilation * (kernel - 1) + 1``.
        strides: From one window to the next.
        size: Of what the windows move over; read if ``auto_pad`` is ``SAME_UPPER`` or ``SAME_LOWER``.
        pads: All amounts before, then all after.
        auto_pad: ``NOTSET``, ``VALID``, ``SAME_UPPER`` or ``SAME_LOWER``.

    >>> window_pads([3], [2], [32], None, "SAME_UPPER"), window_pads([3], [1], [32], [1, 1], "NOTSET")
    ([(0, 1)], [(1, 1)])
    """
    rank = len(extents)
    if auto_pad == "VALID" or (auto_pad == "NOTSET" and pads is None):
        return [(0, 0)] * rank
    if auto_pad == "NOTSET" and pads is not None:
        return list(zip(pads[:rank], pads[rank:], strict=True))
    if auto_pad not in ("SAME_UPPER", "SAME_LOWER"):
        raise ValueError(f"its auto_pad is {auto_pad}; ONNX knows NOTSET, VALID, SAME_UPPER and SAME_LOWER")
    found: list[tuple[int, int]] = []
    for extent, stride, length in zip(extents, strides, size, strict=True):
        total = max((-(-length // stride) - 1) * stride + extent - length, 0)
        less, more = total // 2, total - total // 2
        found.append((less, more) if auto_pad == "SAME_UPPER" else (more, less))
    return found


def pad_window(
    x: Tensor,
    *,
    extents: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int] | None = None,
    auto_pad: str = "NOTSET",
    value: float = 0.0,
) -> Tensor:
    """``x`` with what windows read beyond its ends."""
    return _padded(x, window_pads(extents, strides, x.shape[2:], pads, auto_pad), value)


def _padded(x: Tensor, amounts: list[tuple[int, int]], value: float) -> Tensor:
    flat = [amount for pair in reversed(amounts) for amount in pair]
    return F.pad(x, flat, value=value) if any(flat) else x


def max_pool(
    x: Tensor,
    *,
    kernel_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    storage_order: int = 0,
) -> Tensor:
    """The largest value of each window."""
    rank = len(kernel_shape)
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    extents = [dilation * (size - 1) + 1 for size, dilation in zip(kernel_shape, dilations, strict=True)]
    amounts = window_pads(extents, strides, x.shape[2:], pads, auto_pad)
    fits = all(before == after <= size // 2 for (before, after), size in zip(amounts, kernel_shape, strict=True))
    if not fits:
        x, amounts = _padded(x, amounts, -torch.inf), [(0, 0)] * rank
    padding = tuple(before for before, _ in amounts)
    pool = _MAX[rank - 1]
    return pool(x, tuple(kernel_shape), tuple(strides), padding, tuple(dilations), ceil_mode=bool(ceil_mode))


def average_pool(
    x: Tensor,
    *,
    kernel_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
) -> Tensor:
    """The mean of each window."""
    rank = len(kernel_shape)
    if set(dilations or [1]) != {1}:
        raise ValueError("its windows have gaps (dilations), which whit does not know")
    stride = tuple(strides or [1] * rank)
    amounts = window_pads(kernel_shape, stride, x.shape[2:], pads, auto_pad)
    pool = _AVERAGE[rank - 1]
    options: Any = {"ceil_mode": bool(ceil_mode)}
    if all(before == after <= size // 2 for (before, after), size in zip(amounts, kernel_shape, strict=True)):
        padding = tuple(before for before, _ in amounts)
        return pool(x, tuple(kernel_shape), stride, padding, count_include_pad=bool(count_include_pad), **options)
    means = pool(_padded(x, amounts, 0.0), tuple(kernel_shape), stride, **options)
    if count_include_pad:
        return means
    there = _padded(torch.ones_like(x[:1, :1]), amounts, 0.0)
    return means / pool(there, tuple(kernel_shape), stride, **options)


def global_average_pool(x: Tensor) -> Tensor:
    """The mean over all axes behind the first two."""
    return x.mean(tuple(range(2, x.dim())), keepdim=True)


def global_max_pool(x: Tensor) -> Tensor:
    """The largest value over all axes behind the first two."""
    return x.amax(tuple(range(2, x.dim())), keepdim=True)


WINDOWS: dict[str, Callable[..., Any]] = {
    "AveragePool": average_pool,
    "GlobalAveragePool": global_average_pool,
    "GlobalMaxPool": global_max_pool,
    "MaxPool": max_pool,
}
