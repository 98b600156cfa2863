"""Which points no other beats in everything, and how near points are to a budget."""

from collections.abc import Sequence
from typing import TypeVar

from whit.search.budget import Budget, Spent

__all__ = ["best", "front"]

Point = TypeVar("Point")


def front(points: Sequence[tuple[Point, Spent]], budget: Budget) -> list[tuple[Point, Spent]]:
    """The Pareto front in the drop and what is to be least (bytes where that is the drop), from the smallest on.

    >>> a, b, c = (Spent(drop=d, relative_drop=d, bytes=n, latency_ms=1, macs=1) for d, n in ((0, 9), (1, 5), (2, 7)))
    >>> [name for name, _ in front([("a", a), ("b", b), ("c", c)], Budget(drop=1))]
    ['b', 'a']
    """

    def cost(found: Spent) -> float:
        return found.bytes if budget.minimize == "drop" else budget.least(found)

    ordered = sorted(points, key=lambda one: (cost(one[1]), one[1].drop))
    kept: list[tuple[Point, Spent]] = []
    for point in ordered:
        if not kept or point[1].drop < kept[-1][1].drop:
            kept.append(point)
    return kept


def best(points: Sequence[tuple[Point, Spent]], budget: Budget) -> tuple[Point, Spent]:
    """The point with the least among those that keep to the budget, or else the nearest to it; the first of equals."""
    return min(points, key=lambda one: (budget.distance(one[1]), budget.least(one[1])))
