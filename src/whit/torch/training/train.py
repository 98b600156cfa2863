"""Fine-tuning on the user's own eager module: masks hold, rounding is trained through, a teacher may help."""

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from math import ceil, cos, isfinite, pi

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call  # pyright: ignore[reportPrivateImportUsage]

from whit.data import Samples
from whit.errors import DataError
from whit.ledger import Rounded, RoundedActivation
from whit.metrics import Metric
from whit.progress import Progress
from whit.ranks import Ranks
from whit.steps import Finetune
from whit.torch.activations import interruptible
from whit.torch.training.augment import augmented
from whit.torch.training.checkpoint import Checkpoint
from whit.torch.training.held_out import HeldOut, parted
from whit.torch.training.objective import Objective
from whit.torch.training.penalised import Penalised
from whit.torch.training.rounded import RoundedWeight
from whit.torch.training.together import agreed, is_share, mean_, share_of, whole_batches
from whit.torch.training.trainable import Trainable

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
    trainable: Trainable,
    samples: Samples,
    objective: Objective,
    layout: torch.memory_format,
    progress: Progress,
    kept: Checkpoint | None = None,
    penalised: Penalised | None = None,
    metric: Metric | None = None,
) -> list[Rounded | RoundedActivation]:
    """Train a module in place as its step says.

    Masked weights are zero in every forward pass and at the end. Weights that the ledger rounds are rounded on their
    grid in every forward pass, with a straight-through gradient, and hold values of the grid at the end.

    Args:
        trainable: The module, the step, and what of it is trained.
        samples: To train on.
        objective: What it makes small.
        layout: How the first input lies in memory.
        progress: Shows how far it is.
        kept: A file to keep the state in, and to go on from if it is there.
        penalised: What a penalty drives to zero.
        metric: By which samples that are held out are judged.

    Returns:
        The codes and scales that rounded weights have then, and the grids of activations that were trained.
    """
    ranks = Ranks.here()
    module, step = trainable.module, trainable.step
    trained, judged = parted(step, samples)
    held_out = HeldOut(step, metric, samples, judged, layout) if metric is not None and step.held_out > 0 else None
    steps = _steps(step.epochs, len(trained), step)
    between = _steps(step.judge_every, len(trained), step)

    def network(inputs: tuple[Tensor, ...]) -> Tensor:
        with whole_batches(ranks), interruptible(module):
            return functional_call(module, trainable.effective(), inputs)

    module.train()
    with seeded(step.seed), objective.listening(), progress.bar("fine-tuning", steps) as bar:
        first = agreed(ranks, _resumed(trainable, held_out, kept))
        _as_first_(ranks, trainable)
        bar.advance(first)
        batches = _endless(samples, trained, step, first * step.accumulate, layout)
        for place in range(first, steps):
            if held_out is not None and held_out.exhausted:
                break
            mean = 0.0
            for batch in islice(batches, step.accumulate):
                *inputs, targets, places = share_of(ranks, batch)
                value = objective(network, tuple(inputs), targets, places) / step.accumulate
                value.backward()
                mean += value.item()
            mean = mean_(ranks, list(trainable.moved()), mean)
            if not isfinite(mean):
                raise DataError(
                    f"the training loss became {mean} at step {place + 1} of {steps}; "
                    f"lower the learning rate ({step.learning_rate}) and look at the data"
                )
            if step.rate > 0:
                price = step.rate * min(1.0, place / (_RISE * steps))
                _price(price, trainable.rounded, look=place % _LOOK == 0)
            pace = _learning_rate(step.learning_rate, place / steps)
            trainable.take_step(pace)
            if penalised is not None:
                penalised.shrink_(pace, place / steps)
            done, note = place + 1, f"loss {mean:.4g}"
            if held_out is not None and (done % between == 0 or done == steps):
                note += f", held-out {held_out.metric.name} {held_out.judge(trainable, network, ranks):.4g}"
            bar.advance(1, note=note)
            ends = done == steps or (held_out is not None and held_out.exhausted)
            if kept is not None and ranks.rank == 0 and (ends or (kept.due() and done % _LOOK == 0)):
                kept.keep(done, trainable.state() | (held_out.state() if held_out is not None else {}))
    module.eval()
    _as_first_(ranks, trainable)
    return trainable.finish(held_out.best if held_out is not None else None)


@torch.no_grad()
def _as_first_(ranks: Ranks, trainable: Trainable) -> None:
    """Make everything that is trained what it is in the first process."""
    for _, tensor in trainable.tensors():
        if not is_share(tensor):
            ranks.copy_(tensor)


def _steps(epochs: float, count: int, step: Finetune) -> int:
    """How many steps so many passes over so many samples are."""
    return max(1, ceil(epochs * count / (step.batch_size * step.accumulate)))


def _resumed(trainable: Trainable, held_out: HeldOut | None, kept: Checkpoint | None) -> int:
    """Go back to the state that was kept, if one was; how many steps were done then."""
    found = kept.kept() if kept is not None else None
    if found is None:
        return 0
    trainable.restore(found[1])
    if held_out is not None:
        held_out.restore(found[1])
    return found[0]


def _price(rate: float, rounded: Mapping[str, RoundedWeight], *, look: bool) -> None:
    """Add to the gradients what the bits of the codes cost."""
    for weight in rounded.values():
        if look:
            weight.look()
        (rate * weight.bits()).backward()


def _learning_rate(highest: float, done: float) -> float:
    """Linear warm-up, then a cosine to zero (Loshchilov and Hutter 2017); ``done`` runs from 0 to 1."""
    if done < _WARM_UP:
        return highest * (0.1 + 0.9 * done / _WARM_UP)
    return highest * (1 + cos(pi * (done - _WARM_UP) / (1 - _WARM_UP))) / 2


def _endless(
    samples: Samples, trained: NDArray[np.intp], step: Finetune, first: int, layout: torch.memory_format
) -> Iterator[tuple[Tensor, ...]]:
    """Shuffled batches of what is trained on, pass after pass, without the first ``first``: inputs, targets, places.

    What is left over at the end of a pass is left out.
    """
    random = np.random.default_rng(step.seed)
    count, size = len(trained), min(step.batch_size, len(trained))
    while True:
        order = trained[random.permutation(count)]
        batches = [order[start : start + size] for start in range(0, count - size + 1, size)]
        for chosen in batches[first:]:
            places = np.sort(chosen)
            inputs, targets = samples.take(places)
            head, *others = (torch.from_numpy(x) for x in inputs)
            head = augmented(head, step.augment).contiguous(memory_format=layout)
            yield head, *others, torch.from_numpy(np.ascontiguousarray(targets)), torch.from_numpy(places)
        first = max(0, first - len(batches))
