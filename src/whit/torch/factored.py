"""The chain of layers that stands in a layer's place once its weight is a product."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd  # pyright: ignore[reportPrivateUsage]

from whit.errors import ModelError
from whit.factors import FORMS
from whit.ledger import Factored

__all__ = ["chain", "factorable"]

_CONVOLUTIONS: Any = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


class _Linear(nn.Sequential):
    """Two linear layers for one, with the product and the sizes for code that looks at them, as torch's own does."""

    @property
    def weight(self) -> Tensor:
        """``(out_features, in_features)``."""
        first, last = self
        return last.weight @ first.weight  # type: ignore[operator, return-value]

    @property
    def bias(self) -> Tensor | None:
        """``(out_features,)``."""
        return self[1].bias  # type: ignore[return-value]

    @property
    def in_features(self) -> int:
        """How many numbers it reads."""
        return self[0].in_features  # type: ignore[return-value]

    @property
    def out_features(self) -> int:
        """How many numbers it makes."""
        return self[1].out_features  # type: ignore[return-value]


def factorable(module: nn.Module) -> set[str]:
    """Names of the linear layers and convolutions, not transposed, of which no other module has the parameters too."""
    owners: dict[int, set[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), set()).add(name)
    return {
        name
        for name, layer in module.named_modules(remove_duplicate=False)
        if name and _is_factorable(layer) and all(len(owners[id(one)]) == 1 for one in layer.parameters())
    }


def _is_factorable(layer: nn.Module | None) -> bool:
    return isinstance(layer, nn.Linear) or (isinstance(layer, _ConvNd) and not layer.transposed)


def chain(layer: nn.Module | None, decision: Factored) -> nn.Sequential:
    """Layers for the factors of one, on the same device and of the same dtype; their values are not set yet.

    Raises:
        ModelError: There is no such layer, or it has no factors of these ranks.
    """
    form = FORMS[decision.form]
    if not _is_factorable(layer):
        raise ModelError(f"{decision.layer} is no linear layer or convolution, so it has no factors: {_another()}")
    weight: torch.Tensor = layer.weight  # type: ignore[union-attr, assignment]
    shape = tuple(weight.shape)
    if not form.fits(shape) or any(rank > most for rank, most in zip(decision.ranks, form.most(shape), strict=True)):
        raise ModelError(
            f"{decision.layer} has a weight of shape {shape}, of which there are no factors in the form "
            f"{decision.form} of ranks {decision.ranks}: {_another()}"
        )
    shapes, moving = form.shapes(shape, decision.ranks), form.moving(len(shape) - 2)
    made: list[nn.Module] = []
    for place, (one, axes) in enumerate(zip(shapes, moving, strict=True)):
        options: dict[str, Any] = {"dtype": weight.dtype, "device": weight.device}
        options["bias"] = layer.bias is not None and place == len(shapes) - 1  # type: ignore[union-attr]
        if isinstance(layer, _ConvNd):
            made.append(_convolution(layer, one, axes, options))
        else:
            made.append(nn.Linear(one[1], one[0], **options))
    found = (_Linear if isinstance(layer, nn.Linear) else nn.Sequential)(*made).train(layer.training)  # type: ignore[union-attr]
    return found.requires_grad_(weight.requires_grad)


def _convolution(layer: _ConvNd, shape: tuple[int, ...], axes: frozenset[int], options: dict[str, Any]) -> nn.Module:
    """A factor of a convolution, which strides and pads along these axes as the whole did."""

    def along(sizes: tuple[int, ...], still: int) -> tuple[int, ...]:
        return tuple(size if axis in axes else still for axis, size in enumerate(sizes))

    padding = layer.padding if isinstance(layer.padding, str) else along(layer.padding, 0)
    return _CONVOLUTIONS[len(shape) - 2](
        shape[1],
        shape[0],
        shape[2:],
        stride=along(layer.stride, 1),
        padding=padding,
        dilation=along(layer.dilation, 1),
        padding_mode=layer.padding_mode,
        **options,
    )


def _another() -> str:
    return "this is not the network that was compressed"
