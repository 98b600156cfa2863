"""Fine-tuning on the user's own eager module: masks hold, rounding is trained through, a teacher may help."""

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from math import ceil, cos, pi
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call  # pyright: ignore[reportPrivateImportUsage]
from torch.nn import functional as F

from whit.data import Samples
from whit.errors import DataError
from whit.formats import is_short, short
from whit.ledger import Ledger, Rounded
from whit.metrics import Loss
from whit.plan import Distill, Finetune
from whit.progress import Progress
from whit.torch.augment import augmented
from whit.torch.rounded import RoundedWeight

__all__ = ["finetune_", "seeded"]

_WARM_UP = 0.05
"""Share of the steps in which the learning rate rises."""
_RISE = 0.2
"""Share of the steps in which the price of a bit rises to what the step says."""
_LOOK = 10
"""Steps after which the code lengths are asked for anew."""


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
) -> list[Rounded]:
    """Train ``module`` in place as ``step`` says.

    Masked weights are zero in every forward pass and at the end. Weights that the ledger rounds are rounded on their
    grid in every forward pass, with a straight-through gradient, and hold values of the grid at the end.

    Returns:
        The codes and scales that rounded weights have then.
    """
    masks = {name: torch.from_numpy(decision.mask) for name, decision in ledger.masks().items()}
    rounded = {name: RoundedWeight(decision, masks.get(name)) for name, decision in ledger.rounded().items()}
    optimizer = _optimizer(step, module, rounded)
    count = min(step.samples or len(samples), len(samples))
    steps = max(1, ceil(step.epochs * count / step.batch_size))

    def effective() -> dict[str, Tensor]:
        """What the forward pass uses in place of the weights that are masked or rounded."""
        masked = {name: module.get_parameter(name) * mask for name, mask in masks.items() if name not in rounded}
        return masked | {name: weight.values() for name, weight in rounded.items()}

    module.train()
    with seeded(step.seed), progress.bar("fine-tuning", steps) as bar:
        for place, (inputs, targets) in enumerate(_endless(samples, count, step)):
            if place == steps:
                break
            for group in optimizer.param_groups:
                group["lr"] = group["pace"] * _learning_rate(step.learning_rate, place / steps)
            outputs = functional_call(module, effective(), inputs)
            value = _loss(outputs, targets, loss, step.distill, teacher(inputs) if teacher else None)
            if not torch.isfinite(value):
                raise DataError(
                    f"the training loss became {value.item()} at step {place + 1} of {steps}; "
                    f"lower the learning rate ({step.learning_rate}) and look at the data"
                )
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            if step.rate > 0:
                _price(step.rate * min(1.0, place / (_RISE * steps)), rounded, look=place % _LOOK == 0)
            optimizer.step()
            bar.advance(1, note=f"loss {value.item():.4g}")
    return _finish(module, effective(), rounded)


def _price(rate: float, rounded: Mapping[str, RoundedWeight], *, look: bool) -> None:
    """Add to the gradients what the bits of the codes cost."""
    for weight in rounded.values():
        if look:
            weight.look()
        (rate * weight.bits()).backward()


def _finish(module: nn.Module, effective: Mapping[str, Tensor], rounded: Mapping[str, RoundedWeight]) -> list[Rounded]:
    """Leave the values in the module that were trained; where scales came short, they and the rest stay so."""
    scales = [weight.decision.scale for weight in rounded.values() if weight.has_scale]
    brief = bool(scales) and all(is_short(scale) for scale in scales)
    decisions = [weight.decided(brief=brief) for weight in rounded.values()]
    with torch.no_grad():
        for name, tensor in effective.items():
            module.get_parameter(name).copy_(tensor)
        for decision in decisions:
            module.get_parameter(decision.parameter).copy_(torch.from_numpy(decision.values()))
        for parameter in module.parameters():
            if brief and parameter.dim() <= 1 and parameter.dtype == torch.float32:
                parameter.copy_(torch.from_numpy(short(parameter.numpy())))
    module.eval()
    return decisions


def _optimizer(step: Finetune, module: nn.Module, rounded: Mapping[str, RoundedWeight]) -> torch.optim.Optimizer:
    """Every parameter that is trained; ``pace`` is its share of the learning rate."""
    free = [one for name, one in module.named_parameters() if one.requires_grad and name not in rounded]
    groups: list[dict[str, Any]] = [{"params": [one for one in free if one.dim() <= 1], "pace": 1.0}]
    if step.trains != "scales":
        matrices = [one for one in free if one.dim() > 1]
        groups.append({"params": matrices, "pace": 1.0, "weight_decay": step.weight_decay})
    for weight in rounded.values():
        if step.trains != "codes" and weight.has_scale:
            weight.learned = True
            groups.append({"params": [weight.log_scale], "pace": 1.0})
        if step.trains != "scales":
            # The pace of the weight itself: AdamW does not heed the size of a gradient, which has the same unit.
            pace = float(weight.log_scale.detach().mean().exp()) ** (-1 if step.optimizer == "adamw" else -2)
            groups.append({"params": [weight.latent], "pace": pace, "weight_decay": step.weight_decay / pace})
    groups = [{"weight_decay": 0.0} | group for group in groups if group["params"]]
    if step.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=step.learning_rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=step.learning_rate)


def _learning_rate(highest: float, done: float) -> float:
    """Linear warm-up, then a cosine to zero (Loshchilov and Hutter 2017); ``done`` runs from 0 to 1."""
    if done < _WARM_UP:
        return highest * (0.1 + 0.9 * done / _WARM_UP)
    return highest * (1 + cos(pi * (done - _WARM_UP) / (1 - _WARM_UP))) / 2


def _endless(samples: Samples, count: int, step: Finetune) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
    """Shuffled batches of the first ``count``, pass after pass; what is left over at the end of a pass is left out."""
    random = np.random.default_rng(step.seed)
    size = min(step.batch_size, count)
    while True:
        order = random.permutation(count)
        for start in range(0, count - size + 1, size):
            inputs, targets = samples.take(np.sort(order[start : start + size]))
            first, *others = (torch.from_numpy(x) for x in inputs)
            yield (augmented(first, step.augment), *others), torch.from_numpy(np.ascontiguousarray(targets))


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
