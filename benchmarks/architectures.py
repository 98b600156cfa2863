"""Architectures of many kinds with random weights, each with the smallest input that it accepts.

A name is one of timm's, or ``transformers:FAMILY``: a small network of that family, as its configuration makes it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["FAMILIES", "TIMM", "build"]

SIZES = (64, 96, 128, 160, 192, 224, 256)
"""Heights and widths that are tried, before the one that an architecture is meant for."""
VOCABULARY = 64

TIMM = (Path(__file__).parent / "zoo.txt").read_text(encoding="utf-8").split()
"""The smallest architecture of each of timm's model files that has one of less than 60 million parameters."""


def build(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A network in evaluation mode, and inputs for two samples.

    Raises:
        ValueError: There is no such architecture, or it accepts none of the inputs that are tried.
    """
    torch.manual_seed(0)
    if name.startswith("transformers:"):
        network, inputs = FAMILIES[name.removeprefix("transformers:")]()
        return network.eval(), inputs
    return _image_network(name)


def _image_network(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    import timm

    network = timm.create_model(name).eval()
    _liven(network)
    config: Any = network.pretrained_cfg
    channels, *largest = config["input_size"]
    sizes = [] if config.get("fixed_input_size") else [(size, size) for size in SIZES if size < largest[0]]
    for size in (*sizes, tuple(largest)):
        images = torch.randn(2, channels, *size)
        try:
            with torch.no_grad():
                found = network(images)
        except Exception:
            continue
        if isinstance(found, Tensor) and torch.isfinite(found).all():
            return network, (images,)
    raise ValueError(f"{name} accepts no image of up to {largest}")


def _liven(network: nn.Module) -> None:
    """Layers that start as zeros or as the identity do something, as they do once they are trained."""
    with torch.no_grad():
        for module in network.modules():
            for parameter in module.parameters(recurse=False):
                if parameter.dim() == 1 and parameter.numel() > 1 and (parameter == parameter[0]).all():
                    parameter.add_(torch.empty_like(parameter).uniform_(0.1, 0.5))
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)


class _Output(nn.Module):
    """The first tensor that a network returns, and whether it reads words or images."""

    def __init__(self, network: nn.Module, reads: str, **others: Any) -> None:
        super().__init__()
        self.network, self.reads, self.others = network, reads, others

    def forward(self, *inputs: Tensor) -> Tensor:
        """The logits, or the last hidden state."""
        names = self.reads.split()
        return self.network(**dict(zip(names, inputs, strict=True)), **self.others, return_dict=False)[0]


def _words(model: str, config: str, *, reads: str = "input_ids", **settings: Any) -> Callable[[], Any]:
    """A network that reads words, of 2 layers that are 64 wide."""

    def make() -> tuple[nn.Module, tuple[Tensor, ...]]:
        import transformers

        network = getattr(transformers, model)(getattr(transformers, config)(vocab_size=VOCABULARY, **settings))
        others: dict[str, Any] = {"use_cache": False} if hasattr(network.config, "use_cache") else {}
        words = tuple(torch.randint(3, VOCABULARY, (2, 16)) for _ in reads.split())
        return _Output(network, reads, **others), words

    return make


def _images(model: str, config: str, size: int = 64, **settings: Any) -> Callable[[], Any]:
    """A network that reads images."""

    def make() -> tuple[nn.Module, tuple[Tensor, ...]]:
        import transformers

        network = getattr(transformers, model)(getattr(transformers, config)(**settings))
        _liven(network)
        return _Output(network, "pixel_values"), (torch.randn(2, 3, size, size),)

    return make


_WIDE: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
_BERT: dict[str, Any] = {**_WIDE, "max_position_embeddings": 64}
_LLAMA: dict[str, Any] = {**_BERT, "num_key_value_heads": 2}

FAMILIES: dict[str, Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]] = {
    "bert": _words("BertForSequenceClassification", "BertConfig", **_BERT),
    "roberta": _words("RobertaForSequenceClassification", "RobertaConfig", **_BERT),
    "distilbert": _words(
        "DistilBertForSequenceClassification", "DistilBertConfig", dim=64, n_layers=2, n_heads=4, hidden_dim=128
    ),
    "albert": _words("AlbertForSequenceClassification", "AlbertConfig", embedding_size=32, **_BERT),
    "electra": _words("ElectraForSequenceClassification", "ElectraConfig", embedding_size=32, **_BERT),
    "mpnet": _words("MPNetForSequenceClassification", "MPNetConfig", **_BERT),
    "gpt2": _words("GPT2LMHeadModel", "GPT2Config", n_embd=64, n_layer=2, n_head=4, n_positions=64),
    "opt": _words(
        "OPTForCausalLM",
        "OPTConfig",
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        ffn_dim=128,
        max_position_embeddings=64,
        word_embed_proj_dim=64,
    ),
    "gpt_neox": _words("GPTNeoXForCausalLM", "GPTNeoXConfig", **_BERT),
    "llama": _words("LlamaForCausalLM", "LlamaConfig", **_LLAMA),
    "mistral": _words("MistralForCausalLM", "MistralConfig", **_LLAMA),
    "qwen2": _words("Qwen2ForCausalLM", "Qwen2Config", **_LLAMA),
    "gemma": _words("GemmaForCausalLM", "GemmaConfig", head_dim=16, **_LLAMA),
    "t5": _words(
        "T5ForConditionalGeneration",
        "T5Config",
        reads="input_ids decoder_input_ids",
        d_model=64,
        d_kv=16,
        d_ff=128,
        num_layers=2,
        num_heads=4,
    ),
    "vit": _images("ViTForImageClassification", "ViTConfig", image_size=64, patch_size=16, **_WIDE),
    "deit": _images("DeiTForImageClassification", "DeiTConfig", image_size=64, patch_size=16, **_WIDE),
    "swin": _images(
        "SwinForImageClassification",
        "SwinConfig",
        image_size=64,
        patch_size=4,
        embed_dim=32,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=4,
    ),
    "segformer": _images(
        "SegformerForImageClassification",
        "SegformerConfig",
        hidden_sizes=[16, 32, 48, 64],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 2, 3, 4],
    ),
    "convnext": _images(
        "ConvNextForImageClassification", "ConvNextConfig", hidden_sizes=[32, 64], depths=[2, 2], num_stages=2
    ),
    "resnet": _images(
        "ResNetForImageClassification", "ResNetConfig", embedding_size=16, hidden_sizes=[32, 64], depths=[2, 2]
    ),
}
"""Small networks of families of transformers, and two of convolutions, by name."""


def samples(inputs: Sequence[Tensor]) -> tuple[np.ndarray, ...]:
    """Inputs as arrays."""
    return tuple(x.numpy() for x in inputs)
