"""One amount or budget spread over layers: what goes and what each may take, given what everything is worth."""

from collections.abc import Callable, Mapping, Sequence
from math import ceil, prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from whit import _core
from whit.errors import PlanError
from whit.formats import Floats

__all__ = ["Option", "choose", "erk", "keep_one_", "keep_rows", "keep_units", "keep_weights", "least"]

_MOST_PARTS = 1 << 17
"""Partial choices that are followed at once."""


class Option(NamedTuple):
    """One of the ways to store a layer.

    Attributes:
        cost: What it takes of the budget, 0 or more.
        growth: What the loss grows by.
    """

    cost: int
    growth: float


def keep_weights(
    scores: Mapping[str, Floats], amounts: Mapping[str, float], *, together: bool
) -> dict[str, NDArray[np.bool_]]:
    """Masks that keep the weights with the highest scores.

    Args:
        scores: By parameter, any shape, float32, no NaN.
        amounts: Share to remove, by parameter.
        together: Rank all parameters with the same amount as one.

    Returns:
        By parameter, in its shape; False where a weight goes. Of equal scores the first goes.

    >>> keep_weights({"w": np.array([3.0, 1.0, 2.0, 0.0], np.float32)}, {"w": 0.5}, together=False)["w"].tolist()
    [True, False, True, False]
    """
    masks: dict[str, NDArray[np.bool_]] = {}
    for names in _pools(amounts, together):
        flat = np.concatenate([np.asarray(scores[name], np.float32).reshape(-1) for name in names])
        mask = _core.prune(flat, round(amounts[names[0]] * flat.size))
        parts = np.split(mask, np.cumsum([scores[name].size for name in names])[:-1])
        masks |= {name: part.reshape(scores[name].shape) for name, part in zip(names, parts, strict=True)}
    return masks


def keep_one_(masks: Mapping[str, NDArray[np.bool_]], scores: Mapping[str, Floats]) -> list[str]:
    """In each mask that keeps nothing, keep what has the highest score; the names of these.

    >>> masks = {"a": np.array([False, False]), "b": np.array([True, False])}
    >>> keep_one_(masks, {"a": np.float32([1, 2]), "b": np.float32([4, 3])}), masks["a"].tolist()
    (['a'], [False, True])
    """
    emptied = [name for name, mask in masks.items() if mask.size and not mask.any()]
    for name in emptied:
        masks[name].flat[int(scores[name].argmax())] = True
    return emptied


def keep_rows(
    scores: Mapping[str, Floats], amounts: Mapping[str, float], axes: Mapping[str, int]
) -> dict[str, NDArray[np.bool_]]:
    """Masks that keep the weights with the highest scores of each output channel, which ``axes`` tells the axis of.

    >>> scores = np.array([[3.0, 1.0], [0.2, 0.4]], np.float32)
    >>> keep_rows({"w": scores}, {"w": 0.5}, {"w": 0})["w"].tolist()
    [[True, False], [False, True]]
    """
    masks: dict[str, NDArray[np.bool_]] = {}
    for name, score in scores.items():
        first = np.moveaxis(np.asarray(score, np.float32), axes[name], 0)
        rows = first.reshape(len(first), -1)
        found = np.stack([_core.prune(row, round(amounts[name] * row.size)) for row in rows])
        masks[name] = np.ascontiguousarray(np.moveaxis(found.reshape(first.shape), 0, axes[name]))
    return masks


def erk(shapes: Mapping[str, tuple[int, ...]], amounts: Mapping[str, float]) -> dict[str, float]:
    """What to remove of each layer, so that it keeps a share in proportion to ``sum(shape) / prod(shape)``.

    The Erdos-Renyi kernel of Evci et al. (2020): of all layers with the same amount, that share goes over all; layers
    that would keep more than everything keep everything.

    >>> found = erk({"small": (4, 4), "large": (40, 40)}, {"small": 0.5, "large": 0.5})
    >>> {name: round(amount, 3) for name, amount in found.items()}
    {'small': 0.0, 'large': 0.505}
    """
    found: dict[str, float] = {}
    for names in _pools(amounts, together=True):
        sizes = {name: prod(shapes[name]) for name in names}
        kept = (1 - amounts[names[0]]) * sum(sizes.values())
        free, dense = list(names), 0
        while free:
            share = (kept - dense) / sum(sum(shapes[name]) for name in free)
            full = [name for name in free if share * sum(shapes[name]) >= sizes[name]]
            found |= {name: max(0.0, 1 - share * sum(shapes[name]) / sizes[name]) for name in free}
            if not full:
                break
            dense += sum(sizes[name] for name in full)
            free = [name for name in free if name not in full]
    return found


def keep_units(
    scores: Mapping[str, Floats], amounts: Mapping[str, float], multiples: Mapping[str, int], *, together: bool
) -> tuple[dict[str, NDArray[np.int64]], list[str]]:
    """Which units of every group stay: the highest scores, at least one, a multiple as asked.

    Args:
        scores: ``(units,)`` by group, float32.
        amounts: Share to remove, by group.
        multiples: By group, the number that is kept is rounded up to a multiple of this.
        together: Rank all groups with the same amount as one. Scores are divided by their group's mean first, so that
            a group of small weights is not emptied for the scale of its weights.

    Returns:
        Rising indices of the units that stay, by group, and the groups of which none would have.

    >>> keep_units({"a": np.array([3.0, 1.0, 2.0], np.float32)}, {"a": 0.5}, {"a": 1}, together=False)
    ({'a': array([0, 2])}, [])
    """
    kept: dict[str, NDArray[np.int64]] = {}
    emptied: list[str] = []
    for names in _pools(amounts, together):
        counts = {name: scores[name].size - int(amounts[name] * scores[name].size + 1e-9) for name in names}
        if together:
            relative = {
                name: scores[name] / max(float(scores[name].mean(dtype=np.float64)), np.finfo(np.float32).tiny)
                for name in names
            }
            masks = keep_weights(relative, dict.fromkeys(names, amounts[names[0]]), together=True)
            counts = {name: int(mask.sum()) for name, mask in masks.items()}
        emptied += [name for name in names if counts[name] < 1]
        for name in names:
            size = scores[name].size
            count = min(size, multiples[name] * ceil(max(counts[name], 1) / multiples[name]))
            mask = _core.prune(np.asarray(scores[name], np.float32), size - count)
            kept[name] = np.flatnonzero(mask)
    return kept, emptied


def least(fits: Callable[[float], bool], tries: int, low: float = 0.0) -> float:
    """The least share from ``low`` to 1 that fits, but for ``2 ** -tries`` of the way; 1 does, and so do larger ones.

    >>> least(lambda share: share >= 0.3, tries=2)
    0.5
    """
    if fits(low):
        return low
    high = 1.0
    for _ in range(tries):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def _pools(amounts: Mapping[str, float], together: bool) -> list[list[str]]:
    """Names that are ranked as one."""
    if not together:
        return [[name] for name in amounts]
    return [[name for name in amounts if amounts[name] == amount] for amount in dict.fromkeys(amounts.values())]


def choose(options: Sequence[Sequence[Option]], budget: int) -> list[int]:
    """For every layer the option with which all together grow the loss least, within the budget.

    A knapsack of which each layer takes one option (Sinha and Zoltners 1979). Lagrange's relaxation gives a price of
    the budget, at which layers choose by themselves, and with it a bound on what any completion of a partial choice can
    reach; partial choices that cannot beat the best one known, or cost as much as another and are worse, are dropped.
    So the choice is the best there is, unless more than 131,072 partial choices are left; then those with the lowest
    bounds are followed.

    Args:
        options: Of every layer one or more.
        budget: Most that they may cost together.

    Returns:
        A place in each layer's options. Of equally good choices the one of least cost.

    Raises:
        PlanError: The cheapest options cost more than the budget.

    >>> halves = [Option(cost=4, growth=0.5), Option(cost=8, growth=0.0)]
    >>> choose([halves, [Option(cost=40, growth=0.9), Option(cost=80, growth=0.0)]], budget=88)
    [1, 1]
    >>> choose([halves, [Option(cost=40, growth=0.9), Option(cost=80, growth=0.0)]], budget=84)
    [0, 1]
    """
    least = sum(min(option.cost for option in layer) for layer in options)
    if least > budget:
        raise PlanError(f"a budget of {budget:,} is less than the {least:,} that the cheapest choice takes")
    return _Knapsack(options, budget).solve()


class _Knapsack:
    def __init__(self, options: Sequence[Sequence[Option]], budget: int) -> None:
        self.costs = [np.array([option.cost for option in layer], np.int64) for layer in options]
        self.growths = [np.array([option.growth for option in layer], np.float64) for layer in options]
        self.budget = budget
        self.price = self._price()

    def _at(self, price: float) -> list[int]:
        """What layers choose by themselves at a price; of equally good options the cheapest."""
        return [
            int(np.lexsort((cost, growth + price * cost))[0])
            for cost, growth in zip(self.costs, self.growths, strict=True)
        ]

    def _cost(self, choice: Sequence[int]) -> int:
        return sum(int(cost[place]) for cost, place in zip(self.costs, choice, strict=True))

    def _price(self) -> float:
        """The lowest price, to float64's precision, at which the choice keeps to the budget."""
        if self._cost(self._at(0.0)) <= self.budget:
            return 0.0
        low, high = 0.0, 1.0
        while self._cost(self._at(high)) > self.budget:
            low, high = high, 2 * high
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (low, middle) if self._cost(self._at(middle)) <= self.budget else (middle, high)
        return high

    def _filled(self) -> list[int]:
        """The choice at the price, with what is left of the budget spent where it gains most for its cost."""
        choice = self._at(self.price)
        while True:
            left = self.budget - self._cost(choice)
            best: tuple[float, int, int] | None = None
            for layer, now in enumerate(choice):
                more = self.costs[layer] - self.costs[layer][now]
                gain = self.growths[layer][now] - self.growths[layer]
                for place in np.flatnonzero((more <= left) & (gain > 0)):
                    found = (float(gain[place]) / max(int(more[place]), 1), layer, int(place))
                    best = found if best is None or found[0] > best[0] else best
            if best is None:
                return choice
            choice[best[1]] = best[2]

    def solve(self) -> list[int]:
        known = self._filled()
        most = sum(float(growth[place]) for growth, place in zip(self.growths, known, strict=True))
        most = np.nextafter(most * (1 + 1e-12), np.inf)  # sums in another order are not to exclude what is known
        # What the layers from each on take at least, of the budget and of growth and cost at the price together.
        cheapest = _from_each([float(cost.min()) for cost in self.costs])
        bound = _from_each([float((g + self.price * c).min()) for c, g in zip(self.costs, self.growths, strict=True)])
        cost, growth = np.zeros(1, np.int64), np.zeros(1)
        origins: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        for layer, (costs, growths) in enumerate(zip(self.costs, self.growths, strict=True)):
            parent, place = (x.reshape(-1) for x in np.indices((cost.size, costs.size)))
            cost, growth = cost[parent] + costs[place], growth[parent] + growths[place]
            reach = growth + bound[layer + 1] - self.price * (self.budget - cost)
            kept = np.flatnonzero((cost + cheapest[layer + 1] <= self.budget) & (reach <= most))
            kept = kept[np.lexsort((growth[kept], cost[kept]))]
            lowest = np.minimum.accumulate(growth[kept])
            kept = kept[np.r_[True, lowest[1:] < lowest[:-1]]]
            if kept.size > _MOST_PARTS:
                kept = np.sort(kept[np.argsort(reach[kept], kind="stable")[:_MOST_PARTS]])
            cost, growth = cost[kept], growth[kept]
            origins.append((parent[kept], place[kept]))
        if not cost.size:
            return known
        best = int(np.lexsort((cost, growth))[0])
        choice: list[int] = []
        for parent, place in reversed(origins):
            choice.append(int(place[best]))
            best = int(parent[best])
        return choice[::-1]


def _from_each(values: Sequence[float]) -> NDArray[np.float64]:
    """The sum of the values from each place on, and 0 behind the last."""
    return np.append(np.cumsum(values[::-1])[::-1], 0.0)
