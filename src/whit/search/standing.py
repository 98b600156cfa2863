"""What a search measures first, once: the original, what it is indifferent to, and what a bit is worth."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from time import perf_counter
from typing import Literal

import numpy as np

from whit import measure
from whit.data import Array, Data, Samples
from whit.decide import folded
from whit.decide.sensitivity import Trial, Trials
from whit.errors import DataError, ModelError
from whit.formats import Int
from whit.graph import Layer
from whit.ledger import Ledger
from whit.metrics import Accuracy, Metric
from whit.network import Network
from whit.progress import Progress
from whit.runtime import open_onnx
from whit.search.budget import Budget
from whit.steps import Quantize
from whit.workers import Workers

__all__ = ["Standing", "indifferent", "price_of_a_bit", "standing"]

_LOOK = 512
"""Samples on which a network is looked at."""
_INDIFFERENT = 0.05
"""Share of its quality that a network may lose by a change of its inputs that leaves their meaning."""
_WIDTHS = (4, 5)


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """The original.

    Attributes:
        quality: On the validation samples, in ONNX Runtime.
        latency_ms: One call.
        macs: Multiply-accumulates for one sample.
        bytes: Of its ``.onnx`` file.
        sample: Seconds that ONNX Runtime takes for one sample in a batch.
    """

    quality: float
    latency_ms: float
    macs: int
    bytes: int
    sample: float


def standing(
    original: Network,
    data: Data,
    metric: Metric,
    budget: Budget,
    path: Path,
    progress: Progress,
    timed: Callable[[], float],
) -> Standing:
    """Measure the original, whose ``.onnx`` file is left at ``path``; ``timed`` tells its latency once it is there.

    Raises:
        DataError: The metric cannot be used, or the samples are too few to see the drop that is allowed.
    """
    original.export(path, Ledger())
    start = perf_counter()
    outputs = measure.predictions(open_onnx(path, threads=0), data.test, progress, "testing the original")
    sample = (perf_counter() - start) / len(data.test)
    quality = metric(outputs, data.test.targets)
    _check(metric, quality, outputs, data.test)
    _check_resolution(metric, quality, len(data.test), budget)
    with progress.bar("timing the original", 1):
        latency_ms = timed()
    return Standing(
        quality=quality,
        latency_ms=latency_ms,
        macs=original.graph().macs(),
        bytes=path.stat().st_size,
        sample=sample,
    )


def _check(metric: Metric, quality: float, outputs: Array, samples: Samples) -> None:
    """A metric has to give a number, and must not find the original better on the targets of other samples."""
    if not isfinite(quality):
        raise DataError(
            f"{metric.name} gives {quality} for the original network on the {samples.name}, so nothing can be compared "
            "with it; mend the metric or the data"
        )
    targets = samples.targets[np.random.default_rng(0).permutation(len(samples))]
    shuffled = metric(outputs, targets)
    if (shuffled - quality) * (1 if metric.higher_is_better else -1) > 0:
        better = "higher" if metric.higher_is_better else "lower"
        raise DataError(
            f"{metric.name} goes the wrong way: it says that {better} is better, and gives the original network "
            f"{quality:.4g} on the {samples.name} and {shuffled:.4g} where their targets are shuffled; turn its "
            "higher_is_better round, or look at the targets"
        )


def _check_resolution(metric: Metric, quality: float, count: int, budget: Budget) -> None:
    """Shares of samples come in steps; a drop that is smaller than one cannot be seen."""
    allowed = budget.drop if budget.relative_drop is None else budget.relative_drop * quality
    if isinstance(metric, Accuracy) and allowed and allowed * count < 1:
        raise DataError(
            f"a drop of {allowed:.2g} cannot be seen on {count} validation samples, of which one is {1 / count:.2g}; "
            "give more samples, or allow more"
        )


def indifferent(original: Network, data: Data, metric: Metric) -> tuple[Literal["flip", "shift"], ...]:
    """The changes to images under which the network answers almost as well, so that trainings may make them."""
    (head, *others), targets = data.test.take(slice(0, _LOOK))
    if head.ndim != 4 or head.dtype.kind != "f" or min(head.shape[2:]) < 8:
        return ()
    changes: tuple[tuple[Literal["flip", "shift"], Callable[[Array], Array]], ...] = (
        ("flip", _flipped),
        ("shift", _shifted),
    )

    def quality(x: Array) -> float:
        return metric(original.predict(Samples((x, *others), targets)), targets)

    plain = quality(head)
    allowed = _INDIFFERENT * abs(plain)
    return tuple(
        name for name, change in changes if abs(plain - quality(np.ascontiguousarray(change(head)))) <= allowed
    )


def _flipped(x: Array) -> Array:
    return x[..., ::-1]


def _shifted(x: Array) -> Array:
    """Down and to the right by an eighth, zeros moving in."""
    rows, columns = x.shape[2] // 8, x.shape[3] // 8
    padded = np.pad(x, ((0, 0), (0, 0), (rows, 0), (columns, 0)))
    return padded[:, :, : x.shape[2], : x.shape[3]]


def price_of_a_bit(original: Network, data: Data, metric: Metric, progress: Progress, workers: Workers | None) -> float:
    """What a bit is worth where weights have 4: the loss that one more saves, of the median weight.

    It is the sensitivity of each layer, predicted from what it reads; measured where that cannot be seen.

    Raises:
        ModelError: There are no such layers.
    """
    network = folded(original)
    values = network.values()
    layers: list[Layer] = [one for one in network.graph().layers() if values[one.weight].dtype == np.float32]
    if not layers:
        raise ModelError("no convolution or linear layer has weights in float32, so there is nothing to make smaller")
    uses = [Quantize(weights=Int(bits=bits), samples=_LOOK) for bits in _WIDTHS]

    def trials(layers: Sequence[Layer], *, measured: bool) -> list[list[Trial]]:
        found = Trials(uses, layers, network, data.train, metric.loss, measured=measured)
        return found.run(progress, workers) if layers else []

    predicted = trials(layers, measured=False)
    tried = [layer for layer in predicted if isfinite(layer[0].growth)]
    tried += trials([layer.layer for layer, _ in predicted if not isfinite(layer.growth)], measured=True)
    sizes = np.array([values[layer[0].layer.weight].size for layer in tried], float)
    saved = np.array([max(coarse.growth - fine.growth, 0.0) for coarse, fine in tried]) / sizes
    order = np.argsort(saved)
    middle = order[np.searchsorted(np.cumsum(sizes[order]), sizes.sum() / 2)]
    return max(float(saved[middle]), 1e-12)
