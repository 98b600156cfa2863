"""A network in the shape of a vision transformer (ViT-B/16, Dosovitskiy et al. 2020)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ViTB"]


class Attention(nn.Module):
    """Self-attention with queries, keys and values of one projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.heads, self.features = heads, width // heads

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, tokens, width)``."""
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, self.features).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v)
        return self.out(attended.transpose(1, 2).reshape(batch, tokens, self.heads * self.features))


class Block(nn.Module):
    """Attention and a feed-forward network, each beside a shortcut and behind a normalisation."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, tokens, width)``."""
        x = x + self.attention(self.before(x))
        return x + self.feed_forward(self.between(x))


class ViTB(nn.Module):
    """Images ``(batch, 3, 224, 224)`` to 1000 logits; 86.6 million parameters."""

    def __init__(self, width: int = 768, heads: int = 12, blocks: int = 12) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.start = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, 197, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(blocks)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.start.expand(len(x), -1, -1), x], 1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])
