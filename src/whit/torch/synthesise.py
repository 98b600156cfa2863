"""Inputs made up from what a network remembers of its training: the statistics of its batch normalisations."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from whit.data import Array
from whit.errors import ModelError
from whit.progress import Progress

__all__ = ["synthesise"]

_BATCH = 64
_LEARNING_RATE = 0.1


def synthesise(
    given: nn.Module, shape: Sequence[int], count: int, *, steps: int, seed: int, progress: Progress
) -> tuple[Array, Array]:
    """Inputs on which every batch normalisation sees the mean and the deviation that it learned (Cai et al. 2020).

    Each batch begins as noise and follows the gradient of how far what the normalisations read is from what they
    remember.

    Args:
        given: It stays as it is.
        shape: Of an input, without the batch.
        count: How many inputs.
        steps: Of the gradient, for each batch.
        seed: Of the noise.
        progress: Shows how far it is.

    Returns:
        ``(count, *shape)``, float32, and what the network answers.

    Raises:
        ModelError: There is no batch normalisation that remembers anything.
    """
    module = copy.deepcopy(given).eval().requires_grad_(requires_grad=False)
    layers = [one for one in module.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]  # pyright: ignore[reportPrivateUsage]
    layers = [one for one in layers if one.running_mean is not None and one.running_var is not None]
    if not layers:
        raise ModelError(
            f"{type(module).__name__} has no batch normalisation that remembers what it saw, so nothing tells what its "
            "inputs are like; give some real ones"
        )
    random = torch.Generator().manual_seed(seed)
    starts = range(0, count, _BATCH)
    made: list[Tensor] = []
    answers: list[Tensor] = []
    with progress.bar("making up inputs", len(starts) * steps) as bar:
        for start in starts:
            noise = torch.randn((min(_BATCH, count - start), *shape), generator=random)
            made.append(_matched(module, layers, noise, steps, bar.advance))
            with torch.no_grad():
                answers.append(module(made[-1]))
    return torch.cat(made).numpy(), torch.cat(answers).numpy()


def _matched(
    module: nn.Module, layers: Sequence[nn.Module], start: Tensor, steps: int, advance: Callable[[], None]
) -> Tensor:
    """A batch after some steps."""
    x = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=_LEARNING_RATE)
    losses: list[Tensor] = []

    def keep(layer: nn.Module, read: tuple[Tensor, ...]) -> None:
        losses.append(_distance(layer, read[0]))

    hooks = [layer.register_forward_pre_hook(keep) for layer in layers]
    try:
        for _ in range(steps):
            losses.clear()
            module(x)
            (x.grad,) = torch.autograd.grad(torch.stack(losses).sum(), [x])
            optimizer.step()
            advance()
    finally:
        for hook in hooks:
            hook.remove()
    return x.detach()


def _distance(layer: nn.Module, x: Tensor) -> Tensor:
    """How far a batch is from what a normalisation remembers, in units of its deviations."""
    assert isinstance(layer, nn.modules.batchnorm._BatchNorm)  # pyright: ignore[reportPrivateUsage]
    assert layer.running_mean is not None
    assert layer.running_var is not None
    rows = x.movedim(1, 0).flatten(1)
    deviation = (layer.running_var + layer.eps).sqrt()
    mean = (rows.mean(1) - layer.running_mean) / deviation
    return mean.square().mean() + F.mse_loss(rows.std(1, unbiased=False) / deviation, torch.ones_like(deviation))
