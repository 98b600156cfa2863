"""What stands in a module's place once its residual branch was left out."""

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Through", "Zeros"]


class Through(nn.Module):
    """Hands on the first tensor that it reads, whatever else it is called with."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The first tensor."""
        return next(one for one in (*args, *kwargs.values()) if isinstance(one, Tensor))


class Zeros(Through):
    """Zeros of the shape of the first tensor that it reads."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Zeros."""
        return torch.zeros_like(super().forward(*args, **kwargs))
