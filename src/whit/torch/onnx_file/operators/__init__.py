"""ONNX operators as functions: inputs by place, attributes by the names that ONNX has for them.

What an operator took as an attribute in one opset and takes as an input in a later one has one name here, so that one
function serves both.
"""

from collections.abc import Callable
from typing import Any

from whit.torch.onnx_file.operators.elementwise import BEFORE_13, ELEMENTWISE
from whit.torch.onnx_file.operators.reductions import REDUCTIONS
from whit.torch.onnx_file.operators.shaping import SHAPING
from whit.torch.onnx_file.operators.windows import WINDOWS

__all__ = ["OPERATORS", "function_of"]

OPERATORS: dict[str, Callable[..., Any]] = {**ELEMENTWISE, **REDUCTIONS, **SHAPING, **WINDOWS}


def function_of(operator: str, opset: int) -> Callable[..., Any] | None:
    """What an operator does in an opset; None where it is not known."""
    return (BEFORE_13 if opset < 13 else {}).get(operator) or OPERATORS.get(operator)
