"""Decisions as data: what every step chose, and the order in which to replay it.

The ledger, replayed on a fresh instance of the user's own class, rebuilds the compressed network. Structural decisions
(``Folded``, ``Scaled``, ``Kept``, ``LeftOut``, ``Factored``) are replayed in the order in which they were made.
Decisions on the values of one tensor (``Masked``, ``Rounded``, ``RoundedActivation``, ``RoundedBias``, ``Assigned``)
stand once a tensor, as decided last, in the shapes that the structure leaves; they are replayed after it. A mask only
ever grows, what was masked stays masked, unless weights are given back on purpose (``Ledger.unmask``).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from whit.formats import Codes, Floats, Format, Int, Integers

__all__ = [
    "MOST_QUARTERS",
    "Assigned",
    "Axis",
    "Decision",
    "Factored",
    "Folded",
    "Kept",
    "Ledger",
    "LeftOut",
    "Masked",
    "Rounded",
    "RoundedActivation",
    "RoundedBias",
    "Scaled",
    "Span",
    "matrix",
    "unmatrix",
]


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Masked:
    """Single weights are zero and stay zero where ``mask`` is False; ``mask.shape == weights.shape``."""

    parameter: str
    mask: NDArray[np.bool_]

    def cut(self, axis: int, keep: NDArray[np.int64]) -> "Masked":
        """The decision after indices of an axis were cut."""
        return replace(self, mask=self.mask.take(keep, axis))


@dataclass(frozen=True, kw_only=True, slots=True)
class Rounded:
    """A weight holds codes of a number format, as a matrix of one row an output channel.

    ``weights == (codes - zero_point) * scale`` for integers, else ``levels[codes] * scale``, in float32.

    Attributes:
        parameter: Name of the weight.
        target: The number format.
        shape: Of the weight; the matrix has ``shape[axis]`` rows.
        axis: The output channels' axis, 0 or more.
        codes: ``(rows, columns)``, int32.
        scale: ``(1 or rows, groups)``, float32.
        zero_point: Same shape as ``scale``, int32.
        codebook: ``(levels,)``, float32, rising; only with a ``Codebook``.
    """

    parameter: str
    target: Format
    shape: tuple[int, ...]
    codes: Integers
    scale: Floats
    zero_point: Integers
    axis: int = 0
    codebook: Floats | None = None

    @classmethod
    def of(cls, parameter: str, target: Format, shape: tuple[int, ...], codes: Codes, axis: int = 0) -> "Rounded":
        """The decision that a quantizer's codes make."""
        return cls(parameter=parameter, target=target, shape=shape, axis=axis, **codes._asdict())

    def values(self) -> Floats:
        """The weights that the codes stand for, in the weight's own shape."""
        return self.shaped(self.target.dequantize(self.codes, self.scale, self.zero_point, self.codebook))

    def shaped(self, matrix: NDArray[Number]) -> NDArray[Number]:
        """A matrix of one row an output channel in the weight's own shape."""
        return unmatrix(matrix, self.shape, self.axis)


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundedActivation:
    """An activation is rounded to a grid, one scale for the tensor.

    Attributes:
        tensor: Its name in the graph; or an ``Operation.own_input``, which is rounded for that operation alone.
        target: The number format.
        scale: 0-d, float32.
        zero_point: 0-d, int32.
    """

    tensor: str
    target: Int
    scale: Floats
    zero_point: Integers


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundedBias:
    """A bias is a multiple of the scale in which integer kernels add it: ``bias == codes * scale``.

    Attributes:
        parameter: Name of the bias.
        weight: Name of the layer's weight, which is rounded to a scale a tensor or a channel.
        tensor: The rounded activation that the layer reads.
        codes: ``(rows,)``, int32.
        scale: The activation's scale times the weight's, ``(1 or rows,)``, float32.
    """

    parameter: str
    weight: str
    tensor: str
    codes: Integers
    scale: Floats

    @classmethod
    def of(cls, parameter: str, bias: Floats, weight: Rounded, activation: RoundedActivation) -> "RoundedBias":
        """The decision that rounds a bias to nearest."""
        scale = cls.scale_of(weight, activation)
        codes = np.rint(bias.astype(np.float64) / scale.astype(np.float64))
        codes = np.clip(codes, np.iinfo(np.int32).min, np.iinfo(np.int32).max).astype(np.int32)
        names = (weight.parameter, activation.tensor)
        return cls(parameter=parameter, weight=names[0], tensor=names[1], codes=codes, scale=scale)

    @staticmethod
    def scale_of(weight: Rounded, activation: RoundedActivation) -> Floats:
        """The scale of products of the two; where that is no float32, the nearest positive one stands for it."""
        product = np.float64(activation.scale) * weight.scale[:, 0].astype(np.float64)
        limits = np.finfo(np.float32)
        return np.clip(product, limits.tiny, limits.max).astype(np.float32)

    def values(self) -> Floats:
        """The bias that the codes stand for."""
        return self.codes.astype(np.float32) * self.scale


@dataclass(frozen=True, kw_only=True, slots=True)
class Assigned:
    """A parameter or buffer has these values, in its own shape and dtype."""

    parameter: str
    values: NDArray[np.generic]

    def cut(self, axis: int, keep: NDArray[np.int64]) -> "Assigned":
        """The decision after indices of an axis were cut."""
        return replace(self, values=self.values.take(keep, axis))


_Value = Masked | Rounded | RoundedActivation | RoundedBias | Assigned
Structure = Folded | Scaled | Kept | LeftOut | Factored
Decision = Structure | _Value


@dataclass(frozen=True, slots=True)
class Ledger:
    """Every decision that still stands, in replay order.

    >>> ledger = Ledger().record(Masked(parameter="w", mask=np.array([True, False, True])))
    >>> kept = Kept(group="w", axes={Axis("w", 0): np.array([1, 2])})
    >>> [type(decision).__name__ for decision in ledger.record(kept)]
    ['Kept', 'Masked']
    >>> ledger.record(kept).masks()["w"].mask.tolist()
    [False, True]
    """

    structure: tuple[Structure, ...] = ()
    values: tuple[_Value, ...] = ()

    def __iter__(self) -> Iterator[Decision]:
        yield from self.structure
        yield from self.values

    def record(self, *decisions: Decision) -> "Ledger":
        """The ledger with more decisions; what they replace is gone, what they cut is cut."""
        structure = list(self.structure)
        values = {_place(decision): decision for decision in self.values}
        for decision in decisions:
            if isinstance(decision, Folded | Scaled):
                structure.append(decision)
            elif isinstance(decision, LeftOut | Factored):
                structure.append(decision)
                values = {place: old for place, old in values.items() if not _gone(old, decision)}
            elif isinstance(decision, Kept):
                structure.append(decision)
                for (parameter, axis), keep in decision.axes.items():
                    for place, old in list(values.items()):
                        if isinstance(old, Masked | Assigned) and old.parameter == parameter:
                            values[place] = old.cut(axis, keep)
                        elif place == (Rounded, parameter):
                            del values[place]  # the step that cuts rounds again
            else:
                values[_place(decision)] = _holding(decision, values.get(_place(decision)))
        order = (Masked, Rounded, RoundedActivation, RoundedBias, Assigned)
        ordered = sorted(values.values(), key=lambda decision: order.index(type(decision)))
        return Ledger(structure=tuple(structure), values=tuple(ordered))

    def unmask(self, masks: Sequence[Masked]) -> "Ledger":
        """The ledger with these masks in place of its own, which is how weights come back."""
        other = {decision.parameter: decision for decision in masks}
        values = (other.get(one.parameter, one) if isinstance(one, Masked) else one for one in self.values)
        return replace(self, values=tuple(values))

    def masks(self) -> dict[str, Masked]:
        """Masks by parameter."""
        return {decision.parameter: decision for decision in self.values if isinstance(decision, Masked)}

    def rounded(self) -> dict[str, Rounded]:
        """Codes by parameter."""
        return {decision.parameter: decision for decision in self.values if isinstance(decision, Rounded)}

    def activations(self) -> dict[str, RoundedActivation]:
        """Rounded activations by tensor."""
        return {decision.tensor: decision for decision in self.values if isinstance(decision, RoundedActivation)}

    def biases(self) -> dict[str, RoundedBias]:
        """Rounded biases by parameter."""
        return {decision.parameter: decision for decision in self.values if isinstance(decision, RoundedBias)}

    def given(self) -> set[str]:
        """The parameters and buffers whose values the ledger holds."""
        return {*self.rounded(), *self.biases(), *self.assigned()}

    def assigned(self) -> dict[str, NDArray[np.generic]]:
        """Plain values by parameter."""
        return {decision.parameter: decision.values for decision in self.values if isinstance(decision, Assigned)}


def matrix(weights: NDArray[Any], axis: int = 0) -> Floats:
    """A weight as a matrix ``(weights.shape[axis], -1)``, one row an output channel, float32."""
    rows = np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1)
    return np.ascontiguousarray(rows, np.float32)


def unmatrix(rows: NDArray[Number], shape: tuple[int, ...], axis: int = 0) -> NDArray[Number]:
    """The weight of this shape of which ``matrix`` makes these rows."""
    rest = shape[:axis] + shape[axis + 1 :]
    return np.ascontiguousarray(np.moveaxis(rows.reshape(shape[axis], *rest), 0, axis))


def _holding(decision: _Value, old: _Value | None) -> _Value:
    """A decision that replaces another; what was masked stays masked."""
    if isinstance(decision, Masked) and isinstance(old, Masked):
        return replace(decision, mask=decision.mask & old.mask)
    return decision


def _gone(decision: _Value, structure: LeftOut | Factored) -> bool:
    """Whether a decision is about a parameter that is gone."""
    return not isinstance(decision, RoundedActivation) and structure.covers(decision.parameter)


def _place(decision: _Value) -> tuple[type, str]:
    """What a decision on values is about; a later decision on the same place replaces it."""
    name = decision.tensor if isinstance(decision, RoundedActivation) else decision.parameter
    return type(decision), name
