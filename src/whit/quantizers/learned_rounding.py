"""Learned rounding: up or down, whichever lets a block make what it made."""

from dataclasses import dataclass
from math import isfinite
from typing import ClassVar

from whit.errors import PlanError
from whit.formats import Codes, Floats, Format
from whit.moments import Moments
from whit.quantizers.base import Quantizer, check_fitting
from whit.quantizers.nearest import Nearest

__all__ = ["LearnedRounding"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnedRounding(Quantizer):
    """Round every weight up or down as suits the outputs of its block, learned from samples without labels.

    AdaRound (Nagel et al. 2020) in the blocks of BRECQ (Li et al. 2021): all layers between two ends of a shortcut
    learn together, so that with rounded inputs they make what the original makes of its own, by the mean squared
    difference. A weight lies between two codes, at a rectified sigmoid of what is learned, and is driven to one of them
    in the end. Biases learn too, and so make up for what rounding does to means. A block that came no closer keeps the
    codes of ``start``; and so do tables of embeddings, of which no sample looks up most rows. Formats are integers with
    a zero and float32 scales; of any other a plan says so.

    Attributes:
        start: Chooses the grids, and one of the two codes between which a weight lies; the other is that on the side
            where the weight was.
        iterations: Steps for each block.
        learning_rate: Of Adam.
        batch_size: Samples a step, of those that ``Quantize(samples=...)`` allows.
        seed: Of their order.

    >>> LearnedRounding(iterations=1000).start
    Nearest(clip='mse')
    """

    start: Quantizer = Nearest(clip="mse")
    iterations: int = 300
    learning_rate: float = 0.1
    batch_size: int = 32
    seed: int = 0
    learns: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("iterations", "batch_size"):
            if getattr(self, name) < 1:
                raise PlanError(f"LearnedRounding({name}={getattr(self, name)}): it is at least 1")
        if not (self.learning_rate > 0 and isfinite(self.learning_rate)):
            raise PlanError(f"LearnedRounding(learning_rate={self.learning_rate}): it is a positive number")
        if self.start.learns:
            raise PlanError(
                f"LearnedRounding(start={self.start}): another method begins; take start=Nearest(clip='mse')"
            )

    @property
    def observes(self) -> bool:
        """Whether the method that it begins with does."""
        return self.start.observes

    def check(self, target: Format) -> None:
        """Raise ``PlanError`` unless the format is integers with a zero and float32 scales."""
        check_fitting(self, target)
        self.start.check(target)

    def quantize(self, matrix: Floats, target: Format, moments: Moments | None = None) -> Codes:
        """The codes to learn from, for a ``(rows, columns)`` float32 matrix."""
        return self.start.quantize(matrix, target, moments) if self.observes else self.start.quantize(matrix, target)
