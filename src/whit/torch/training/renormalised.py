"""Batch normalisations that were folded, back while a training goes on.

What a layer makes is normalised by the batch, as it was before ``FoldBatchNorm``, and at the end the layer's weights
and bias take the factors and shifts of its channels again. Where weights are rounded, the scales of their rows take the
factors, which are positive, so that no code changes its sign.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Renormalised"]

_MOMENTUM = 0.1
_EPSILON = 1e-5


class Renormalised(nn.Module):
    """What a layer makes, normalised: ``(y - mean) / sqrt(variance + 1e-5) * exp(log_factor) + shift``.

    In training, means and variances are those of the batch, and what is kept follows them.

    Attributes:
        weight: Name of the layer's weight.
        bias: Name of its bias.
        mean: ``(channels,)``, kept for the evaluation.
        variance: Likewise.
        log_factor: ``(channels,)``, trained.
        shift: Likewise.
    """

    def __init__(self, weight: str, bias: str, mean: Tensor, variance: Tensor) -> None:
        """The identity, for outputs that have these means and variances."""
        super().__init__()
        self.weight = weight
        self.bias = bias
        self.mean: Tensor
        self.variance: Tensor
        self.register_buffer("mean", mean.float())
        self.register_buffer("variance", variance.float())
        self.log_factor = nn.Parameter((self.variance + _EPSILON).log() / 2)
        self.shift = nn.Parameter(self.mean.clone())

    def forward(self, y: Tensor, *, training: bool) -> Tensor:
        """The output ``(samples, channels, ...)`` normalised."""
        return F.batch_norm(
            y, self.mean, self.variance, self.log_factor.exp(), self.shift, training, _MOMENTUM, _EPSILON
        )

    def folded(self) -> tuple[Tensor, Tensor]:
        """By channel, what to multiply the layer's weights and its bias with, and what to add to the bias; float64."""
        factor = self.log_factor.detach().double().exp() * torch.rsqrt(self.variance.double() + _EPSILON)
        return factor, self.shift.detach().double() - self.mean.double() * factor
