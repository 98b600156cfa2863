"""Samples that a training does not see tell which of its states is the best, and when it gets no better."""

from collections.abc import Callable, Mapping
from math import inf, isfinite

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from whit.data import Samples
from whit.errors import DataError
from whit.metrics import Metric
from whit.ranks import Ranks
from whit.steps import Finetune
from whit.torch.training.trainable import Trainable

__all__ = ["HeldOut", "parted"]

_BATCH = 256


def parted(step: Finetune, samples: Samples) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Places of the samples that a step trains on, and of those that it holds out; both rise.

    Raises:
        DataError: The share is none of the samples, or all of them.
    """
    count = min(step.samples or len(samples), len(samples))
    if step.held_out == 0:
        return np.arange(count), np.arange(0)
    out = round(step.held_out * count)
    if not 0 < out < count:
        left = "none is held out" if out == 0 else "none is left to train on"
        raise DataError(f"Finetune(held_out={step.held_out}): of {count} samples {left}; give more, or another share")
    order = np.random.default_rng((step.seed, 1)).permutation(count)
    return np.sort(order[out:]), np.sort(order[:out])


class HeldOut:
    """Judges a training by samples that it does not see, and keeps its best state.

    Attributes:
        best: The values that came out best so far, by name; empty before the first judgement.
        quality: What the metric said of them.
        since: Judgements since then.
    """

    def __init__(
        self, step: Finetune, metric: Metric, samples: Samples, places: NDArray[np.intp], layout: torch.memory_format
    ) -> None:
        """Of a step; ``places`` are those of the samples that are held out."""
        self.patience = inf if step.patience is None else step.patience
        self.metric = metric
        self.samples = samples
        self.places = places
        self.layout = layout
        self.best: dict[str, Tensor] = {}
        self.quality = -inf if metric.higher_is_better else inf
        self.since = 0

    @property
    def exhausted(self) -> bool:
        """Whether it waited long enough for something better."""
        return self.since >= self.patience

    def judge(
        self, trainable: Trainable, network: Callable[[tuple[Tensor, ...]], Tensor], ranks: Ranks | None = None
    ) -> float:
        """The quality of what would come out now, which is kept if it is the best so far.

        Of several processes the first says how good it is.
        """
        now, outcome = trainable.values(), trainable.outcome()
        trainable.assign_(outcome)
        found = self._quality(trainable.module, network)
        quality = (ranks or Ranks()).from_first(lambda: found)
        trainable.assign_(now)
        if not self.best or (quality > self.quality if self.metric.higher_is_better else quality < self.quality):
            self.best, self.quality, self.since = outcome, quality, 0
        else:
            self.since += 1
        return quality

    def _quality(self, module: nn.Module, network: Callable[[tuple[Tensor, ...]], Tensor]) -> float:
        outputs: list[Tensor] = []
        module.eval()
        with torch.no_grad():
            for start in range(0, len(self.places), _BATCH):
                arrays, _ = self.samples.take(self.places[start : start + _BATCH])
                head, *others = (torch.from_numpy(np.ascontiguousarray(x)) for x in arrays)
                outputs.append(network((head.contiguous(memory_format=self.layout), *others)))
        module.train()
        quality = self.metric(torch.cat(outputs).numpy(), self.samples.targets[self.places])
        if not isfinite(quality):
            raise DataError(f"the {self.metric.name} of the {len(self.places)} samples that are held out is {quality}")
        return quality

    def state(self) -> dict[str, Tensor]:
        """What goes on with a training that was stopped."""
        about = {"quality": torch.tensor(self.quality, dtype=torch.float64), "since": torch.tensor(self.since)}
        return {f"held_out.{name}": one for name, one in about.items()} | {
            f"best.{name}": one for name, one in self.best.items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go back to a state."""
        self.quality, self.since = float(state["held_out.quality"]), int(state["held_out.since"])
        self.best = {name.removeprefix("best."): one for name, one in state.items() if name.startswith("best.")}
