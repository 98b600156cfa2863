"""What layers read, and what errors in what they make cost: all that a quantizer may know beside the weights."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Doubles", "Gradients", "Magnitudes", "Moments", "Sensitivity"]

Doubles = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Magnitudes:
    """How large the channels of an activation are.

    Attributes:
        largest: ``(channels,)``, of absolute values.
        mean: Same shape, of absolute values.
    """

    largest: Doubles
    mean: Doubles


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Gradients:
    """Derivatives of the loss by a parameter, in its shape, float32.

    Attributes:
        mean: Over samples.
        square: The mean over samples of their squares, the diagonal of the empirical Fisher information.
    """

    mean: NDArray[np.float32]
    square: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Sensitivity:
    """How the loss of a sample grows with errors in a weight: by the sum over rows ``r`` of ``rows[r] * e_r^T S e_r``.

    ``S`` is the second moment of what the layer reads, which is counted separately (``Moments``). The curvature of the
    loss is that of Gauss and Newton, of which output channels keep the diagonal (Martens and Grosse 2015).

    Attributes:
        rows: ``(rows,)``, half the mean squared derivative of the loss by one output of the channel. For a table of
            embeddings, how often a sample looks the row up.
        columns: ``(columns, columns)`` for a table of embeddings, which reads nothing: ``S`` itself, half the second
            moment of the derivatives by what was looked up.
        places: For every use of the weight, batch after batch, ``(samples * places,)`` float32: 0 where the loss does
            not depend on what is made there, as behind a mask, and 1 elsewhere. (To weigh places by how much it does
            was tried: on ResNet-20 a few undecided images take over, and the divergence more than doubles.)
    """

    rows: Doubles
    columns: Doubles | None = None
    places: tuple[NDArray[np.float32], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Moments:
    """What a layer reads now, what it read in the original network, and what errors in its output cost.

    ``x`` is what one row of the weight matrix is multiplied with: a vector of features, or a patch of an image. The
    rows are dealt to the groups of a grouped convolution in order, as many to each.

    Attributes:
        second: ``(groups, columns, columns)``, the mean over samples of the sum over places of ``x x^T``; about the
            mean of ``x`` where a bias can make up for it.
        cross: Same shape, of ``x_original x^T``.
        mean: ``(groups, columns)``, of ``x`` over samples and places.
        original: Same shape, of ``x_original``.
        sensitivity: ``(rows,)``, see ``Sensitivity.rows``.
    """

    second: Doubles
    cross: Doubles
    mean: Doubles
    original: Doubles
    sensitivity: Doubles

    @classmethod
    def of_table(cls, sensitivity: Sensitivity) -> "Moments":
        """Those of a table of embeddings, which reads what the original reads."""
        assert sensitivity.columns is not None
        second = sensitivity.columns[None]
        nothing = np.zeros(second.shape[:2])
        return cls(second=second, cross=second, mean=nothing, original=nothing, sensitivity=sensitivity.rows)

    @classmethod
    def equal(cls, rows: int, columns: int) -> "Moments":
        """Those of a layer of which nothing is known: whatever it reads and makes counts alike."""
        second = np.eye(columns)[None]
        nothing = np.zeros((1, columns))
        return cls(second=second, cross=second, mean=nothing, original=nothing, sensitivity=np.ones(rows))

    def growth(self, error: Doubles) -> float:
        """What the loss of a sample grows by with an error ``(rows, columns)`` in the weight, see ``Sensitivity``."""
        groups, columns = self.second.shape[:2]
        error = error.reshape(groups, -1, columns)
        quadratic = np.einsum("grc,gcd,grd->gr", error, self.second, error, optimize=True)
        return float(self.sensitivity @ quadratic.reshape(-1))

    def damped(self, damping: float) -> Doubles:
        """Second moments made regular, by a share of the mean of the diagonal; of nothing but zeros, the identity."""
        means = self.second.diagonal(axis1=1, axis2=2).mean(axis=1)
        extra = np.where(means > 0, damping * means, 1.0)
        return self.second + np.eye(self.second.shape[1]) * extra[:, None, None]

    def wanted(self, matrix: NDArray[np.float32], damped: Doubles) -> NDArray[np.float32]:
        """The weights that make of what is read now what the original weights made of what they read."""
        parts = np.split(matrix.astype(np.float64), len(damped))
        found = [
            part @ np.linalg.solve(regular, (cross + regular - second).T).T
            for part, regular, cross, second in zip(parts, damped, self.cross, self.second, strict=True)
        ]
        return np.concatenate(found).astype(np.float32)

    def shift(self, before: NDArray[np.float32], after: NDArray[np.float32]) -> Doubles:
        """What to add to the bias so that the mean output stays: ``before @ original - after @ mean``, ``(rows,)``.

        Args:
            before: The original weight matrix, ``(rows, columns)``.
            after: The one in its place.
        """
        groups, columns = self.mean.shape
        sums = [
            np.einsum("grc,gc->gr", weights.reshape(groups, -1, columns).astype(np.float64), mean)
            for weights, mean in ((before, self.original), (after, self.mean))
        ]
        return (sums[0] - sums[1]).reshape(-1)
