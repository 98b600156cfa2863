"""Fake quantization: one custom op for every format, with a straight-through gradient."""

from typing import Any

import torch
from torch import Tensor

__all__ = ["OPERATOR", "fake_quantize"]


@torch.library.custom_op("whit::fake_quantize", mutates_args=())
def fake_quantize(x: Tensor, scale: Tensor, zero_point: Tensor, block: int, low: int, high: int) -> Tensor:
    """Round to the nearest value of a grid: ``(clamp(round(x / scale) + zero_point, low, high) - zero_point) * scale``.

    Bit for bit what ``whit._core.quantize`` and ``dequantize`` give, and ONNX QuantizeLinear and DequantizeLinear.
    The gradient passes where ``x`` lies on the grid's range and stops where it was clamped (Bengio et al. 2013).

    Args:
        x: Float32, any shape; a weight has one row an index of its first axis.
        scale: 0-d for the whole tensor, or ``(rows, groups)``, float32.
        zero_point: Same shape, int32.
        block: Weights in a group, neighbours in a row; 0 with a 0-d scale.
        low: Smallest code.
        high: Largest code.
    """
    return _round(x, scale, zero_point, block, low, high)[0]


def _round(x: Tensor, scale: Tensor, zero_point: Tensor, block: int, low: int, high: int) -> tuple[Tensor, Tensor]:
    """The rounded tensor, and where it was not clamped."""
    blocks = _blocked(x, block)
    step, zero = (scale, zero_point) if block == 0 else (scale.unsqueeze(-1), zero_point.unsqueeze(-1))
    codes = blocks.div(step).round_().add_(zero)
    inside = (codes >= low) & (codes <= high)
    values = codes.clamp_(low, high).sub_(zero).mul_(step)
    return _unblocked(values, x, block), _unblocked(inside, x, block)


def _blocked(x: Tensor, block: int) -> Tensor:
    """``(rows, groups, block)``, the last group filled up."""
    if block == 0:
        return x
    rows = x.reshape(x.shape[0], -1)
    missing = -rows.shape[1] % block
    if missing:
        rows = torch.nn.functional.pad(rows, (0, missing))
    return rows.reshape(rows.shape[0], -1, block)


def _unblocked(blocks: Tensor, like: Tensor, block: int) -> Tensor:
    if block == 0:
        return blocks
    columns = like.numel() // max(like.shape[0], 1)
    return blocks.reshape(like.shape[0], -1)[:, :columns].reshape(like.shape).contiguous()


@fake_quantize.register_fake
def _(x: Tensor, scale: Tensor, zero_point: Tensor, block: int, low: int, high: int) -> Tensor:
    return torch.empty_like(x)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, scale, zero_point, block, low, high = inputs
    ctx.save_for_backward(_round(x.detach(), scale, zero_point, block, low, high)[1])


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    (inside,) = ctx.saved_tensors
    return gradient * inside, None, None, None, None, None


fake_quantize.register_autograd(_backward, setup_context=_setup)

OPERATOR: Any = torch.ops.whit.fake_quantize.default
"""What stands for it in graphs."""
