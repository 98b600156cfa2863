"""A weight on its way to one of two codes."""

import torch
from torch import Tensor

from whit.data import Array
from whit.ledger import Rounded
from whit.torch.training.rounded import RoundedWeight

__all__ = ["SoftRounding"]

_BEYOND = 0.1
"""How far the sigmoid is stretched beyond either code before it is cut off, so that it gets there (Louizos 2018)."""


class SoftRounding(RoundedWeight):
    """A weight between two codes: ``weight == (floor + up) * scale * mask`` (AdaRound, Nagel et al. 2020).

    Attributes:
        logits: ``(rows, columns)``, what is learned: ``up`` is its rectified sigmoid.
    """

    def __init__(self, decision: Rounded, mask: Tensor | None, before: Array) -> None:
        """Start at the code that a weight has, on the side of it where the weight was before it was rounded."""
        super().__init__(decision, mask)
        assert self.levels is None  # the quantizer checks the format
        self.start(before)
        latent = self.latent.detach()
        self.floor = latent.floor()
        self.logits = torch.logit((latent - self.floor + _BEYOND) / (1 + 2 * _BEYOND)).requires_grad_()

    def _up(self) -> Tensor:
        """From 0, the code below, to 1, the code above."""
        return (torch.sigmoid(self.logits) * (1 + 2 * _BEYOND) - _BEYOND).clamp(0, 1)

    def _rounded(self) -> Tensor:
        return torch.minimum(torch.maximum(self.floor + self._up(), self.low), self.high)

    def undecided(self, sharpness: float) -> Tensor:
        """How many weights lie between their codes; the sharper, the nearer to a code they do not count any more."""
        return (1 - (2 * self._up() - 1).abs() ** sharpness).sum()

    def settled(self) -> Rounded:
        """The decision, each weight at the nearer of its codes."""
        with torch.no_grad():
            self.latent.copy_(self.floor + self._up().round())
        return self.decided(brief=False)
