"""Penalties on weights in training, which drive to zero what Prune then takes.

A penalty is told here as what it does: after every step along the gradient of the loss, weights shrink by a factor,
that of the penalty's proximal operator (Parikh and Boyd 2014). So weights become exactly zero where a penalty wants
them to, with whatever optimizer.
"""

from abc import abstractmethod
from dataclasses import dataclass
from math import isfinite
from typing import Literal

import numpy as np

from whit.errors import PlanError
from whit.moments import Doubles

__all__ = ["L1", "L2", "GroupLasso", "GrowingPenalty", "Penalty"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Penalty:
    """How much units shrink. Subclass it as a frozen dataclass.

    Attributes:
        strength: In units of the loss by the penalty.
    """

    strength: float

    def __post_init__(self) -> None:
        if not (self.strength > 0 and isfinite(self.strength)):
            raise PlanError(f"{type(self).__name__}(strength={self.strength}): it is a positive number")

    @property
    def of(self) -> Literal["weight", "channel"]:
        """What a unit is: a single weight, or a channel with all that is coupled to it."""
        return "weight"

    @abstractmethod
    def factors(self, sizes: Doubles, pace: float, done: float) -> Doubles:
        """What every unit of a layer or group is multiplied with, 0 to 1.

        Args:
            sizes: ``(units,)``, the root mean square of a unit's weights.
            pace: The learning rate.
            done: The share of the training that is done, 0 to 1.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class L1(Penalty):
    """``strength * sum(abs(weights))``: every weight comes nearer to zero by as much (Tibshirani 1996).

    >>> L1(strength=0.5).factors(np.array([0.1, 0.4]), 0.2, 0.0)
    array([0.  , 0.75])
    """

    def factors(self, sizes: Doubles, pace: float, done: float) -> Doubles:
        """Soft thresholding."""
        return _nearer(sizes, pace * self.strength)


@dataclass(frozen=True, kw_only=True, slots=True)
class L2(Penalty):
    """``strength / 2 * sum(weights ** 2)``: all weights shrink alike, and none to zero.

    >>> L2(strength=0.5).factors(np.array([0.1, 0.4]), 0.5, 0.0)
    array([0.8, 0.8])
    """

    def factors(self, sizes: Doubles, pace: float, done: float) -> Doubles:
        """One factor for all."""
        return np.full(sizes.shape, 1 / (1 + pace * self.strength))


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupLasso(Penalty):
    """``strength * sum(sqrt(weights of the channel) * norm(channel))``: channels go (Yuan and Lin 2006; Wen 2016).

    A channel is all that ``Prune(unit="channel")`` cuts out with it.

    >>> GroupLasso(strength=0.5).factors(np.array([0.1, 0.4]), 0.2, 0.0)
    array([0.  , 0.75])
    """

    @property
    def of(self) -> Literal["weight", "channel"]:
        """Channels."""
        return "channel"

    def factors(self, sizes: Doubles, pace: float, done: float) -> Doubles:
        """Soft thresholding of norms."""
        return _nearer(sizes, pace * self.strength)


@dataclass(frozen=True, kw_only=True, slots=True)
class GrowingPenalty(Penalty):
    """An L2 penalty on the smallest alone, that grows from nothing to ``strength`` (Wang et al. 2021).

    The network has time to do without them; those it needs more than it seemed grow out of it.

    Attributes:
        amount: The share of units of each layer or group that is penalised, as ``Prune`` will take it.
        unit: Single weights, or channels.

    >>> GrowingPenalty(strength=8.0, amount=0.5).factors(np.array([0.1, 0.4]), 0.5, 0.25)
    array([0.5, 1. ])
    """

    amount: float
    unit: Literal["weight", "channel"] = "channel"

    def __post_init__(self) -> None:
        Penalty.__post_init__(self)
        if not 0 <= self.amount < 1:
            raise PlanError(f"GrowingPenalty(amount={self.amount}): the share lies in [0, 1)")
        if self.unit not in ("weight", "channel"):
            raise PlanError(f"GrowingPenalty(unit={self.unit!r}): choose one of weight, channel")

    @property
    def of(self) -> Literal["weight", "channel"]:
        """As ``unit`` says."""
        return self.unit

    def factors(self, sizes: Doubles, pace: float, done: float) -> Doubles:
        """Less than 1 for the smallest."""
        factors = np.ones(sizes.shape)
        count = int(self.amount * sizes.size + 1e-9)
        factors[np.argpartition(sizes, count)[:count]] = 1 / (1 + pace * self.strength * done)
        return factors


def _nearer(sizes: Doubles, by: float) -> Doubles:
    """The factors with which sizes become smaller by as much, but not less than zero."""
    return np.maximum(0.0, 1 - by / np.maximum(sizes, np.finfo(np.float64).tiny))
