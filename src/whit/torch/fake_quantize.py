"""Fake quantization with a straight-through gradient: a custom op for integers, and levels for all other formats."""

from typing import Any

import torch
from torch import Tensor

from whit.formats import Int, bounds_between
from whit.ledger import Rounded

__all__ = ["RoundedWeight", "fake_quantize"]


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


class RoundedWeight:
    """Rounds a weight as a decision says, bit for bit as ``target.quantize`` and ``dequantize`` do.

    The gradient passes up to half a step beyond the smallest and the largest level and stops where a weight was clamped
    (Bengio et al. 2013). Scales and codebooks stay as they are.
    """

    def __init__(self, decision: Rounded) -> None:
        target = decision.target
        rows, columns = decision.codes.shape
        self.block = target.block(columns)
        self.scale, self.zero_point = (
            torch.from_numpy(one).expand(rows, -1).contiguous() for one in (decision.scale, decision.zero_point)
        )
        self.integers = target if isinstance(target, Int) and target.has_zero else None
        levels = target.levels(decision.codebook)
        # One symmetric bit has the levels -1 and 1, of which zero gets the second: as the even of two codes 1 and 2.
        self.bounds = torch.from_numpy(bounds_between(levels, target.low if target.has_zero else 1))
        self.levels = torch.from_numpy(levels.copy())

    def __call__(self, weight: Tensor) -> Tensor:
        """The weight, one row an index of its first axis, rounded."""
        if self.integers is not None:
            low, high = self.integers.low, self.integers.high
            return fake_quantize(weight, self.scale, self.zero_point, self.block, low, high)
        rounded: Tensor = _ToLevels.apply(weight, self.scale, self.levels, self.bounds, self.block)  # type: ignore[no-untyped-call]
        return rounded


class _ToLevels(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, scale: Tensor, levels: Tensor, bounds: Tensor, block: int) -> Tensor:
        quotients = _blocked(weight, block) / scale.unsqueeze(-1)
        margin = (levels[1:] - levels[:-1]) / 2 if levels.numel() > 1 else levels.new_zeros(1)
        inside = (quotients >= levels[0] - margin[0]) & (quotients <= levels[-1] + margin[-1])
        ctx.save_for_backward(_unblocked(inside, weight, block))
        values = levels[torch.bucketize(quotients, bounds, right=True)] * scale.unsqueeze(-1)
        return _unblocked(values, weight, block)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (inside,) = ctx.saved_tensors
        return gradient * inside, None, None, None, None
