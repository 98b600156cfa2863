"""ONNX operators with weights as torch's own layers, which can be folded, cut and rounded like those of any module."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from whit.data import Array
from whit.torch.onnx_file.operators.windows import pad_window, window_pads

__all__ = ["LAYERS", "BatchNorm", "Layer"]

_CONVOLUTIONS: Any = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED: Any = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class BatchNorm(_BatchNorm):
    """A batch normalisation of inputs of any rank: a file says the rank of its weights only."""

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 (torch's own name)
        pass


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """A layer, and what happens to its input before."""

    module: nn.Module
    before: Callable[[Tensor], Tensor] | None = None


class _Rule(NamedTuple):
    """How a layer is made: of an operator's constants, which are all its inputs but the one at ``reads``."""

    reads: int
    make: Callable[..., Layer | None]


def convolution(
    weight: Array,
    bias: Array | None = None,
    *,
    kernel_shape: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    group: int = 1,
    auto_pad: str = "NOTSET",
) -> Layer | None:
    """A convolution; padding that is not the same on both sides, or depends on the input's size, comes before it."""
    kernel, rank = _kernel(weight, kernel_shape)
    stride, dilation = tuple(strides or [1] * rank), tuple(dilations or [1] * rank)
    extents = tuple(gap * (size - 1) + 1 for size, gap in zip(kernel, dilation, strict=True))
    padding: tuple[int, ...] = (0,) * rank
    before = None
    sized = auto_pad.startswith("SAME") and any(min(pair) > 1 for pair in zip(extents, stride, strict=True))
    amounts = [] if sized else window_pads(extents, stride, [1 << 30] * rank, pads, auto_pad)
    if not sized and all(first == second >= 0 for first, second in amounts):
        padding = tuple(first for first, _ in amounts)
    else:
        before = partial(pad_window, extents=extents, strides=stride, pads=pads, auto_pad=auto_pad)
    module = _CONVOLUTIONS[rank - 1](
        weight.shape[1] * group,
        weight.shape[0],
        kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=group,
        bias=bias is not None,
        device="meta",
    )
    return Layer(module=_with(module, weight=weight, bias=bias), before=before)


def _kernel(weight: Array, kernel_shape: Sequence[int] | None) -> tuple[tuple[int, ...], int]:
    """The size of a convolution's windows, and along how many axes they move."""
    rank, kernel = weight.ndim - 2, weight.shape[2:]
    if not 1 <= rank <= 3 or tuple(kernel_shape or kernel) != kernel:
        raise ValueError(f"its weight has shape {weight.shape}, its windows {tuple(kernel_shape or ())}")
    return kernel, rank


def transposed_convolution(
    weight: Array,
    bias: Array | None = None,
    *,
    kernel_shape: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    group: int = 1,
    auto_pad: str = "NOTSET",
    output_shape: Sequence[int] | None = None,
) -> Layer | None:
    """A transposed convolution that takes as much away on both sides of what it makes, or less at the end."""
    kernel, rank = _kernel(weight, kernel_shape)
    if auto_pad not in ("NOTSET", "VALID") or output_shape is not None:
        raise ValueError("the sizes that it makes are asked for; whit reads those whose pads are given as numbers")
    given = tuple(pads or [0] * (2 * rank))
    first, last = given[:rank], given[rank:]
    more = [extra + front - back for extra, front, back in zip(output_padding or [0] * rank, first, last, strict=True)]
    stride, dilation = tuple(strides or [1] * rank), tuple(dilations or [1] * rank)
    if any(not 0 <= one < max(pair) for one, *pair in zip(more, stride, dilation, strict=True)):
        raise ValueError(f"its pads are {given}; whit reads those by which the end loses as much as the front, or less")
    module = _TRANSPOSED[rank - 1](
        weight.shape[0],
        weight.shape[1] * group,
        kernel,
        stride=stride,
        padding=first,
        output_padding=more,
        dilation=dilation,
        groups=group,
        bias=bias is not None,
        device="meta",
    )
    return Layer(module=_with(module, weight=weight, bias=bias))


def gemm(
    weight: Array,
    bias: Array | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Layer | None:
    """A linear layer, unless it reads its input transposed."""
    if transA or weight.ndim != 2:
        return None
    matrix = weight if transB else weight.T
    with np.errstate(all="ignore"):  # weights that are not numbers are named later
        matrix = matrix * np.float32(alpha)
    if bias is not None:
        if bias.size not in (1, len(matrix)) or max(bias.shape[:-1], default=1) > 1:
            return None
        bias = np.broadcast_to(bias.reshape(-1) * np.float32(beta), len(matrix))
    return _linear(matrix, bias)


def matmul(weight: Array, bias: Array | None = None) -> Layer | None:
    """A linear layer where the second operand is a matrix; ``bias`` is what was added behind it."""
    return _linear(weight.T, bias) if weight.ndim == 2 else None


def _linear(matrix: Array, bias: Array | None) -> Layer:
    module = nn.Linear(matrix.shape[1], matrix.shape[0], bias=bias is not None, device="meta")
    return Layer(module=_with(module, weight=matrix, bias=bias))


def batch_normalization(
    scale: Array,
    bias: Array,
    mean: Array,
    variance: Array,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
    spatial: int = 1,
) -> Layer | None:
    """A batch normalisation by statistics that are known."""
    if (
        training_mode
        or spatial != 1
        or any(one.shape != scale.shape or one.ndim != 1 for one in (bias, mean, variance))
    ):
        return None
    module = BatchNorm(len(scale), eps=epsilon, momentum=1 - momentum, device="meta")
    module.num_batches_tracked = torch.zeros((), dtype=torch.int64)
    return Layer(module=_with(module, weight=scale, bias=bias, running_mean=mean, running_var=variance))


def embedding(table: Array, *, axis: int = 0) -> Layer | None:
    """A table in which rows are looked up."""
    if axis != 0 or table.ndim != 2 or table.dtype != np.float32:
        return None
    module = nn.Embedding(*table.shape, device="meta")
    return Layer(module=_with(module, weight=table))


def _with(module: nn.Module, **arrays: Array | None) -> nn.Module:
    """A module with these values."""
    for name, array in arrays.items():
        if array is not None:
            if tuple(getattr(module, name).shape) != array.shape:
                raise ValueError(
                    f"its {name} has shape {array.shape} where {tuple(getattr(module, name).shape)} is needed"
                )
            tensor = torch.from_numpy(np.array(array, np.float32))
            setattr(module, name, nn.Parameter(tensor) if name in ("weight", "bias") else tensor)
    return module.eval()


LAYERS: dict[str, _Rule] = {
    "BatchNormalization": _Rule(0, batch_normalization),
    "Conv": _Rule(0, convolution),
    "ConvTranspose": _Rule(0, transposed_convolution),
    "Gather": _Rule(1, embedding),
    "Gemm": _Rule(0, gemm),
    "MatMul": _Rule(0, matmul),
}
