"""Operators that take axes together, products of matrices, and normalisations over the axes of one sample."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from whit.torch.onnx_file.operators.values import numbers

__all__ = ["REDUCTIONS"]


def _reduction(reduce: Callable[[Tensor, tuple[int, ...], bool], Tensor]) -> Callable[..., Tensor]:
    def run(x: Tensor, axes: Any = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Tensor:
        places = [] if axes is None else numbers(axes, "axes")
        if not places and noop_with_empty_axes:
            return x
        return reduce(x, tuple(axis % x.dim() for axis in places) or tuple(range(x.dim())), bool(keepdims))

    return run


def matmul(a: Any, b: Any) -> Tensor:
    """A product of matrices."""
    return torch.matmul(a, b)


def gemm(
    a: Tensor, b: Tensor, c: Any = 0.0, *, alpha: float = 1.0, beta: float = 1.0, transA: int = 0, transB: int = 0
) -> Tensor:
    """``alpha * a @ b + beta * c``."""
    return alpha * ((a.T if transA else a) @ (b.T if transB else b)) + beta * c


def layer_normalization(
    x: Tensor, scale: Tensor, bias: Tensor | None = None, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Tensor:
    """Values with mean 0 and variance 1 over an axis and all behind it, then scaled and shifted."""
    shape = x.shape[axis:]
    return F.layer_norm(x, shape, scale.expand(shape), None if bias is None else bias.expand(shape), epsilon)


def instance_normalization(x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    """Each channel of each sample with mean 0 and variance 1, then scaled and shifted."""
    return F.instance_norm(x, weight=scale, bias=bias, eps=epsilon)


REDUCTIONS: dict[str, Callable[..., Any]] = {
    "Gemm": gemm,
    "InstanceNormalization": instance_normalization,
    "LayerNormalization": layer_normalization,
    "MatMul": matmul,
    "ReduceMax": _reduction(lambda x, axes, keep: x.amax(axes, keep)),
    "ReduceMean": _reduction(lambda x, axes, keep: x.mean(axes, keep)),
    "ReduceMin": _reduction(lambda x, axes, keep: x.amin(axes, keep)),
    "ReduceSum": _reduction(lambda x, axes, keep: x.sum(axes, keep)),
}
