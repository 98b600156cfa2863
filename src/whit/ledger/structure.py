"""Decisions that change what there is, replayed in the order in which they were made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from whit.formats import Integers

__all__ = ["MOST_QUARTERS", "Axis", "Factored", "Folded", "Kept", "LeftOut", "Plain", "Scaled", "Span", "Structure"]

Number = TypeVar("Number", bound=np.generic)


class Axis(NamedTuple):
    """One axis of one parameter."""

    parameter: str
    axis: int


class Span(NamedTuple):
    """Where channels lie on one axis of a tensor: channel ``c`` takes ``each`` places, from ``first + c * each`` on."""

    name: str
    axis: int
    first: int = 0
    each: int = 1

    def of(self, size: int) -> slice:
        """The places of so many channels."""
        return slice(self.first, self.first + size * self.each)


@dataclass(frozen=True, kw_only=True, slots=True)
class Folded:
    """A batch normalisation was multiplied into the layer before it and is the identity from then on."""

    batch_norm: str
    into: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Plain:
    """A layer that computed its weight became a plain one, whose weight is a parameter.

    What its values are another decision tells; the bias is the layer's.

    Attributes:
        layer: Name of the module.
        same: A convolution that pads as TensorFlow does, by the size of what it reads.
    """

    layer: str
    same: bool = False

    def covers(self, name: str) -> bool:
        """Whether a parameter is gone with the layer."""
        return name.startswith(f"{self.layer}.") and name != f"{self.layer}.bias"


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """Channels were cut: of every axis only these indices are kept.

    Attributes:
        group: Name of the group of coupled channels.
        axes: Indices that stay, int64, rising.
        groups: By weight, the groups that a depthwise convolution has from then on: one for every channel it keeps.
        sizes: By module, numbers that may count these channels there, each with what it is from then on.
    """

    group: str
    axes: Mapping[Axis, NDArray[np.int64]]
    groups: Mapping[str, int] = field(default_factory=dict[str, int])
    sizes: Mapping[str, Mapping[int, int]] = field(default_factory=dict[str, Mapping[int, int]])


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """A residual branch was left out: what it read stands for the sum of it and what the branch made of it.

    Attributes:
        branch: Name of its first layer.
        identity: Names of modules that hand on what they read from then on.
        zeros: Names of modules that give zeros of the shape of what they read from then on.
    """

    branch: str
    identity: tuple[str, ...]
    zeros: tuple[str, ...]

    def covers(self, name: str) -> bool:
        """Whether a parameter or buffer is gone with the modules.

        >>> left_out = LeftOut(branch="a.b", identity=("a",), zeros=())
        >>> left_out.covers("a.b.weight"), left_out.covers("ab.weight")
        (True, False)
        """
        return any(name.startswith(f"{module}.") for module in (*self.identity, *self.zeros))


@dataclass(frozen=True, kw_only=True, slots=True)
class Factored:
    """A layer became a chain of layers whose weights are the factors of its own, named ``layer.0``, ``layer.1``, ...

    The last of them has the bias. What their values are other decisions tell.

    Attributes:
        layer: Name of the module.
        form: Of the product, see ``whit.factors``.
        ranks: How many channels there are between the factors.
    """

    layer: str
    form: Literal["matrix", "spatial", "channel"]
    ranks: tuple[int, ...]

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of the factors."""
        return tuple(f"{self.layer}.{place}.weight" for place in range(len(self.ranks) + 1))

    @property
    def bias(self) -> str:
        """Name of the bias, if there is one."""
        return f"{self.layer}.{len(self.ranks)}.bias"

    def covers(self, name: str) -> bool:
        """Whether a parameter is gone with the layer."""
        return name in (f"{self.layer}.weight", f"{self.layer}.bias")


@dataclass(frozen=True, kw_only=True, slots=True)
class Scaled:
    """Channels are divided by factors where they are made and multiplied by them where they are read.

    Factors are quarter powers of two: as fine as ranges need, small in a file, and the same on every machine. Channels
    that something else reads too cannot be divided where they are made; what single layers read is divided then.

    Attributes:
        group: The first layer that makes the channels, or of which the input is divided.
        quarters: ``(channels,)``, int32: the factors are ``2 ** (quarters / 4)``, of ``MOST_QUARTERS`` either way.
        made: Where parameters are divided.
        read: Where parameters are multiplied.
        inputs: By the name of what a layer reads (``Operation.own_input``), which is divided for that layer alone, how
            many axes it has behind that of the channels.

    >>> scaled = Scaled(group="a", quarters=np.array([4, 0], np.int32), made=(Span("a", 0),), read=(Span("b", 1),))
    >>> scaled.applied("a", np.array([[6.0], [5.0]])).tolist(), scaled.applied("b", np.array([[1.5, 2.5]])).tolist()
    ([[3.0], [5.0]], [[3.0, 2.5]])
    """

    group: str
    quarters: Integers
    made: tuple[Span, ...]
    read: tuple[Span, ...]
    inputs: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def factors(self) -> NDArray[np.float64]:
        """``(channels,)``."""
        return np.ldexp(_QUARTERS[self.quarters % 4], self.quarters // 4)

    def applied(self, name: str, values: NDArray[Number]) -> NDArray[Number]:
        """What a parameter becomes, in its own dtype."""
        found = values.astype(np.float64)
        for spans, sign in ((self.made, -1), (self.read, 1)):
            for span in spans:
                if span.name == name:
                    along = np.moveaxis(found, span.axis, -1)
                    along[..., span.of(self.quarters.size)] *= np.repeat(self.factors**sign, span.each)
        return found.astype(values.dtype)


MOST_QUARTERS = 128
"""Factors go from 2 ** -32 to 2 ** 32."""
_QUARTERS = np.array([1.0, 1.189207115002721, 1.4142135623730951, 1.681792830507429])
"""``2 ** (n / 4)``, as no library rounds it otherwise."""


Structure = Folded | Plain | Scaled | Kept | LeftOut | Factored
