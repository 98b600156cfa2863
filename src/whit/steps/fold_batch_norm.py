"""Batch normalisations become part of the layers before them."""

from dataclasses import dataclass

__all__ = ["FoldBatchNorm"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldBatchNorm:
    """Multiply every batch normalisation that follows a convolution or linear layer into that layer's weights."""
