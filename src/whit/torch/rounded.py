"""A rounded weight in training: its codes before rounding, its scales, and what its bits cost."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from whit import _core
from whit.formats import short
from whit.ledger import Rounded

__all__ = ["RoundedWeight"]


class _Round(torch.autograd.Function):
    """Nearest integer within bounds; the gradient stops where it was clamped (Bengio et al. 2013)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
        rounded = x.round()
        ctx.save_for_backward((rounded >= low) & (rounded <= high))
        return torch.minimum(torch.maximum(rounded, low), high)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None, None


class _Bits(torch.autograd.Function):
    """Zero, with the slope of the bits of codes, interpolated between one code and the next."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, up: Tensor, down: Tensor) -> Tensor:
        ctx.save_for_backward(torch.where(x >= x.round(), up, down))
        return x.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (slope,) = ctx.saved_tensors
        return gradients[0] * slope, None, None


class RoundedWeight:
    """A weight that is trained through its rounding: ``weight = (round(latent) * scale) * mask``.

    Attributes:
        latent: ``(rows, columns)``, codes before rounding, the zero point taken off.
        log_scale: Logarithm of the scales, as the decision has them.
    """

    def __init__(self, decision: Rounded, mask: Tensor | None) -> None:
        """Start from the codes of a decision; ``mask`` has the weight's shape."""
        assert decision.axis == 0  # torch keeps output channels first
        self.decision = decision
        self.mask = mask
        columns = decision.codes.shape[1]
        block = decision.target.block(columns)
        self.block = block
        zero = torch.from_numpy(np.repeat(decision.zero_point, block, axis=1)[:, :columns].astype(np.float32))
        self.zero = zero
        self.low, self.high = decision.target.low - zero, decision.target.high - zero
        self.latent = (torch.from_numpy(decision.codes.astype(np.float32)) - zero).requires_grad_()
        self.scale = torch.from_numpy(decision.scale)
        self.log_scale = self.scale.log().requires_grad_()
        self.learned = False
        self.slopes: tuple[Tensor, Tensor] | None = None

    def values(self) -> Tensor:
        """The weight, in its own shape."""
        scale = self.log_scale.exp() if self.learned else self.scale
        columns = self.latent.shape[1]
        wide = scale.repeat_interleave(self.block, dim=1)[:, :columns] if scale.shape[1] > 1 else scale
        weight = (_Round.apply(self.latent, self.low, self.high) * wide).reshape(self.decision.shape)
        return weight if self.mask is None else weight * self.mask

    def bits(self) -> Tensor:
        """Zero, with the slope of the bits that the codes take as its gradient; ``look`` must have been called."""
        assert self.slopes is not None
        return _Bits.apply(self.latent, *self.slopes)  # type: ignore[no-any-return]

    def look(self) -> None:
        """Ask the codec's model what a step from each code to the next costs now."""
        up, down = torch.from_numpy(_core.bit_slopes(self._codes()))
        self.slopes = up, down

    def _codes(self) -> Any:
        with torch.no_grad():
            codes = _Round.apply(self.latent, self.low, self.high) + self.zero
            if self.mask is not None:
                codes = torch.where(self.mask.reshape(codes.shape), codes, self.zero.expand_as(codes))
            return codes.to(torch.int32).numpy()

    def decided(self, *, brief: bool) -> Rounded:
        """The decision as it is now; ``brief`` keeps scales to 8 significant bits."""
        scale = self.decision.scale
        if self.learned:
            scale = self.log_scale.detach().exp().numpy()
            scale = short(scale) if brief else scale
        return replace(self.decision, codes=self._codes(), scale=scale)
