"""Labels moved as data moves: reshaped, sliced, repeated, in the compact form in which they are kept.

Labels are compact: size 1 along axes on which they do not vary, so that a large activation needs one label a channel.
"""

from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

__all__ = ["Labels", "compact", "expanded", "repeated", "reshaped", "sliced"]

Labels = NDArray[np.int64]


def compact(labels: Labels) -> Labels:
    """Size 1 along every axis on which the labels do not vary."""
    for axis in range(labels.ndim):
        first = labels.take([0], axis)
        if labels.shape[axis] > 1 and (labels == first).all():
            labels = first
    return labels


def reshaped(labels: Labels, before: Sequence[int], after: Sequence[int]) -> Labels:
    """The labels of a tensor of shape ``before``, reshaped to ``after``; only the axes on which they vary are spread.

    >>> reshaped(np.arange(4).reshape(1, 4, 1), (2, 4, 9), (2, 2, 2, 9)).shape
    (1, 2, 2, 1)
    """
    full: list[int] = []
    shape: list[int] = []
    for old, new in _segments(before, after):
        varies = any(labels.shape[axis] > 1 for axis in old)
        full += [before[axis] if varies else 1 for axis in old]
        shape += [after[axis] if varies else 1 for axis in new]
    return compact(np.broadcast_to(labels, full).reshape(shape))


def _segments(before: Sequence[int], after: Sequence[int]) -> list[tuple[range, range]]:
    """Neighbouring axes that become neighbouring axes: the finest parts of two shapes that hold as many elements."""
    found: list[tuple[range, range]] = []
    start = (0, 0)
    i = j = 0
    while i < len(before) or j < len(after):
        left, right = prod(before[start[0] : i]), prod(after[start[1] : j])
        if i < len(before) and (left <= right or j == len(after)):
            i += 1
        else:
            j += 1
        if (i, j) != start and prod(before[start[0] : i]) == prod(after[start[1] : j]):
            found.append((range(start[0], i), range(start[1], j)))
            start = (i, j)
    if start != (len(before), len(after)):  # an empty tensor: its parts cannot be told apart
        return [(range(len(before)), range(len(after)))]
    return found


def sliced(labels: Labels, axis: int, start: int, stop: int, step: int) -> Labels:
    """The labels of a slice."""
    if labels.shape[axis] == 1:
        return labels
    return labels[(slice(None),) * axis + (slice(start, stop, step),)]


def expanded(labels: Labels, rank: int) -> Labels:
    """The labels of a tensor broadcast to more axes."""
    return labels.reshape([1] * (rank - labels.ndim) + list(labels.shape))


def repeated(labels: Labels, times: Sequence[int], *, each: bool = False) -> Labels:
    """The labels of a tensor that is tiled along its axes, as often as it says along each; or each index by itself."""
    labels = expanded(labels, len(times))
    counts = [many if labels.shape[axis] > 1 else 1 for axis, many in enumerate(times)]
    if not each:
        return np.tile(labels, counts)
    for axis, many in enumerate(counts):
        labels = np.repeat(labels, many, axis)
    return labels
