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
    result, mean, variance = _Normalised.apply(input.float(), weight, bias, ranks, eps)
    count = input.numel() // input.shape[1] * ranks.count
    with torch.no_grad():
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean, momentum)
            running_var.lerp_(variance * (count / max(count - 1, 1)), momentum)
    return result.to(input.dtype)


class _Normalised(torch.autograd.Function):
    """Batch normalisation by the means and variances over all processes: the result, and both of them.

    What a process does to these changes the loss of all, so the sums that go back are those of all, too.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, ranks: Ranks, eps: float) -> Any:
        variance, mean = torch.var_mean(x, [axis for axis in range(x.dim()) if axis != 1], correction=0)
        moments = torch.stack([mean.double(), variance.double() + mean.double().square()])
        ranks.sum_(moments)
        mean = moments[0] / ranks.count
        variance = (moments[1] / ranks.count - mean.square()).clamp_min(0).to(x.dtype)
        mean = mean.to(x.dtype)
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.ranks, ctx.eps = ranks, eps
        ctx.mark_non_differentiable(mean, variance)
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps), mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        x, weight, mean, variance = ctx.saved_tensors
        # As if the statistics were constants: both sums are what weight and bias have as their gradients.
        direct, by_scaled, by_shift = torch.ops.aten.native_batch_norm_backward(
            gradients[0], x, weight, mean, variance, mean, variance, False, ctx.eps, [True, True, True]
        )
        sums = torch.stack([by_shift, by_scaled])
        ctx.ranks.sum_(sums)
        inverse = torch.rsqrt(variance + ctx.eps)
        factor = (inverse if weight is None else weight * inverse) * (x.shape[1] / (x.numel() * ctx.ranks.count))
        slope = factor * sums[1] * inverse
        wide = [-1 if axis == 1 else 1 for axis in range(x.dim())]
        to_x = direct - (x * slope.view(wide) + (factor * sums[0] - mean * slope).view(wide))
        needed = ctx.needs_input_grad
        return to_x, by_scaled if needed[1] else None, by_shift if needed[2] else None, None, None
