"""What scores look at beside weights: gradients of the loss, and how large what weights are multiplied with is."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call  # pyright: ignore[reportPrivateImportUsage]

from whit.metrics import Loss
from whit.moments import Doubles, Gradients
from whit.torch.activations import interruptible
from whit.torch.logits import logits_of
from whit.torch.moments import Call, sampled, vectors_of, watch
from whit.torch.training.objective import own_loss

__all__ = ["FEW", "energies", "gradients"]

FEW = 16
"""Samples of which one gradient is taken for Fisher information; each alone would take a pass of its own."""
_MOST = 1 << 12
"""Vectors of a batch that are looked at, about."""

Inputs = tuple[Tensor, ...]


def gradients(
    module: nn.Module, batches: Iterable[tuple[Inputs, Tensor]], names: Sequence[str], loss: Loss
) -> dict[str, Gradients]:
    """Derivatives of the loss on the targets by parameters; of those that it does not depend on, zeros.

    The mean square of a batch's gradient, times the batch's size, stands for that of a sample's: so it is where the
    gradients of samples are independent and their mean is small, as at the end of a training.

    Args:
        module: In evaluation mode.
        batches: Few samples each, with targets.
        names: Of parameters.
        loss: On the targets.
    """
    # Leaves of their own, so that parameters which their owner froze have derivatives too.
    parameters = {name: module.get_parameter(name).detach().requires_grad_() for name in names}
    means, squares = ([torch.zeros(one.shape) for one in parameters.values()] for _ in range(2))
    samples = 0
    for inputs, targets in batches:
        with torch.enable_grad(), interruptible(module):
            outputs = functional_call(module, parameters, inputs)
            value = own_loss(logits_of(outputs) if loss == "cross_entropy" else outputs, targets, loss)
            found = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
        for place, gradient in enumerate(found):
            if gradient is not None:  # pyright: ignore[reportUnnecessaryComparison] (unused)
                means[place] += len(targets) * gradient
                squares[place] += len(targets) ** 2 * gradient.square()
        samples += len(targets)
    return {
        name: Gradients(mean=(mean / samples).numpy(), square=(square / samples).numpy())
        for name, mean, square in zip(names, means, squares, strict=True)
    }


def energies(module: nn.Module, batches: Iterable[Inputs], names: Sequence[str]) -> dict[str, Doubles]:
    """The mean square of what each column of a weight matrix is multiplied with, ``(groups, columns)``.

    Of a table of embeddings it is how often each row is looked up, ``(rows, 1)``.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    generator = torch.Generator().manual_seed(0)

    def visit(name: str, call: Call) -> None:
        squares, count = _squares(call, generator)
        sums[name] = sums.get(name, torch.zeros(())) + squares
        counts[name] = counts.get(name, 0) + count

    for inputs in batches:
        with torch.no_grad():
            watch(module, inputs, names, visit)
    return {name: (total / counts[name]).numpy() for name, total in sums.items()}


def _squares(call: Call, generator: torch.Generator) -> tuple[Tensor, int]:
    """Sums of squares over some of the places where a weight is used, and over how many."""
    if call.kind == "embedding":
        places: Tensor = call.arguments["input"].reshape(-1)
        return torch.bincount(places, minlength=call.arguments["weight"].shape[0]).double()[:, None], len(places)
    vectors = vectors_of(call, sampled(call, _MOST, generator)[0])
    return vectors.square().sum(dim=2).double(), vectors.shape[2]
