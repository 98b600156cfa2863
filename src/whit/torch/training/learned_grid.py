"""The grid of an activation in training: its step is learned, and its zero point where values lie below zero."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from whit import _core
from whit.formats import Floats, short
from whit.ledger import RoundedActivation

__all__ = ["LearnedGrid"]


class _Rounded(torch.autograd.Function):
    """Values on a grid, with the gradients of LSQ (Esser et al. 2020) and LSQ+ (Bhalgat et al. 2020).

    Where ``x / scale`` lies strictly between the lowest and the highest code, the zero point taken off, the gradient
    passes to ``x``, and the scale gets it times the error of rounding, in steps. Elsewhere none passes; the scale gets
    it times the code, and the zero point times ``-scale``, as the value that is clamped moves with both.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int) -> Tensor:
        zero = int(zero_point.round().clamp(low, high))
        ctx.save_for_backward(x)
        step, least, most = ctx.grid = (float(scale), low - zero, high - zero)
        rounded = _core.round_values(_flat(x, x), step, least, most, torch.get_num_threads())
        return _shaped(rounded, x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (x,) = ctx.saved_tensors
        step, least, most = ctx.grid
        by_y = _flat(gradients[0], x)
        passed, to_scale, clamped = _core.round_gradients(_flat(x, x), by_y, step, least, most, torch.get_num_threads())
        return _shaped(passed, x), torch.tensor(to_scale), torch.tensor(-step * clamped), None, None


def _flat(x: Tensor, like: Tensor) -> Floats:
    """A tensor's values in the order in which those of another, of the same shape, lie in memory."""
    return x.detach().permute(_outermost_first(like)).contiguous().view(-1).numpy()


def _shaped(values: Floats, like: Tensor) -> Tensor:
    """The inverse of ``_flat``; the result lies in memory as ``like`` does."""
    axes = _outermost_first(like)
    return torch.from_numpy(values).view([like.shape[axis] for axis in axes]).permute(np.argsort(axes).tolist())


def _outermost_first(x: Tensor) -> list[int]:
    return sorted(range(x.dim()), key=lambda axis: -x.stride(axis))


class LearnedGrid:
    """What an activation is rounded to while its grid is trained: ``(codes - zero_point) * scale``.

    Attributes:
        log_scale: Logarithm of the step, 0-d.
        zero_point: A code before rounding, 0-d.
        moves: Whether the zero point is trained. Where it is the smallest code, no value below zero was seen, and there
            is nothing to gain.
        width: How many steps there are between the smallest and the largest code.
    """

    def __init__(self, decision: RoundedActivation) -> None:
        """Start from the grid of a decision."""
        target = decision.target
        self.decision = decision
        self.log_scale = torch.tensor(float(decision.scale)).log().requires_grad_()
        self.moves = not target.symmetric and int(decision.zero_point) > target.low
        self.zero_point = torch.tensor(float(decision.zero_point)).requires_grad_(self.moves)
        self.width = target.high - target.low
        self.features = 1

    def round(self, x: Tensor) -> Tensor:
        """The tensor on the grid as it is now."""
        self.features = max(x[0].numel(), 1)
        target = self.decision.target
        return _Rounded.apply(x, self.log_scale.exp(), self.zero_point, target.low, target.high)  # type: ignore[no-any-return]

    def slow(self) -> None:
        """Divide the gradients as LSQ does, by the root of the features times the largest code.

        In a logarithm a step of the scale is as many scales smaller, and so is its gradient larger: hence the square.
        """
        for parameter in (self.log_scale, self.zero_point):
            if parameter.grad is not None:
                parameter.grad *= self.restraint()

    def restraint(self) -> float:
        """What both gradients are multiplied with."""
        return (self.features * self.decision.target.high) ** -0.5 * float(self.log_scale.detach().exp()) ** -2

    def decided(self, *, brief: bool) -> RoundedActivation:
        """The decision as it is now; ``brief`` keeps the scale to 8 significant bits."""
        target = self.decision.target
        scale = np.asarray(self.log_scale.detach().exp().numpy(), np.float32)
        zero_point = np.clip(np.rint(self.zero_point.detach().numpy()), target.low, target.high)
        return replace(
            self.decision, scale=short(scale) if brief else scale, zero_point=np.asarray(zero_point, np.int32)
        )
