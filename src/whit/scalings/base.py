"""What a scaling is."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from whit.formats import Floats
from whit.moments import Doubles

__all__ = ["Channels", "Scaling", "largest"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Channels:
    """Channels that can be scaled, each by a factor of its own.

    Attributes:
        made: Of every weight matrix that makes them ``(channels, weights)``, float32.
        read: Of every weight matrix that reads them, likewise.
        largest: ``(channels,)``, the largest magnitude that was read.
        mean: ``(channels,)``, the mean magnitude.
        growth: What the loss of a sample grows by if ``read`` is scaled by factors, rounded, and scaled back. It takes
            the factors, and what gives for a weight matrix ``(rows, columns)`` the rounded one.
    """

    made: tuple[Floats, ...]
    read: tuple[Floats, ...]
    largest: Doubles
    mean: Doubles
    growth: Callable[[Doubles, Callable[[Floats], Floats]], float]


class Scaling:
    """Chooses what channels are divided by, and multiplied by where they are read. Subclass it as a frozen dataclass.

    Attributes:
        needs: What a strategy cannot do without: weight matrices that make the channels (``"makers"``), or what layers
            read (``"inputs"``).
        repeats: Whether to go over the network again until nothing changes, since factors depend on each other.
    """

    __slots__ = ()

    needs: ClassVar[Literal["makers", "inputs"]] = "inputs"
    repeats: ClassVar[bool] = False

    @abstractmethod
    def factors(self, channels: Channels) -> Doubles:
        """``(channels,)``, positive; they are applied as the nearest quarter power of two."""


def largest(parts: Sequence[Floats]) -> Doubles:
    """The largest magnitude of each channel, ``(channels,)``.

    >>> largest([np.array([[1, -2], [0, 0]], np.float32), np.array([[0], [3]], np.float32)]).tolist()
    [2.0, 3.0]
    """
    return np.max([np.abs(part).max(axis=1, initial=0) for part in parts], axis=0).astype(np.float64)
