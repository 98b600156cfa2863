"""Masked weights come back."""

from dataclasses import dataclass

from whit.errors import PlanError
from whit.scores import Gradient, Score

__all__ = ["Regrow"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Regrow:
    """Give back some of the weights that are masked: they are zero still, and trained again by the next ``Finetune``.

    Attributes:
        amount: How many, as a share of all weights of a layer; 1 for all that are masked.
        score: What each is worth; those worth most come back.
        samples: How many training samples the score looks at, at most.
    """

    amount: float
    score: Score = Gradient()
    samples: int = 512

    def __post_init__(self) -> None:
        if not 0 <= self.amount <= 1:
            raise PlanError(f"Regrow(amount={self.amount}): the share to give back lies in [0, 1]")
        if self.score.whole:
            raise PlanError(f"Regrow(score={self.score}): it judges whole channels; take score=Gradient()")
        if self.samples < 1:
            raise PlanError(f"Regrow(samples={self.samples}): look at one sample or more")
