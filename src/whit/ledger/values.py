"""Decisions on the values of one tensor, of which the last stands."""

from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from whit.formats import Codes, Floats, Format, Int, Integers

__all__ = ["Assigned", "Masked", "Rounded", "RoundedActivation", "RoundedBias", "Value", "matrix", "unmatrix"]

Number = TypeVar("Number", bound=np.generic)


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

    def zeros(self) -> NDArray[np.bool_]:
        """Where the weight is zero, in its own shape."""
        if self.codebook is not None:
            return self.shaped(self.codebook[self.codes] == 0)
        return self.shaped(self.codes == self.target.spread(self.zero_point, self.codes.shape[1]))

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


Value = Masked | Rounded | RoundedActivation | RoundedBias | Assigned


def matrix(weights: NDArray[Any], axis: int = 0) -> Floats:
    """A weight as a matrix ``(weights.shape[axis], -1)``, one row an output channel, float32."""
    rows = np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1)
    return np.ascontiguousarray(rows, np.float32)


def unmatrix(rows: NDArray[Number], shape: tuple[int, ...], axis: int = 0) -> NDArray[Number]:
    """The weight of this shape of which ``matrix`` makes these rows."""
    rest = shape[:axis] + shape[axis + 1 :]
    return np.ascontiguousarray(np.moveaxis(rows.reshape(shape[axis], *rest), 0, axis))
