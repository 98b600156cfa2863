"""What operators read and make: tensors, and whole numbers that are known without running the network.

Shapes, axes and indices are NumPy arrays of Python's whole numbers (or, while torch traces a network, of its symbols),
so that arithmetic on shapes leaves no trace in the network. Everything else is a tensor, or a Python float.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from whit.data import Array

__all__ = ["floating", "numbers", "sizes", "together"]


def sizes(values: Any) -> Array:
    """Whole numbers as an array that may hold symbols."""
    return np.asarray(values, dtype=object)


def numbers(values: Any, what: str) -> list[int]:
    """A list of whole numbers.

    Raises:
        ValueError: The network computes them from its input; ``what`` they are, for the message.
    """
    if isinstance(values, Tensor):
        raise ValueError(f"its {what} are computed from the network's input; whit needs them to be known before")
    # Symbols stay what they are.
    return [int(one) if isinstance(one, np.integer | np.bool_) else one for one in sizes(values).reshape(-1)]


def together(*values: Any) -> tuple[Any, ...]:
    """Operands as torch combines them, or as NumPy does where none is a tensor."""
    if not any(isinstance(one, Tensor) for one in values):
        return values
    return tuple(_operand(one) if isinstance(one, np.ndarray) else one for one in values)


def _operand(values: Array) -> Any:
    return values.item() if values.ndim == 0 else torch.as_tensor(values.tolist())


def floating(value: Any) -> float | None:
    """A number that is known before, or None where there is none.

    Raises:
        ValueError: The network computes it from its input.
    """
    if isinstance(value, Tensor):
        raise ValueError("it reads a number that the network computes; whit needs it to be known before")
    return None if value is None else float(np.asarray(value).reshape(()).item())
