"""The price of a bit at which a file has the size that is asked for."""

from collections.abc import Callable
from math import exp, log
from typing import TypeVar

from whit.errors import PlanError

__all__ = ["reach"]

Found = TypeVar("Found")

_ATTEMPTS = 20
_CLOSE = 0.98
"""A file of this share of the target is large enough."""
_SLOPE = -0.4
"""How the logarithm of a size falls with that of the price, where nothing better is known (-0.5 to -0.35 measured)."""
_FARTHEST = 10.0
"""Most that the logarithm of the price changes at once; where sizes stand still it is at least 1, 2, 4, ..."""


def reach(target: int, first: float, attempt: Callable[[float], tuple[Found, int]]) -> Found:
    """What ``attempt`` finds at the lowest price whose size is at most ``target``, up to 2 % less.

    Sizes fall as prices rise, but not at every small step, so the price is only ever searched between one that is too
    low and one that is high enough, by a straight line through the logarithms.

    Args:
        target: Most bytes.
        first: The price to try first.
        attempt: From a price to what is found there, and its bytes.

    Raises:
        PlanError: No price reaches the target.

    >>> reach(100, 1.0, lambda price: (round(price, 1), int(1000 / price)))
    10.0
    """
    place = log(first)
    dear: tuple[float, float] | None = None
    cheap: tuple[float, float] | None = None
    best: tuple[Found, int] | None = None
    smallest = 0
    for attempts in range(_ATTEMPTS):
        found, size = attempt(exp(place))
        smallest = min(smallest or size, size)
        if size <= target:
            dear = (place, log(size))
            if best is None or size > best[1]:
                best = found, size
            if size >= _CLOSE * target:
                break
        else:
            cheap = (place, log(size))
        place = _next(log(target * (1 + _CLOSE) / 2), cheap, dear, min(2.0**attempts, _FARTHEST))
    if best is None:
        raise PlanError(
            f"Quantize(target_bytes={target}): the smallest file that could be reached has {smallest} bytes, whatever "
            "a bit costs; allow more bytes, or prune channels first"
        )
    return best[0]


def _next(aim: float, cheap: tuple[float, float] | None, dear: tuple[float, float] | None, least: float) -> float:
    """The logarithm of the price to try next, given a price that was too low and one that was high enough."""
    if cheap is not None and dear is not None:
        share = (cheap[1] - aim) / max(cheap[1] - dear[1], 1e-9)
        return cheap[0] + (dear[0] - cheap[0]) * min(max(share, 0.1), 0.9)
    known = cheap or dear
    assert known is not None
    move = max(abs((aim - known[1]) / _SLOPE), least)
    return known[0] + min(move, _FARTHEST) * (1 if dear is None else -1)
