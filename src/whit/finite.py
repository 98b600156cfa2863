"""Weights that are not numbers: found before anything else, and named."""

from collections.abc import Mapping

from whit.errors import WeightsError, listed

__all__ = ["check_finite"]


def check_finite(counts: Mapping[str, int], holder: str = "the network") -> None:
    """Raise ``WeightsError`` if any parameter has NaN or infinite values.

    Args:
        counts: How many values of each parameter are NaN or infinite, by name.
        holder: What has them.

    >>> check_finite({"conv.weight": 0, "fc.weight": 2})
    Traceback (most recent call last):
    whit.errors.WeightsError: the network has NaN or infinite weights: fc.weight (2)
    """
    if bad := {name: count for name, count in counts.items() if count}:
        found = listed([f"{name} ({count})" for name, count in bad.items()], most=20)
        raise WeightsError(f"{holder} has NaN or infinite weights: {found}")
