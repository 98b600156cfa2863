"""Fine-tuning on the user's own eager module: masks hold, rounding is trained through, a teacher may help."""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from math import ceil, cos, pi

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call  # pyright: ignore[reportPrivateImportUsage]
from torch.nn import functional as F

from whit.data import Samples
from whit.errors import DataError
from whit.ledger import Ledger
from whit.metrics import Loss
from whit.plan import Distill, Finetune
from whit.progress import Progress
from whit.torch.fake_quantize import RoundedWeight

__all__ = ["finetune_", "seeded"]

_WARM_UP = 0.05
"""Share of the steps in which the learning rate rises."""


@contextmanager
def seeded(seed: int) -> Generator[None]:
    """Torch's randomness from a seed, and the caller's state afterwards."""
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)


def finetune_(
    module: nn.Module,
    step: Finetune,
    samples: Samples,
    loss: Loss,
    ledger: Ledger,
    teacher: Callable[[tuple[Tensor, ...]], Tensor] | None,
    progress: Progress,
) -> None:
    """Train ``module`` in place as ``step`` says.

    Masked weights are zero in every forward pass and at the end. Weights that the ledger rounds are rounded on their
    grid in every forward pass, with a straight-through gradient, and hold values of the grid at the end.
    """
    effective = _effective_weights(module, ledger)
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = _optimizer(step, parameters)
    steps = max(1, ceil(step.epochs * len(samples) / step.batch_size))
    module.train()
    with seeded(step.seed), progress.bar("fine-tuning", steps) as bar:
        for place, (inputs, targets) in enumerate(_endless(samples, step)):
            if place == steps:
                break
            for group in optimizer.param_groups:
                group["lr"] = _learning_rate(step.learning_rate, place / steps)
            outputs = functional_call(module, effective(), inputs)
            value = _loss(outputs, targets, loss, step.distill, teacher(inputs) if teacher else None)
            if not torch.isfinite(value):
                raise DataError(
                    f"the training loss became {value.item()} at step {place + 1} of {steps}; "
                    f"lower the learning rate ({step.learning_rate}) and look at the data"
                )
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            bar.advance(1, note=f"loss {value.item():.4g}")
    with torch.no_grad():
        for name, tensor in effective().items():
            module.get_parameter(name).copy_(tensor)
    module.eval()


def _effective_weights(module: nn.Module, ledger: Ledger) -> Callable[[], dict[str, Tensor]]:
    """What the forward pass uses in place of the weights that are masked or rounded."""
    masks = {name: torch.from_numpy(decision.mask) for name, decision in ledger.masks().items()}
    grids = {name: RoundedWeight(decision) for name, decision in ledger.rounded().items()}

    def effective() -> dict[str, Tensor]:
        weights: dict[str, Tensor] = {}
        for name in dict.fromkeys([*masks, *grids]):
            weight: Tensor = module.get_parameter(name)
            if name in masks:
                weight = weight * masks[name]
            if name in grids:
                weight = grids[name](weight)
            weights[name] = weight
        return weights

    return effective


def _optimizer(step: Finetune, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    matrices = [parameter for parameter in parameters if parameter.dim() > 1]
    others = [parameter for parameter in parameters if parameter.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": step.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if step.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=step.learning_rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=step.learning_rate)


def _learning_rate(highest: float, done: float) -> float:
    """Linear warm-up, then a cosine to zero (Loshchilov and Hutter 2017); ``done`` runs from 0 to 1."""
    if done < _WARM_UP:
        return highest * (0.1 + 0.9 * done / _WARM_UP)
    return highest * (1 + cos(pi * (done - _WARM_UP) / (1 - _WARM_UP))) / 2


def _endless(samples: Samples, step: Finetune) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
    """Shuffled batches, pass after pass; what is left over at the end of a pass is left out of it."""
    random = np.random.default_rng(step.seed)
    size = min(step.batch_size, len(samples))
    while True:
        order = random.permutation(len(samples))
        for start in range(0, len(samples) - size + 1, size):
            inputs, targets = samples.take(np.sort(order[start : start + size]))
            yield tuple(torch.from_numpy(x) for x in inputs), torch.from_numpy(np.ascontiguousarray(targets))


def _loss(outputs: Tensor, targets: Tensor, loss: Loss, distill: Distill | None, taught: Tensor | None) -> Tensor:
    share = distill.weight if distill is not None else 0.0
    total = outputs.new_zeros(())
    if share < 1:
        total = total + (1 - share) * _own_loss(outputs, targets, loss)
    if distill is not None and taught is not None:
        total = total + share * _taught_loss(outputs, taught, loss, distill.temperature)
    return total


def _own_loss(outputs: Tensor, targets: Tensor, loss: Loss) -> Tensor:
    match loss:
        case "cross_entropy":
            return F.cross_entropy(outputs.flatten(0, -2), targets.flatten().long())
        case "mean_squared_error":
            return F.mse_loss(outputs, targets.to(outputs.dtype))
        case "mean_absolute_error":
            return F.l1_loss(outputs, targets.to(outputs.dtype))


def _taught_loss(outputs: Tensor, taught: Tensor, loss: Loss, temperature: float) -> Tensor:
    if loss != "cross_entropy":
        return F.mse_loss(outputs, taught)
    student = F.log_softmax(outputs.flatten(0, -2) / temperature, dim=-1)
    teacher = F.log_softmax(taught.flatten(0, -2) / temperature, dim=-1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2
