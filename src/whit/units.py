"""What goes together when weights are masked, beside single weights: patterns and blocks."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from whit.errors import PlanError
from whit.formats import Floats
from whit.scores import Score

__all__ = ["NM", "Block"]


@dataclass(frozen=True, kw_only=True, slots=True)
class NM:
    """Of every ``m`` neighbours along a weight's inputs ``n`` stay, as sparse tensor cores want it (2:4, Mishra 2021).

    What is left over at the end of an axis that ``m`` does not divide stays.

    >>> NM(n=2, m=4).keep(np.array([[4.0, 1.0, 3.0, 2.0, 0.0]], np.float32), 0).tolist()
    [[True, False, True, False, True]]
    """

    n: int
    m: int

    def __post_init__(self) -> None:
        if not 0 < self.n <= self.m:
            raise PlanError(f"NM(n={self.n}, m={self.m}): of m neighbours at least one and at most all stay")

    @property
    def amount(self) -> float:
        """The share that goes."""
        return 1 - self.n / self.m

    def keep(self, scores: Floats, axis: int) -> NDArray[np.bool_]:
        """A mask of the shape of the scores; ``axis`` is that of the output channels, beside which lie the inputs."""
        inputs = 1 if axis == 0 else axis - 1
        last = np.moveaxis(scores, inputs, -1)
        whole = last.shape[-1] // self.m * self.m
        patterns = last[..., :whole].reshape(*last.shape[:-1], -1, self.m)
        order = np.argsort(patterns, axis=-1, kind="stable")
        kept = np.ones(patterns.shape, np.bool_)
        np.put_along_axis(kept, order[..., : self.m - self.n], False, axis=-1)
        mask = np.ones(last.shape, np.bool_)
        mask[..., :whole] = kept.reshape(*last.shape[:-1], whole)
        return np.ascontiguousarray(np.moveaxis(mask, -1, inputs))


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Neighbours in the weight matrix, ``rows`` output channels by ``columns`` of what they read, go together.

    Blocks at the edges are smaller where the sizes do not divide.
    """

    rows: int = 1
    columns: int = 4

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1:
            raise PlanError(f"Block(rows={self.rows}, columns={self.columns}): a block holds at least one weight")

    def worth(self, score: Score, scores: Floats) -> Floats:
        """What every block of a matrix of scores is worth, ``(blocks down, blocks across)``.

        What is masked already has a score of minus infinity, and so has a block of nothing else.
        """
        blocks = self._blocks(scores, -np.inf)
        down, across = blocks.shape[:2]
        flat = blocks.reshape(down * across, -1)
        worth = score.units([np.where(np.isneginf(flat), np.float32(0), flat)])
        return np.where(np.isneginf(flat).all(axis=1), np.float32(-np.inf), worth).reshape(down, across)

    def spread(self, kept: NDArray[np.bool_], shape: tuple[int, int]) -> NDArray[np.bool_]:
        """A mask over a matrix from one over its blocks."""
        return kept.repeat(self.rows, axis=0)[: shape[0]].repeat(self.columns, axis=1)[:, : shape[1]]

    def _blocks(self, matrix: Floats, beyond: float) -> Floats:
        padding = [(0, -size % each) for size, each in zip(matrix.shape, (self.rows, self.columns), strict=True)]
        padded = np.pad(matrix, padding, constant_values=beyond)
        down, across = padded.shape[0] // self.rows, padded.shape[1] // self.columns
        return padded.reshape(down, self.rows, across, self.columns).swapaxes(1, 2)
