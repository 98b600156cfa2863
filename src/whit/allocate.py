"""One amount spread over layers: what goes, given what everything is worth."""

from collections.abc import Mapping
from math import ceil

import numpy as np
from numpy.typing import NDArray

from whit import _core
from whit.formats import Floats

__all__ = ["keep_units", "keep_weights"]


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


def keep_units(
    scores: Mapping[str, Floats], amounts: Mapping[str, float], multiples: Mapping[str, int], *, together: bool
) -> dict[str, NDArray[np.int64]]:
    """Which units of every group stay: the highest scores, at least one, a multiple as asked.

    Args:
        scores: ``(units,)`` by group, float32.
        amounts: Share to remove, by group.
        multiples: By group, the number that is kept is rounded up to a multiple of this.
        together: Rank all groups with the same amount as one. Scores are divided by their group's mean first, so that
            a group of small weights is not emptied for the scale of its weights.

    Returns:
        Rising indices of the units that stay, by group.

    >>> keep_units({"a": np.array([3.0, 1.0, 2.0], np.float32)}, {"a": 0.5}, {"a": 1}, together=False)["a"].tolist()
    [0, 2]
    """
    kept: dict[str, NDArray[np.int64]] = {}
    for names in _pools(amounts, together):
        counts = {name: scores[name].size - int(amounts[name] * scores[name].size + 1e-9) for name in names}
        if together:
            relative = {
                name: scores[name] / max(float(scores[name].mean(dtype=np.float64)), np.finfo(np.float32).tiny)
                for name in names
            }
            masks = keep_weights(relative, dict.fromkeys(names, amounts[names[0]]), together=True)
            counts = {name: int(mask.sum()) for name, mask in masks.items()}
        for name in names:
            size = scores[name].size
            count = min(size, multiples[name] * ceil(max(counts[name], 1) / multiples[name]))
            mask = _core.prune(np.asarray(scores[name], np.float32), size - count)
            kept[name] = np.flatnonzero(mask)
    return kept


def _pools(amounts: Mapping[str, float], together: bool) -> list[list[str]]:
    """Names that are ranked as one."""
    if not together:
        return [[name] for name in amounts]
    return [[name for name in amounts if amounts[name] == amount] for amount in dict.fromkeys(amounts.values())]
