"""Weights as products of smaller ones: the best that ranks allow, by what layers read and what errors in outputs cost.

Every form goes the same way. What a layer reads is turned and scaled so that its parts are uncorrelated; of these the
first factor keeps the ones that matter most, which is the singular value decomposition of the weight in that measure
(data-aware low rank: Chen et al. 2021; Yuan et al. 2023; Wang et al. 2024). The last factor is then fitted to what the
first one lets through, by least squares over all that the layer reads. With moments that say nothing
(``Moments.equal``) it is the plain decomposition of the weight.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from math import prod
from typing import ClassVar, NamedTuple

import numpy as np

from whit.data import Array
from whit.moments import Doubles, Moments

__all__ = ["FORMS", "Channel", "Form", "Matrix", "Ranks", "Spatial"]

Ranks = tuple[int, ...]
Shape = tuple[int, ...]

_DAMPING = 1e-3
"""Added to second moments, as a share of the mean of their diagonal."""
_LEAST = 1e-3
"""The least that an output channel counts, as a share of the mean."""


class _Mode(NamedTuple):
    """One way to see a weight as a matrix: what it is worth to keep so many of its parts.

    Attributes:
        energies: ``(parts,)``, falling: what the loss grows by without each.
        first: ``(parts, columns)``, rows that read the parts, the most important first.
    """

    energies: Doubles
    first: Doubles


class Form(ABC):
    """A form of product. A weight has the shape ``(outputs, inputs, *kernel)``, and so has every factor.

    Attributes:
        name: As in files.
        ranks: How many ranks there are to choose.
    """

    name: ClassVar[str]
    ranks: ClassVar[int]

    @abstractmethod
    def fits(self, shape: Shape) -> bool:
        """Whether weights of a shape have such factors."""

    @abstractmethod
    def shapes(self, shape: Shape, ranks: Ranks) -> tuple[Shape, ...]:
        """The shapes of the factors of a weight, in the order in which they run."""

    @abstractmethod
    def moving(self, axes: int) -> tuple[frozenset[int], ...]:
        """By factor, the axes of the kernel along which it strides and pads, of so many."""

    @abstractmethod
    def most(self, shape: Shape) -> Ranks:
        """The ranks at which nothing is lost."""

    @abstractmethod
    def modes(self, weight: Array, moments: Moments) -> tuple[_Mode, ...]:
        """The parts of a weight, a mode for every rank."""

    @abstractmethod
    def factors(self, weight: Array, moments: Moments, ranks: Ranks) -> tuple[Doubles, ...]:
        """The factors of a weight, float64."""

    @abstractmethod
    def product(self, factors: Sequence[Array]) -> Doubles:
        """The weight that factors stand for, as a matrix ``(outputs, -1)``."""

    def energies(self, weight: Array, moments: Moments) -> tuple[Doubles, ...]:
        """For every rank what the loss grows by without each part, falling; in all as much as without the weight."""
        whole = moments.growth(_rows(weight))
        return tuple(mode.energies * (whole / max(mode.energies.sum(), 1e-300)) for mode in self.modes(weight, moments))


class Matrix(Form):
    """Two layers of 1x1, ``W ~= U V``: of linear layers and convolutions with kernels of a single place.

    >>> weight = np.outer([1.0, 2.0, 3.0], [1.0, 1.0, 2.0, 4.0]).astype(np.float32)
    >>> first, last = Matrix().factors(weight, Moments.equal(3, 4), (1,))
    >>> first.shape, last.shape, bool(np.allclose(last @ first, weight))
    ((1, 4), (3, 1), True)
    """

    name = "matrix"
    ranks = 1

    def fits(self, shape: Shape) -> bool:
        """With a kernel of a single place, or none."""
        return prod(shape[2:]) == 1

    def shapes(self, shape: Shape, ranks: Ranks) -> tuple[Shape, ...]:
        """``(rank, inputs)`` and ``(outputs, rank)``."""
        return (ranks[0], shape[1], *shape[2:]), (shape[0], ranks[0], *shape[2:])

    def moving(self, axes: int) -> tuple[frozenset[int], ...]:
        """The first strides, so that there is less to do."""
        return frozenset(range(axes)), frozenset()

    def most(self, shape: Shape) -> Ranks:
        """The smaller side."""
        return (min(shape[:2]),)

    def modes(self, weight: Array, moments: Moments) -> tuple[_Mode, ...]:
        """The weight is the matrix."""
        return (_mode(_weighed(weight, moments).T, _regular(moments)),)

    def factors(self, weight: Array, moments: Moments, ranks: Ranks) -> tuple[Doubles, ...]:
        """The best of that rank."""
        first = self.modes(weight, moments)[0].first[: ranks[0]]
        last = _fitted(_rows(weight), _regular(moments), first)
        return _shaped(_balanced(first, last), self.shapes(weight.shape, ranks))

    def product(self, factors: Sequence[Array]) -> Doubles:
        """``U V``."""
        first, last = map(_rows, factors)
        return last @ first


class Spatial(Form):
    """A column of the kernel, then a row of it: ``k x k`` as ``k x 1`` and ``1 x k`` (Jaderberg et al. 2014)."""

    name = "spatial"
    ranks = 1

    def fits(self, shape: Shape) -> bool:
        """With a kernel of two axes."""
        return len(shape) == 4

    def shapes(self, shape: Shape, ranks: Ranks) -> tuple[Shape, ...]:
        """``(rank, inputs, k, 1)`` and ``(outputs, rank, 1, k)``."""
        return (ranks[0], shape[1], shape[2], 1), (shape[0], ranks[0], 1, shape[3])

    def moving(self, axes: int) -> tuple[frozenset[int], ...]:
        """Each along its own axis."""
        return frozenset({0}), frozenset({1})

    def most(self, shape: Shape) -> Ranks:
        """The smaller side of what is decomposed: inputs by columns, outputs by rows."""
        return (min(shape[1] * shape[2], shape[0] * shape[3]),)

    def modes(self, weight: Array, moments: Moments) -> tuple[_Mode, ...]:
        """A part reads a column; that columns beside each other are alike only the last factor heeds."""
        outputs, inputs, height, width = weight.shape
        by_column = _weighed(weight, moments).reshape(weight.shape).transpose(1, 2, 0, 3)
        second = _regular(moments).reshape((inputs, height, width) * 2)
        size = inputs * height
        return (_mode(by_column.reshape(size, outputs * width), np.einsum("ahwbgw->ahbg", second).reshape(size, size)),)

    def factors(self, weight: Array, moments: Moments, ranks: Ranks) -> tuple[Doubles, ...]:
        """The last is the best beside the first."""
        first = self.modes(weight, moments)[0].first[: ranks[0]]
        last = _fitted(_rows(weight), _regular(moments), _at_each(first, weight.shape[3]))
        return _shaped(_balanced(first, last), self.shapes(weight.shape, ranks))

    def product(self, factors: Sequence[Array]) -> Doubles:
        """Every column with every row."""
        return _rows(np.einsum("riha,orbw->oihw", *factors))


class Channel(Form):
    """Fewer channels, the kernel between them, more channels: Tucker's decomposition of both (Kim et al. 2016)."""

    name = "channel"
    ranks = 2

    def fits(self, shape: Shape) -> bool:
        """With a kernel."""
        return len(shape) > 2

    def shapes(self, shape: Shape, ranks: Ranks) -> tuple[Shape, ...]:
        """``(first, inputs, 1, 1)``, ``(second, first, k, k)`` and ``(outputs, second, 1, 1)``."""
        ones = (1,) * len(shape[2:])
        return (ranks[0], shape[1], *ones), (ranks[1], ranks[0], *shape[2:]), (shape[0], ranks[1], *ones)

    def moving(self, axes: int) -> tuple[frozenset[int], ...]:
        """The kernel does."""
        return frozenset(), frozenset(range(axes)), frozenset()

    def most(self, shape: Shape) -> Ranks:
        """Those of the channels, unless the other side has fewer in all."""
        kernel = prod(shape[2:])
        return min(shape[1], shape[0] * kernel), min(shape[0], shape[1] * kernel)

    def modes(self, weight: Array, moments: Moments) -> tuple[_Mode, ...]:
        """Parts of what is read, and parts of what is made."""
        rows = _weighed(weight, moments)
        energies, vectors = np.linalg.eigh(rows @ _regular(moments) @ rows.T)
        made = _Mode(np.maximum(energies[::-1], 0.0), vectors[:, ::-1].T)
        return self._read(rows, weight.shape[1], moments), made

    def factors(self, weight: Array, moments: Moments, ranks: Ranks) -> tuple[Doubles, ...]:
        """What is read is chosen for what is made, and the core is the best between the two."""
        turned = self.modes(weight, moments)[1].first[: ranks[1]]
        rows = turned @ _weighed(weight, moments)
        first = self._read(rows, weight.shape[1], moments).first[: ranks[0]]
        core = _fitted(rows, _regular(moments), _at_each(first, prod(weight.shape[2:])))
        last = turned.T / _roots(moments)[:, None]
        first, core = _balanced(first, core)
        core, last = _balanced(core, last)
        return _shaped((first, core, last), self.shapes(weight.shape, ranks))

    def _read(self, rows: Doubles, inputs: int, moments: Moments) -> _Mode:
        """The parts of what rows read, at all places of the kernel alike."""
        kernel = rows.shape[1] // inputs
        by_input = rows.reshape(len(rows), inputs, kernel).transpose(1, 0, 2).reshape(inputs, len(rows) * kernel)
        second = _regular(moments).reshape((inputs, kernel) * 2)
        return _mode(by_input, np.einsum("akbk->ab", second), idle=True)

    def product(self, factors: Sequence[Array]) -> Doubles:
        """The kernel between all channels."""
        first, core, last = map(_rows, factors)
        return _rows(np.einsum("ri,srk,os->oik", first, core.reshape(len(core), len(first), -1), last))


FORMS: Mapping[str, Form] = {form.name: form for form in (Matrix(), Spatial(), Channel())}
"""By name."""


def _rows(weight: Array) -> Doubles:
    return weight.reshape(len(weight), -1).astype(np.float64)


def _roots(moments: Moments) -> Doubles:
    """Square roots of what output channels count, all of them positive."""
    counts = moments.sensitivity
    mean = float(counts.mean())
    return np.sqrt(np.maximum(counts, _LEAST * mean)) if mean > 0 else np.ones(len(counts))


def _weighed(weight: Array, moments: Moments) -> Doubles:
    return _rows(weight) * _roots(moments)[:, None]


def _regular(moments: Moments) -> Doubles:
    """Second moments, damped as little as makes them positive: rounding errors are large where means are."""
    damping = _DAMPING
    while True:
        damped = moments.damped(damping)[0]
        try:
            np.linalg.cholesky(damped)
        except np.linalg.LinAlgError:
            damping *= 10
        else:
            return damped


def _mode(matrix: Doubles, second: Doubles, *, idle: bool = False) -> _Mode:
    """The parts of ``x^T matrix`` where ``second`` is the second moment of ``x``, the ``idle`` ones too if asked."""
    root = np.linalg.cholesky(second)
    vectors, values, _ = np.linalg.svd(root.T @ matrix, full_matrices=idle)
    energies = np.zeros(vectors.shape[1])
    energies[: len(values)] = values**2
    return _Mode(energies, np.linalg.solve(root.T, vectors).T.astype(np.float64))


def _at_each(first: Doubles, places: int) -> Doubles:
    """What reads the same parts at every place of a kernel."""
    return np.kron(first, np.eye(places)).astype(np.float64)


def _fitted(rows: Doubles, second: Doubles, first: Doubles) -> Doubles:
    """What makes of ``first @ x`` the nearest to ``rows @ x`` where ``second`` is the second moment of ``x``."""
    seen = first @ second
    return np.linalg.solve(seen @ first.T, seen @ rows.T).T.astype(np.float64)


def _balanced(first: Doubles, last: Doubles) -> tuple[Doubles, Doubles]:
    """Two factors with the same product, of which every part is as large in the one as in the other."""
    parts = last.reshape(len(last), len(first), -1)
    sizes = np.sqrt((first**2).sum(axis=1)), np.sqrt((parts**2).sum(axis=(0, 2)))
    both = (sizes[0] > 0) & (sizes[1] > 0)
    scale = np.sqrt(np.where(both, sizes[1], 1.0) / np.where(both, sizes[0], 1.0))
    return first * scale[:, None], (parts / scale[:, None]).reshape(last.shape)


def _shaped(factors: tuple[Doubles, ...], shapes: tuple[Shape, ...]) -> tuple[Doubles, ...]:
    return tuple(factor.reshape(shape) for factor, shape in zip(factors, shapes, strict=True))
