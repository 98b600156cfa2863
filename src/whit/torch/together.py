"""A training by several processes: gradients are their mean, and batch normalisations see whole batches.

What is trained is not all in one module (codes before rounding, scales, grids, maps of hints), so no wrapper around a
module sees all of it; the mean of the gradients of everything that has one is all that it takes.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from whit.errors import FileError, PlanError
from whit.ranks import Ranks

__all__ = ["agreed", "is_share", "mean_", "share_of", "whole_batches"]


def share_of(ranks: Ranks, batch: Sequence[Tensor]) -> Iterator[Tensor]:
    """Of each tensor of a batch what this process takes.

    Raises:
        PlanError: The samples cannot be shared alike.
    """
    size = len(batch[0])
    if size % ranks.count:
        raise PlanError(
            f"a batch of {size} samples cannot be shared by {ranks.count} processes alike; take a "
            f"Finetune(batch_size=...) that is a multiple of {ranks.count} and no more than there are samples"
        )
    return (tensor[ranks.rank :: ranks.count] for tensor in batch)


def is_share(tensor: Tensor) -> bool:
    """Whether a tensor is this process's share of one that all hold together."""
    return hasattr(tensor, "full_tensor")


def mean_(ranks: Ranks, tensors: Sequence[Tensor], loss: float) -> float:
    """Make the gradient of each tensor the mean over the processes, and return that of the loss.

    A tensor without a gradient here counts as one with zeros if another process has one. Shares have the mean already.
    """
    if ranks.count == 1:
        return loss
    tensors = [one for one in tensors if not is_share(one)]
    has = torch.tensor([float(one.grad is not None) for one in tensors])
    flat = torch.cat([(torch.zeros_like(x) if x.grad is None else x.grad).flatten() for x in tensors] + [has])
    flat = torch.cat([flat, torch.tensor([loss])])
    ranks.sum_(flat)
    flat /= ranks.count
    start = 0
    for one, any_has in zip(tensors, flat[-1 - len(has) : -1], strict=True):
        if any_has > 0:
            one.grad = flat[start : start + one.numel()].view_as(one).to(one.dtype, copy=True)
        start += one.numel()
    return float(flat[-1])


def agreed(ranks: Ranks, done: int) -> int:
    """How many steps were done before, as all processes say.

    Raises:
        FileError: They do not say the same.
    """
    found = ranks.every(done)
    if len(set(found)) > 1:
        raise FileError(
            f"the processes found states of the training after {found} steps; keep checkpoints in a folder that all "
            "of them see"
        )
    return done


def whole_batches(ranks: Ranks) -> AbstractContextManager[Any]:
    """Within, batch normalisations in training take means and variances over the shares of all processes."""
    return nullcontext() if ranks.count == 1 else _WholeBatches(ranks)


class _WholeBatches(TorchFunctionMode):
    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self.ranks = ranks

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Normalise, or run what is no batch normalisation."""
        kwargs = kwargs or {}
        return _normalised(self.ranks, *args, **kwargs) if func is F.batch_norm else func(*args, **kwargs)


def _normalised(
    ranks: Ranks,
    input: Tensor,  # noqa: A002 (torch's own name, by which callers may give it)
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """``F.batch_norm``."""
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    axes = [axis for axis in range(input.dim()) if axis != 1]
    wide = [-1 if axis == 1 else 1 for axis in range(input.dim())]
    x = input.float()
    mean = _Sum.apply(x.mean(axes), ranks) / ranks.count
    centred = x - mean.view(wide)
    variance = _Sum.apply(centred.square().mean(axes), ranks) / ranks.count
    count = input.numel() // input.shape[1] * ranks.count
    with torch.no_grad():
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean, momentum)
            running_var.lerp_(variance * (count / max(count - 1, 1)), momentum)
    factor = torch.rsqrt(variance + eps) if weight is None else torch.rsqrt(variance + eps) * weight
    result = centred * factor.view(wide)
    return (result if bias is None else result + bias.view(wide)).to(input.dtype)


class _Sum(torch.autograd.Function):
    """The sum over the processes; each adds to the loss of all, so gradients are summed likewise."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        total = x.contiguous().clone()
        ranks.sum_(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        total = gradients[0].contiguous().clone()
        ctx.ranks.sum_(total)
        return total, None
