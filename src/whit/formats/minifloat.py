"""Small floating-point numbers, bit by bit."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["magnitudes"]


@cache
def magnitudes(exponent: int, mantissa: int) -> NDArray[np.float32]:
    """What the patterns 0, 1, 2, ... of exponent and mantissa bits stand for, as long as they are numbers.

    The bias is ``2**(exponent - 1) - 1``, and the smallest exponent holds the subnormals, as in IEEE 754. Formats of
    less than 8 bits have no infinity and no NaN, e4m3 has one NaN and no infinity (OCP 8-bit and Microscaling
    specifications, 2023), and all others keep their largest exponent for both.

    Args:
        exponent: Bits, 2 to 8.
        mantissa: Bits, 0 or more.

    Returns:
        Rising from 0, float32, exact; not to be written to.

    >>> magnitudes(2, 1).tolist()
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    """
    count = 1 << (exponent + mantissa)
    if (exponent, mantissa) == (4, 3):
        count -= 1
    elif 1 + exponent + mantissa >= 8:
        count -= 1 << mantissa
    patterns = np.arange(count)
    field = np.maximum(patterns >> mantissa, 1)
    smallest = 2 - (1 << (exponent - 1))
    # In every binade the significand, with its leading one, counts steps of the binade's own size.
    values = np.ldexp((patterns - ((field - 1) << mantissa)).astype(np.float32), field - 1 + smallest - mantissa)
    values.setflags(write=False)
    return values
