"""What a search comes to: the best network with its proof, and the front that it was chosen from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from whit.plan import Plan
from whit.result import Result
from whit.search.budget import Budget, Spent

__all__ = ["Found", "Point"]

Model = TypeVar("Model")


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A plan on the front, as it was measured on the validation samples.

    Attributes:
        plan: What was done.
        spent: What its network costs.
        trained: Whether it was trained, and so may have forgotten validation samples that the original was trained on.
        trial: Names it in the record.
    """

    plan: Plan
    spent: Spent
    trained: bool
    trial: str


@dataclass(frozen=True, kw_only=True)
class Found(Generic[Model]):
    """What a search came to.

    Attributes:
        best: The best point's network, measured on the test samples, which were touched for this alone.
        chosen: The best point: the least of those that keep to the budget, or the nearest to it.
        front: The points that no other beats in both the drop and what is to be least, from the smallest on.
        budget: What was asked for.
        missed: The limits that ``best`` does not keep to on the test samples, and by how much.
        missed_choosing: The same of ``chosen`` on the validation samples; where it is not empty, no plan was found
            that keeps to the budget.
        trials: How many plans were tried.
        failures: What came of those that failed, without repetitions.
        seconds: How long the search took, in all its sessions.
    """

    best: Result[Model]
    chosen: Point
    front: tuple[Point, ...]
    budget: Budget
    missed: Mapping[str, float]
    missed_choosing: Mapping[str, float]
    trials: int
    failures: tuple[str, ...]
    seconds: float
