"""Operators that act on each position by itself, and softmax."""

import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from whit.torch.onnx_file.operators.values import floating, numbers, together

__all__ = ["BEFORE_13", "ELEMENTWISE"]

Operator = Callable[..., Any]


def _unary(function: Operator) -> Operator:
    def run(x: Tensor) -> Any:
        return function(x)

    return run


def _binary(function: Operator) -> Operator:
    def run(a: Any, b: Any) -> Any:
        return function(*together(a, b))

    return run


def divide(a: Any, b: Any) -> Any:
    """Whole numbers are divided towards zero."""
    a, b = together(a, b)
    if isinstance(a, np.ndarray):
        return np.asarray(a // b, dtype=object)
    whole = all(not (one.is_floating_point() if isinstance(one, Tensor) else isinstance(one, float)) for one in (a, b))
    return torch.div(a, b, rounding_mode="trunc") if whole else a / b


def least(*values: Any) -> Any:
    """The smallest of several values."""
    return reduce(
        lambda a, b: torch.clamp(a, max=b) if isinstance(a, Tensor) else torch.clamp(b, max=a), together(*values)
    )


def greatest(*values: Any) -> Any:
    """The largest of several values."""
    return reduce(
        lambda a, b: torch.clamp(a, min=b) if isinstance(a, Tensor) else torch.clamp(b, min=a), together(*values)
    )


def total(*values: Any) -> Any:
    """The sum of several values."""
    return reduce(operator.add, together(*values))


def mean(*values: Any) -> Any:
    """The mean of several values."""
    return total(*values) / len(values)


def equal(a: Any, b: Any) -> Any:
    """Where two values are equal."""
    a, b = together(a, b)
    return a == b if isinstance(a, Tensor) or isinstance(b, Tensor) else np.asarray(a == b, dtype=bool)


def where(condition: Any, a: Any, b: Any) -> Any:
    """One value where a condition holds, the other elsewhere."""
    condition, a, b = together(condition, a, b)
    return torch.where(condition, a, b) if isinstance(condition, Tensor) else np.where(condition, a, b)


def clip(x: Tensor, min: Any = None, max: Any = None) -> Tensor:  # noqa: A002 (the operator's own names)
    """Values cut off at bounds."""
    low, high = floating(min), floating(max)
    return x if low is None and high is None else torch.clamp(x, low, high)


def leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Tensor:
    """A share of what is negative."""
    return F.leaky_relu(x, alpha)


def prelu(x: Tensor, slope: Any) -> Tensor:
    """A share of what is negative, its own for each channel."""
    return torch.clamp(x, min=0.0) + slope * torch.clamp(x, max=0.0)


def elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """``alpha * (exp(x) - 1)`` of what is negative."""
    return F.elu(x, alpha)


def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    """``x`` times the normal distribution's share below it."""
    return F.gelu(x, approximate=approximate)


def hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    """A line, cut off at 0 and 1."""
    return torch.clamp(x * alpha + beta, 0.0, 1.0)


def softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    """Shares of the exponentials along an axis."""
    return torch.softmax(x, axis)


def log_softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    """Logarithms of the shares."""
    return torch.log_softmax(x, axis)


def softmax_of_rest(x: Tensor, *, axis: int = 1) -> Tensor:
    """Shares along an axis and all behind it, as before opset 13."""
    return torch.softmax(x.flatten(axis), -1).reshape(x.shape)


def log_softmax_of_rest(x: Tensor, *, axis: int = 1) -> Tensor:
    """Logarithms of such shares."""
    return torch.log_softmax(x.flatten(axis), -1).reshape(x.shape)


def cast(x: Any, *, to: int, saturate: int = 1) -> Any:
    """Values of another type; whole numbers that are known before stay so."""
    from onnx.helper import tensor_dtype_to_np_dtype

    dtype = tensor_dtype_to_np_dtype(to)
    if isinstance(x, np.ndarray):
        return x if dtype.kind == "i" else torch.tensor(numbers(x, "values")).reshape(x.shape).to(_TORCH[dtype.name])
    if dtype.name not in _TORCH:
        raise ValueError(f"casts to {dtype.name} are not known; {', '.join(_TORCH)} are")
    return x.to(_TORCH[dtype.name])


_TORCH = {name: getattr(torch, name) for name in ("float32", "int64", "int32", "bool")}

ELEMENTWISE: dict[str, Operator] = {
    "Abs": _unary(torch.abs),
    "Add": _binary(operator.add),
    "And": _binary(torch.logical_and),
    "Cast": cast,
    "Clip": clip,
    "Cos": _unary(torch.cos),
    "Div": divide,
    "Elu": elu,
    "Equal": equal,
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Gelu": gelu,
    "Greater": _binary(operator.gt),
    "HardSigmoid": hard_sigmoid,
    "HardSwish": _unary(F.hardswish),
    "LeakyRelu": leaky_relu,
    "Less": _binary(operator.lt),
    "Log": _unary(torch.log),
    "LogSoftmax": log_softmax,
    "Max": greatest,
    "Mean": mean,
    "Min": least,
    "Mish": _unary(F.mish),
    "Mul": _binary(operator.mul),
    "Neg": _unary(torch.neg),
    "Not": _unary(torch.logical_not),
    "PRelu": prelu,
    "Pow": _binary(operator.pow),
    "Reciprocal": _unary(torch.reciprocal),
    "Relu": _unary(F.relu),
    "Sigmoid": _unary(torch.sigmoid),
    "Sin": _unary(torch.sin),
    "Softmax": softmax,
    "Softplus": _unary(F.softplus),
    "Softsign": _unary(F.softsign),
    "Sqrt": _unary(torch.sqrt),
    "Sub": _binary(operator.sub),
    "Sum": total,
    "Tanh": _unary(torch.tanh),
    "Where": where,
}
BEFORE_13: dict[str, Operator] = {"Softmax": softmax_of_rest, "LogSoftmax": log_softmax_of_rest}
