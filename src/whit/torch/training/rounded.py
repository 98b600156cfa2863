"""A rounded weight in training: its codes before rounding, its scales, and what its bits cost."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from whit import _core
from whit.data import Array
from whit.formats import Floats, Int, bounds_between, short
from whit.ledger import Rounded

__all__ = ["RoundedWeight"]


_WITHIN = 0.49
"""How far from a code, in steps, a training starts at most."""


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


class _Level(torch.autograd.Function):
    """Nearest of rising levels; the gradient stops half a step beyond the last (Bengio et al. 2013)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, levels: Tensor, bounds: Tensor) -> Tensor:
        margin = levels.diff() / 2 if levels.numel() > 1 else levels.new_zeros(1)
        ctx.save_for_backward((x >= levels[0] - margin[0]) & (x <= levels[-1] + margin[-1]))
        return levels[torch.bucketize(x, bounds, right=True)]

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None, None


class _Bits(torch.autograd.Function):
    """Zero, with the slope of the bits of codes, interpolated between one code and the next."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rounded: Tensor, up: Tensor, down: Tensor) -> Tensor:
        ctx.save_for_backward(torch.where(x >= rounded, up, down))
        return x.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (slope,) = ctx.saved_tensors
        return gradients[0] * slope, None, None, None


class RoundedWeight:
    """A weight that is trained through its rounding: ``weight = (round(latent) * scale) * mask``.

    Where codes are no integers of their own, ``round`` is to the nearest level of the format.

    Attributes:
        latent: ``(rows, columns)``, codes before rounding, the zero point taken off; or levels before rounding.
        log_scale: Logarithm of the scales, as the decision has them.
        has_scale: Whether scales are float32 numbers that can be trained.
    """

    def __init__(self, decision: Rounded, mask: Tensor | None) -> None:
        """Start from the codes of a decision; ``mask`` has the weight's shape."""
        self.decision = decision
        self.mask = mask
        columns = decision.codes.shape[1]
        block = decision.target.block(columns)
        self.block = block
        zero = torch.from_numpy(np.repeat(decision.zero_point, block, axis=1)[:, :columns].astype(np.float32))
        self.zero = zero
        self.low, self.high = decision.target.low - zero, decision.target.high - zero
        self.latent = (torch.from_numpy(decision.codes.astype(np.float32)) - zero).requires_grad_()
        target = decision.target
        self.has_scale = target.scale_format == "float32" and decision.codebook is None
        self.levels: Tensor | None = None
        if not isinstance(target, Int) or not target.has_zero:
            self._become_levels(target.levels(decision.codebook))
        self.scale = self._used(torch.from_numpy(decision.scale))
        self.log_scale = self.scale.log().requires_grad_()
        self.learned = False
        self.slopes: tuple[Tensor, Tensor] | None = None

    def _become_levels(self, levels: Floats) -> None:
        """Round to these levels, which are in units of the scale, instead of whole numbers."""
        target = self.decision.target
        # One symmetric bit has the codes -1 and 1; zero gets the second level, as the even of two codes 1 and 2.
        self.bounds = torch.from_numpy(bounds_between(levels, target.low if target.has_zero else 1))
        self.levels = torch.from_numpy(levels.copy())
        codes = self.decision.codes
        places = codes - target.low if target.has_zero else (codes + 1) // 2
        self.latent = self.levels[torch.from_numpy(places.astype(np.int64))].requires_grad_()
        self.zero = torch.full_like(self.zero, float(target.low + np.abs(levels).argmin()))

    def _used(self, scale: Tensor) -> Tensor:
        """Scales as they are where values lie, and elsewhere the median of those.

        Groups of zeros alone have whatever scale, mostly 1: a weight that training moves to their next code would be
        far larger than all others.
        """
        used = torch.from_numpy(self.decision.target.blocked(self.latent.detach().numpy()).any(axis=2))
        return torch.where(used, scale, scale[used].median()) if used.any() else scale

    def start(self, before: Array) -> None:
        """Start from the weight before it was rounded, moved as little as makes it round to the code it has."""
        if before.shape != self.decision.shape or self.levels is not None:
            return
        with torch.no_grad():
            wanted = self._matrix(torch.from_numpy(before)) / self._wide(self.scale)
            self.latent.copy_(wanted.clamp(self.latent - _WITHIN, self.latent + _WITHIN))

    def read(self, weights: Tensor) -> None:
        """Round these weights, in their own unit and shape, in place of the codes that training moves itself.

        A step of their scales as they were in the decision is what one code was.
        """
        self.latent = self._matrix(weights) / self._wide(self.scale)

    def unrounded(self) -> Tensor:
        """The weights of which ``read`` makes what is rounded now, in their own unit and shape."""
        return self._shaped(self.latent.detach() * self._wide(self.scale))

    def _rounded(self) -> Tensor:
        if self.levels is not None:
            return _Level.apply(self.latent, self.levels, self.bounds)  # type: ignore[no-any-return]
        return _Round.apply(self.latent, self.low, self.high)  # type: ignore[no-any-return]

    def values(self) -> Tensor:
        """The weight, in its own shape."""
        scale = self.log_scale.exp() if self.learned else self.scale
        weight = self._shaped(self._rounded() * self._wide(scale))
        return weight if self.mask is None else weight * self.mask

    def _matrix(self, weight: Tensor) -> Tensor:
        """What has the weight's shape as a matrix of one row an output channel."""
        return weight.movedim(self.decision.axis, 0).reshape(self.decision.codes.shape)

    def _shaped(self, matrix: Tensor) -> Tensor:
        """The inverse of ``_matrix``."""
        rest = list(self.decision.shape)
        rows = rest.pop(self.decision.axis)
        return matrix.reshape(rows, *rest).movedim(0, self.decision.axis).contiguous()

    def _wide(self, scale: Tensor) -> Tensor:
        """Scales as wide as the matrix, or one a row."""
        return scale.repeat_interleave(self.block, dim=1)[:, : self.latent.shape[1]] if scale.shape[1] > 1 else scale

    def slow(self) -> None:
        """Divide the gradient of the scales as LSQ does, see ``LearnedGrid.slow``."""
        if self.learned and self.log_scale.grad is not None:
            self.log_scale.grad *= self.restraint()

    def restraint(self) -> Tensor:
        """What the gradient of the scales is multiplied with to be that of LSQ."""
        share = self.latent.numel() / self.log_scale.numel()
        largest = float((self.high if self.levels is None else self.levels).max())
        return (share * largest) ** -0.5 * (-2 * self.log_scale.detach()).exp()

    @torch.no_grad()
    def multiply_(self, factor: Tensor) -> None:
        """Multiply the weight of each output channel with that channel's factor, ``(rows,)``, positive."""
        self.scale = self.scale * factor[:, None].float()
        self.log_scale += factor[:, None].log()

    def total_bits(self) -> float:
        """What the codes take by the codec's model now."""
        return float(_core.model_bits(self._codes()))

    def bits(self) -> Tensor:
        """Zero, with the slope of the bits that the codes take as its gradient; ``look`` must have been called.

        The slope is 0 for binary codes, which take a bit each whatever they are.
        """
        assert self.slopes is not None
        return _Bits.apply(self.latent, self._rounded().detach(), *self.slopes)  # type: ignore[no-any-return]

    def look(self) -> None:
        """Ask the codec's model what a step from each code to the next costs now."""
        codes = self._codes()
        up, down = torch.from_numpy(_core.bit_slopes(codes))
        if not self.decision.target.has_zero:
            up, down = torch.zeros_like(up), torch.zeros_like(down)
        elif self.levels is not None and self.levels.numel() > 1:
            # What lies beyond the first and the last level is as far from them as their neighbours are.
            steps = self.levels.diff()
            places = torch.from_numpy(codes - self.decision.target.low).long()
            up = up / torch.cat([steps, steps[-1:]])[places]
            down = down / torch.cat([steps[:1], steps])[places]
        self.slopes = up, down

    def _codes(self) -> Any:
        with torch.no_grad():
            if self.levels is None:
                codes = _Round.apply(self.latent, self.low, self.high) + self.zero
            else:
                target, places = self.decision.target, torch.bucketize(self.latent, self.bounds, right=True)
                codes = (places + target.low if target.has_zero else 2 * places - 1).to(torch.float32)
            if self.mask is not None:
                codes = torch.where(self._matrix(self.mask), codes, self.zero.expand_as(codes))
            return codes.to(torch.int32).numpy()

    def decided(self, *, brief: bool) -> Rounded:
        """The decision as it is now; ``brief`` keeps scales to 8 significant bits."""
        scale = (self.log_scale.detach().exp() if self.learned else self.scale).numpy()
        return replace(self.decision, codes=self._codes(), scale=short(scale) if brief else scale)
