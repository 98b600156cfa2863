"""What scales may be: float32, or fewer bits where a few weights share one.

``"e8m0"`` is a power of two, as in the MX formats (OCP Microscaling specification, 2023). ``"e4m3"`` is an 8-bit float
times one unit for the tensor, as in NVIDIA's NVFP4. The unit has 16 significant bits, so that unit, block scale and
4-bit element multiply to the same float32 in any order. ``"one"`` is the scale 1: a plain cast.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from whit.formats.minifloat import magnitudes

__all__ = ["Floats", "ScaleFormat", "bounded", "fitting_scales", "pack_scales", "unpack_scales"]

Floats = NDArray[np.float32]
ScaleFormat = Literal["float32", "e8m0", "e4m3", "one"]

_SMALLEST = np.float32(np.finfo(np.float32).tiny)
_LARGEST = np.finfo(np.float32).max
_E4M3 = magnitudes(4, 3)
_UNIT_BITS = 16


def fitting_scales(largest: Floats, level: float, step: float, kind: ScaleFormat) -> Floats:
    """Scales that bring the largest weights to the largest level.

    Args:
        largest: Magnitude of the largest weight that shares a scale, any shape, float32, finite.
        level: The format's largest level.
        step: Its smallest positive level, which stays a number that is not denormal.
        kind: What scales may be.

    Returns:
        Float32, positive, of the shape of ``largest``; 1 where it is 0, with ``"e4m3"`` only if all of it is. No level
        times its scale is infinite. An ``"e8m0"`` scale may leave the largest weight up to twice beyond the largest
        level, as the MX specification has it.

    >>> fitting_scales(np.array([12.0, 7.0, 0.0], np.float32), 6.0, 0.5, "e8m0").tolist()
    [2.0, 1.0, 1.0]
    """
    least = _SMALLEST / np.float32(min(step, 1))
    match kind:
        case "float32":
            return bounded(largest / np.float32(level), level, largest == 0, least)
        case "e8m0":
            power = np.frexp(largest)[1] - np.frexp(level)[1]
            power = np.maximum(power, np.frexp(least)[1] - 1)
            return np.where(largest == 0, np.float32(1), np.ldexp(np.float32(1), power)).astype(np.float32)
        case "e4m3":
            return _scaled_e4m3(largest.astype(np.float64) / level, float(least))
        case "one":
            return np.ones(largest.shape, np.float32)


def bounded(scale: Floats, steps: float | Floats, empty: NDArray[np.bool_], least: np.float32 = _SMALLEST) -> Floats:
    """Scales that are not denormal and, ``steps`` times, not infinite; 1 where there is nothing to cover."""
    # What stands for a value near the largest float32 must not be infinite itself.
    scale = np.minimum(scale, np.nextafter(_LARGEST / np.asarray(steps, np.float32), np.float32(0)))
    return np.where(empty, np.float32(1), np.maximum(scale, least)).astype(np.float32)


def _scaled_e4m3(scale: NDArray[np.float64], least: float) -> Floats:
    if not scale.any():
        scale = np.ones_like(scale)
    # The smallest scale is the unit times 2**-9, and the largest is always the largest code, 448: so a unit can be
    # found again in its scales.
    scale = np.maximum(scale, least / float(_E4M3[1]) * float(_E4M3[-1]))
    fraction, power = np.frexp(scale.max(initial=0) / float(_E4M3[-1]))
    unit = np.ldexp(np.floor(np.ldexp(fraction, _UNIT_BITS)), power - _UNIT_BITS)
    middle = (_E4M3[1:-1].astype(np.float64) + _E4M3[2:]) / 2
    codes = 1 + np.searchsorted(middle, scale / unit)
    return (_E4M3[codes].astype(np.float64) * unit).astype(np.float32)


def pack_scales(scale: Floats, kind: ScaleFormat) -> tuple[NDArray[np.int32], float]:
    """Scales of ``"e8m0"`` or ``"e4m3"`` as integers, and their unit; ``unpack_scales`` gives them back.

    Raises:
        ValueError: They are no such scales.

    >>> pack_scales(np.array([[2.0, 0.25]], np.float32), "e8m0")[0].tolist()
    [[1, -2]]
    """
    if kind == "e8m0":
        codes, unit = np.frexp(scale)[1] - 1, 1.0
    else:
        unit = float(scale.max(initial=0)) / float(_E4M3[-1]) or 1.0
        codes = np.searchsorted(_E4M3, (scale / np.float64(unit)).astype(np.float32))
    codes = np.minimum(codes, _limits(kind)[1]).astype(np.int32)
    if not np.array_equal(unpack_scales(codes, unit, kind), scale):
        raise ValueError(f"scales from {scale.min()} to {scale.max()} are not all {kind}")
    return codes, unit


def unpack_scales(codes: NDArray[np.int32], unit: float, kind: ScaleFormat) -> Floats:
    """The scales that ``pack_scales`` took.

    Raises:
        ValueError: The integers stand for no scales.
    """
    low, high = _limits(kind)
    if codes.size and not low <= codes.min() <= codes.max() <= high:
        raise ValueError(f"scales of {kind} are {low} to {high}, not {codes.min()} to {codes.max()}")
    if kind == "e8m0":
        return np.ldexp(np.float32(1), codes).astype(np.float32)
    with np.errstate(over="ignore"):
        return (_E4M3[codes].astype(np.float64) * unit).astype(np.float32)


def _limits(kind: ScaleFormat) -> tuple[int, int]:
    return (-126, 127) if kind == "e8m0" else (1, _E4M3.size - 1)
