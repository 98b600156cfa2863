"""What a score is, and what it may know."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from whit.formats import Floats
from whit.moments import Doubles, Moments

__all__ = ["Known", "Need", "Score", "bounded", "total"]

Need = Literal["gradients", "inputs", "moments", "start"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Known:
    """What is known of a parameter: of what a score does not need, nothing.

    Attributes:
        name: Of the parameter.
        weights: Its values, float32, any shape; a weight's first axis is that of the output channels.
        gradient: Same shape: the loss's derivative, mean over samples.
        fisher: Same shape: the square of a sample's derivative, mean over samples.
        inputs: Same shape: the root mean square of what each weight is multiplied with.
        start: Same shape: its values when the last ``Finetune`` began.
        moments: Of what the layer reads, for the matrix ``(rows, columns)``.
    """

    name: str
    weights: Floats
    gradient: Floats | None = None
    fisher: Floats | None = None
    inputs: Floats | None = None
    start: Floats | None = None
    moments: Moments | None = None


class Score:
    """What each weight is worth; pruning takes the lowest first. Subclass it as a frozen dataclass.

    Attributes:
        needs: What must be known beside the weights; it is collected over training samples, for these scores alone.
        reads: Whether it judges by weight ``"matrices"``, or by the ``"scales"`` of batch normalisations.
        whole: Whether it judges whole units only, not single weights.
    """

    __slots__ = ()

    needs: ClassVar[frozenset[Need]] = frozenset()
    reads: ClassVar[Literal["matrices", "scales"]] = "matrices"
    whole: ClassVar[bool] = False

    @abstractmethod
    def weights(self, known: Known) -> Floats:
        """A number for every weight of a parameter: same shape, float32, never NaN; the lower, the sooner it goes."""

    def units(self, slices: Sequence[Floats]) -> Floats:
        """What whole units are worth, by what ``weights`` says of the weights that go with each: their sum.

        Args:
            slices: One matrix ``(units, weights)`` for each parameter that the group cuts: row ``u`` holds the numbers
                of the weights that go when unit ``u`` goes.

        Returns:
            ``(units,)``, float32, never negative.
        """
        return total(slices)


def total(slices: Sequence[Floats | Doubles]) -> Floats:
    """The sum over everything that goes with a unit."""
    return bounded(np.sum([np.sum(part, axis=1, dtype=np.float64) for part in slices], axis=0))


def bounded(scores: Doubles) -> Floats:
    """Scores as float32, those beyond the largest as that."""
    largest = np.finfo(np.float32).max
    return np.clip(scores, -largest, largest).astype(np.float32)
