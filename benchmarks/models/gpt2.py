"""GPT-2 (Radford et al. 2019): a decoder whose layers multiply by weights of inputs by outputs, as published."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Gpt2"]

HEADS, WORDS, PLACES = 12, 50257, 1024


class Gpt2(nn.Module):
    """What stands behind the last word, which the next one is told from. With ``layers=12`` it has GPT-2's shape."""

    def __init__(self, width: int = 768, layers: int = 12) -> None:
        super().__init__()
        self.wte = nn.Embedding(WORDS, width)
        self.wpe = nn.Embedding(PLACES, width)
        self.h = nn.ModuleList(Block(width) for _ in range(layers))
        self.ln_f = nn.LayerNorm(width)

    def forward(self, words: Tensor) -> Tensor:
        """Vectors ``(batch, width)`` from words ``(batch, length)``, int64."""
        x = self.wte(words) + self.wpe(torch.arange(words.shape[1]))
        for block in self.h:
            x = block(x)
        return self.ln_f(x[:, -1])


class Block(nn.Module):
    """Attention to the words before, then two layers, each with a norm in front and a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.mlp = nn.Module(), nn.Module()
        self.attn.c_attn, self.attn.c_proj = Product(width, 3 * width), Product(width, width)
        self.mlp.c_fc, self.mlp.c_proj = Product(width, 4 * width), Product(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, length, width)``."""
        query, key, value = (
            part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in self.attn.c_attn(self.ln_1(x)).chunk(3, -1)
        )
        found = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.attn.c_proj(found.transpose(1, 2).flatten(-2))
        return x + self.mlp.c_proj(F.gelu(self.mlp.c_fc(self.ln_2(x)), approximate="tanh"))


class Product(nn.Module):
    """A linear layer with a row of weights for each input."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """``(..., outputs)``."""
        rows = torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight)
        return rows.unflatten(0, x.shape[:-1])
