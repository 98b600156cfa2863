"""How good a network's outputs are."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from whit.data import Array, Samples
from whit.errors import DataError, PlanError, listed

__all__ = [
    "SHARES_SUM_TO_ONE",
    "Accuracy",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Metric",
    "divergence",
    "logits_of",
    "named",
]

SHARES_SUM_TO_ONE = 1e-3
"""How far from one the sum of a row of shares may be."""

Loss = Literal["cross_entropy", "mean_squared_error", "mean_absolute_error"]


class Metric(ABC):
    """A quality, with which way is better and which loss trains for it. Subclass it for one of your own."""

    name: ClassVar[str]
    higher_is_better: ClassVar[bool]
    loss: ClassVar[Loss]

    @abstractmethod
    def __call__(self, outputs: Array, targets: Array) -> float:
        """The quality of all outputs ``(samples, ...)``."""

    def agree(self, expected: Array, found: Array, tolerance: float) -> Array:
        """Which samples' outputs are the same to whoever uses them, ``(samples,)`` bool.

        By default those whose differences have a root mean square within ``tolerance`` standard deviations of what is
        expected.
        """
        squares = np.square(expected.astype(np.float64) - found).reshape(len(expected), -1)
        return np.sqrt(squares.mean(axis=1)) <= tolerance * max(float(expected.std()), 1e-12)

    def check(self, outputs: Array, samples: Samples) -> None:
        """Raise ``DataError`` if targets cannot be judged against outputs of this shape."""
        if outputs.shape[1:] != samples.targets.shape[1:]:
            raise DataError(
                f"the {samples.name}'s targets have shape {samples.targets.shape[1:]} a sample, the network's outputs "
                f"{outputs.shape[1:]}; {self.name} needs them equal"
            )


@dataclass(frozen=True, slots=True)
class Accuracy(Metric):
    """The share of samples whose largest output is the label's.

    >>> Accuracy()(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1, 1]))
    0.5
    """

    name: ClassVar[str] = "accuracy"
    higher_is_better: ClassVar[bool] = True
    loss: ClassVar[Loss] = "cross_entropy"

    def __call__(self, outputs: Array, targets: Array) -> float:
        """The share of right answers, 0 to 1."""
        return float((outputs.argmax(axis=-1) == targets).mean())

    def agree(self, expected: Array, found: Array, tolerance: float) -> Array:
        """Those with the same labels, however far outputs are apart."""
        same = np.equal(expected.argmax(axis=-1), found.argmax(axis=-1))
        return np.all(same.reshape(len(expected), -1), axis=1)

    def check(self, outputs: Array, samples: Samples) -> None:
        """Raise ``DataError`` unless the targets are labels of the outputs' classes."""
        targets = samples.targets
        if outputs.ndim < 2 or targets.shape[1:] != outputs.shape[1:-1] or targets.dtype.kind not in "iu":
            raise DataError(
                f"the {samples.name}'s targets are {targets.dtype} of shape {targets.shape[1:]} a sample, the "
                f"outputs have shape {outputs.shape[1:]}; accuracy needs integer labels and one output a class"
            )
        classes = outputs.shape[-1]
        outside = (targets < 0) | (targets >= classes)
        if outside.any():
            raise DataError(
                f"{int(outside.sum())} of the {samples.name}'s labels lie outside 0 to {classes - 1} "
                f"(from {targets.min()} to {targets.max()}); the network has {classes} classes"
            )


@dataclass(frozen=True, slots=True)
class MeanAbsoluteError(Metric):
    """The mean distance between outputs and targets.

    >>> MeanAbsoluteError()(np.array([[1.0], [2.0]]), np.array([[1.0], [4.0]]))
    1.0
    """

    name: ClassVar[str] = "mae"
    higher_is_better: ClassVar[bool] = False
    loss: ClassVar[Loss] = "mean_absolute_error"

    def __call__(self, outputs: Array, targets: Array) -> float:
        """Mean absolute error, in units of the target."""
        return float(np.abs(outputs.astype(np.float64) - targets).mean())


@dataclass(frozen=True, slots=True)
class MeanSquaredError(Metric):
    """The mean squared distance between outputs and targets."""

    name: ClassVar[str] = "mse"
    higher_is_better: ClassVar[bool] = False
    loss: ClassVar[Loss] = "mean_squared_error"

    def __call__(self, outputs: Array, targets: Array) -> float:
        """Mean squared error, in squared units of the target."""
        return float(np.square(outputs.astype(np.float64) - targets).mean())


_BY_NAME: dict[str, Callable[[], Metric]] = {cls.name: cls for cls in (Accuracy, MeanAbsoluteError, MeanSquaredError)}


def named(metric: str | Metric) -> Metric:
    """The metric of a name, or the metric itself.

    Raises:
        PlanError: There is no metric of that name.
    """
    if isinstance(metric, Metric):
        return metric
    if metric not in _BY_NAME:
        raise PlanError(f"there is no metric {metric!r}; choose {listed(_BY_NAME)}, or pass a whit.metrics.Metric")
    return _BY_NAME[metric]()


def divergence(loss: Loss, expected: Array, found: Array) -> float:
    """How far outputs are from those of another network, in units of the loss of a sample.

    Args:
        loss: For cross entropy the Kullback-Leibler divergence from the expected probabilities; else the mean squared
            difference.
        expected: Outputs ``(samples, ...)``, of logits ``(samples, ..., classes)``.
        found: Likewise.

    >>> even, sure = np.zeros((1, 2)), np.array([[np.log(3.0), 0.0]])
    >>> round(divergence("cross_entropy", even, sure), 4)  # 0.5 log(0.5 / 0.75) + 0.5 log(0.5 / 0.25)
    0.1438
    """
    if loss != "cross_entropy":
        return float(np.square(expected.astype(np.float64) - found).mean())
    expected, found = (_log_softmax(logits_of(x).astype(np.float64)) for x in (expected, found))
    return float((np.exp(expected) * (expected - found)).sum(axis=-1).mean())


def logits_of(outputs: Array) -> Array:
    """Logits ``(..., classes)``: outputs as they are, or the logarithms of shares.

    Rows without a negative number that sum to one are what softmax gives. Their logarithms are logits that softmax
    makes the same shares of, so a loss means the same whether a network ends in softmax or leaves it to the loss.

    >>> logits_of(np.array([[0.25, 0.75]])).round(2), logits_of(np.array([[0.25, 0.5]]))
    (array([[-1.39, -0.29]]), array([[0.25, 0.5 ]]))
    """
    if outputs.min() < 0 or np.abs(outputs.sum(axis=-1) - 1).max() > SHARES_SUM_TO_ONE:
        return outputs
    return np.log(np.maximum(outputs, np.finfo(outputs.dtype).tiny))


def _log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
