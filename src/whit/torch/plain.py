"""The plain layer that stands in a layer's place once the weight that it computed is a parameter."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd  # pyright: ignore[reportPrivateUsage]
from torch.overrides import TorchFunctionMode

from whit.errors import ModelError
from whit.ledger import Assigned, Plain

__all__ = ["plain", "plain_layers"]

_KINDS: dict[tuple[bool, int], Any] = {
    (False, 1): nn.Conv1d,
    (False, 2): nn.Conv2d,
    (False, 3): nn.Conv3d,
    (True, 1): nn.ConvTranspose1d,
    (True, 2): nn.ConvTranspose2d,
    (True, 3): nn.ConvTranspose3d,
}
_FUNCTIONS = frozenset({"linear", *(f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3))})
_CLOSE = 1e-5
"""Of the largest value that a layer makes; sums in another order differ by less."""


class _SameConv2d(nn.Conv2d):
    """Pads so that of every ``stride`` positions one is made, the odd zero behind, as TensorFlow does."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (its base has it)
        """Pad and convolve."""
        pads: list[int] = []
        for axis in (1, 0):
            size, stride = input.shape[axis - 2], self.stride[axis]
            reach = self.dilation[axis] * (self.kernel_size[axis] - 1) + 1
            most = max((-(-size // stride) - 1) * stride + reach - size, 0)
            pads += [most // 2, most - most // 2]
        return super().forward(F.pad(input, pads))


def plain(module: nn.Module, decision: Plain) -> nn.Module:
    """A plain layer for one that computes its weight, on the same device; the weight's values are not set yet.

    Raises:
        ModelError: There is no such layer.
    """
    try:
        layer = module.get_submodule(decision.layer)
    except AttributeError:
        layer = None
    if not isinstance(layer, nn.Linear | _ConvNd) or (decision.same and not isinstance(layer, nn.Conv2d)):
        raise ModelError(
            f"{decision.layer} is no layer of this {type(module).__name__} that computes its weight: this is not the "
            "network that was compressed"
        )
    bias: Tensor | None = layer.bias
    options: dict[str, Any] = {"bias": bias is not None, "device": layer.weight.device, "dtype": layer.weight.dtype}
    if isinstance(layer, nn.Linear):
        made: nn.Module = nn.Linear(layer.in_features, layer.out_features, **options)
    else:
        transposed = {"output_padding": layer.output_padding} if layer.transposed else {}
        kind: Any = _SameConv2d if decision.same else _KINDS[layer.transposed, layer.weight.dim() - 2]
        made = kind(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            groups=layer.groups,
            padding_mode=layer.padding_mode,
            **transposed,
            **options,
        )
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().clone())
    return made.train(layer.training)


@torch.no_grad()
def plain_layers(
    module: nn.Module, names: Sequence[str], examples: tuple[Tensor, ...]
) -> tuple[list[Plain | Assigned], dict[str, str]]:
    """Decisions that make plain layers of these, each seen to compute the same; why it cannot be done of the others."""
    inputs = _read_by(module, names, examples)
    decisions: list[Plain | Assigned] = []
    left: dict[str, str] = {}
    for name in names:
        found = _decided(module, name, inputs[name]) if name in inputs else None
        if found is None:
            left[name] = "its code does more in a call than multiply with the weight that it computes"
        else:
            decisions += found
    return decisions, left


def _read_by(module: nn.Module, names: Sequence[str], examples: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """What layers read, of those that are called with one tensor."""
    found: dict[str, Tensor] = {}

    def note(name: str, layer: nn.Module, args: tuple[Any, ...]) -> None:
        if len(args) == 1 and isinstance(args[0], Tensor):
            found[name] = args[0]

    layers = {name: layer for name, layer in module.named_modules() if name in names}
    hooks = [
        layer.register_forward_pre_hook(partial(note, name))
        for name, layer in layers.items()
        if isinstance(layer, nn.Linear | _ConvNd)
    ]
    try:
        module(*examples)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _decided(module: nn.Module, name: str, x: Tensor) -> list[Plain | Assigned] | None:
    """Decisions on one layer, if a plain one computes what it does."""
    with _Weights() as seen:
        expected = module.get_submodule(name)(x)
    if len(seen.found) != 1 or not isinstance(expected, Tensor):
        return None
    for same in (False, True):
        decision = Plain(layer=name, same=same)
        if _computes(module, decision, seen.found[0], x, expected):
            weight = Assigned(parameter=f"{name}.weight", values=np.array(seen.found[0].cpu().numpy()))
            return [decision, weight]
    return None


def _computes(module: nn.Module, decision: Plain, weight: Tensor, x: Tensor, expected: Tensor) -> bool:
    layer = module.get_submodule(decision.layer)
    if decision.same and not isinstance(layer, nn.Conv2d):
        return False
    made: Any = plain(module, decision)
    if made.weight.shape != weight.shape or made.weight.dtype != weight.dtype:
        return False
    made.weight.copy_(weight)
    found = made(x)
    return found.shape == expected.shape and bool((found - expected).abs().max() <= _CLOSE * expected.abs().max())


class _Weights(TorchFunctionMode):
    """Notes the weights that linear layers and convolutions are called with."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note the second argument, and go on."""
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _FUNCTIONS:
            self.found.append(args[1] if len(args) > 1 else kwargs["weight"])
        return func(*args, **kwargs)
