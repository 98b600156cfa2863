"""What layers of an eager module read, and how sensitive the loss is to what they make.

A torch function mode sees every call that is given one of the weights, be it by a module or by the user's own code.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from whit.formats import Floats
from whit.graph import Layer
from whit.metrics import Loss
from whit.moments import Moments, Sensitivity
from whit.torch.activations import interruptible
from whit.torch.logits import logits_of
from whit.torch.opened import opened

__all__ = ["Call", "moments", "sampled", "sensitivities", "vectors_of", "watch"]

_CONV = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
_ARGUMENTS: dict[str, dict[str, str]] = {
    **{f"conv{rank}d": {name: name for name in _CONV} for rank in (1, 2, 3)},
    **{f"conv_transpose{rank}d": {name: name for name in _TRANSPOSED} for rank in (1, 2, 3)},
    "linear": {name: name for name in ("input", "weight", "bias")},
    "matmul": {"input": "input", "other": "weight"},
    "mm": {"input": "input", "mat2": "weight"},
    "addmm": {"input": "bias", "mat1": "input", "mat2": "weight"},
    "embedding": {name: name for name in ("input", "weight")},
}
"""By function, the names of its arguments in their order, and what each is to a layer."""
_MOST = 1 << 16
"""Vectors that a layer's moments are taken over, about; on ResNet-20 a quarter of them does nearly as well."""
_TEMPERATURE = 4.0
"""Of the softmax whose curvature is taken, as in distillation. Of images that it knows by heart a network is so sure
that at 1 a few hard ones would decide alone: measured on ResNet-56, at 4 the file is a tenth smaller at half a point
lost."""
_CONSTANT = 1e-5
"""Share of its mean square below which the variance of what a layer reads is a rounding error of the sums."""
_UNSEEN = 0.5
"""Times that a row of a table counts as looked up beside those that were seen: what no sample did, the next may."""

Inputs = tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """One use of a weight: the function's name, its arguments by name, and what it made."""

    kind: str
    arguments: Mapping[str, Any]
    output: Tensor

    @property
    def transposed(self) -> bool:
        """Whether it is a transposed convolution."""
        return self.kind.startswith("conv_transpose")

    @property
    def rows(self) -> bool:
        """Whether the weight is multiplied with rows of features."""
        return self.kind in ("linear", "matmul", "mm", "addmm")

    @property
    def groups(self) -> int:
        """Of a convolution."""
        return int(self.arguments.get("groups", 1))


class _Calls(TorchFunctionMode):
    """Calls ``visit(name, call)`` for every use of one of the weights."""

    def __init__(self, names: Mapping[int, str], visit: Callable[[str, Call], None]) -> None:
        super().__init__()
        self.names = names
        self.visit = visit

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (body := opened(func)) is not None:
            with self:
                return body(*args, **(kwargs or {}))
        result = func(*args, **(kwargs or {}))
        kind = getattr(func, "__name__", "")
        if kind in _ARGUMENTS:
            names = _ARGUMENTS[kind]
            given = {**dict(zip(names, args, strict=False)), **(kwargs or {})}
            arguments = {names.get(name, name): value for name, value in given.items()}
            name = self.names.get(id(arguments.get("weight")))
            if name is not None:
                self.visit(name, Call(kind, arguments, result))
        return result


def watch(module: nn.Module, inputs: Inputs, names: Sequence[str], visit: Callable[[str, Call], None]) -> Tensor:
    """Run a module and visit every use of the weights with these names."""
    with _Calls({id(module.get_parameter(name)): name for name in names}, visit), interruptible(module):
        return module(*inputs)


def sensitivities(
    module: nn.Module, batches: Sequence[Inputs], names: Sequence[str], loss: Loss
) -> dict[str, Sensitivity]:
    """How much errors in the output channels of weights cost, by weight; those that no call uses are left out.

    Half of ``E[(v^T B J)^2]`` over random signs ``v``, where ``J`` is the Jacobian of the network's outputs by the
    channel's and ``B B^T`` the curvature of the loss by the network's outputs.
    """
    rows: dict[str, Tensor] = {}
    columns: dict[str, Tensor] = {}
    weights: dict[str, list[Floats]] = {}
    places: dict[str, int] = dict.fromkeys(names, 0)
    generator = torch.Generator().manual_seed(0)
    samples = sum(len(inputs[0]) for inputs in batches)
    for inputs in batches:
        calls: list[tuple[str, Call]] = []
        with torch.enable_grad():
            outputs = watch(module, inputs, names, lambda name, call, to=calls: to.append((name, call)))
            wanted = [call.output for _, call in calls]
            if not wanted:
                continue
            found = torch.autograd.grad(_probe(outputs, loss, generator), wanted, allow_unused=True)
        for (name, call), gradient in zip(calls, found, strict=True):
            if gradient is None:  # pyright: ignore[reportUnnecessaryComparison] (what the output does not depend on)
                continue
            squares = _by_row(call, gradient)
            rows[name] = rows.get(name, torch.zeros_like(squares)) + squares
            weight = (_channels_first(call, gradient) != 0).any(dim=0).float()
            weights.setdefault(name, []).append(weight.numpy())
            places[name] += weight.numel()
            if call.kind == "embedding":
                flat = gradient.reshape(-1, gradient.shape[-1]).double()
                columns[name] = columns.get(name, torch.zeros(())) + flat.T @ flat
    return {
        name: Sensitivity(
            rows=((total + _UNSEEN) / samples if name in columns else total / (2 * max(places[name], 1))).numpy(),
            columns=(columns[name] / (2 * max(places[name], 1))).numpy() if name in columns else None,
            places=tuple(weights[name]),
        )
        for name, total in rows.items()
    }


def _by_row(call: Call, gradient: Tensor) -> Tensor:
    """For each row of a weight the sum of squared derivatives, or for a table of embeddings how often it is read."""
    if call.kind == "embedding":
        table: Tensor = call.arguments["weight"]
        return torch.bincount(call.arguments["input"].reshape(-1), minlength=table.shape[0]).double()
    squares = _channels_first(call, gradient).double().square().sum(dim=1)
    # The groups of a transposed convolution share the rows of its weight.
    return squares.reshape(call.groups, -1).sum(dim=0) if call.transposed else squares


def _channels_first(call: Call, output: Tensor) -> Tensor:
    """What a call made, ``(channels, samples * places)``."""
    if call.kind.startswith("conv") and output.dim() == call.arguments["weight"].dim():
        output = output.movedim(1, -1)
    elif call.kind.startswith("conv"):
        output = output.movedim(0, -1)
    return output.reshape(-1, output.shape[-1]).T


def _probe(outputs: Tensor, loss: Loss, generator: torch.Generator) -> Tensor:
    """A number whose derivatives by anything have, squared and averaged, the curvature of the loss."""
    signs = torch.randint(0, 2, outputs.shape, generator=generator).to(outputs.dtype) * 2 - 1
    if loss != "cross_entropy":
        return (outputs * signs).sum() * (2 / outputs[0].numel()) ** 0.5
    outputs = logits_of(outputs)
    likely = torch.softmax(outputs.detach() / _TEMPERATURE, dim=-1)
    root = likely.sqrt() * signs
    share = (outputs.shape[-1] / outputs[0].numel()) ** 0.5
    return (outputs * (root - likely * root.sum(dim=-1, keepdim=True))).sum() * share


class _Enough(BaseException):
    """The last call that matters was seen; whatever the user's code catches, this goes through it."""


def moments(
    module: nn.Module, original: nn.Module, batches: Sequence[Inputs], layer: Layer, cost: Sensitivity
) -> Moments | None:
    """The moments of what a layer's weight is multiplied with, or None where its calls cannot be seen.

    Args:
        module: As it is now.
        original: As it was, equal in structure.
        batches: Samples.
        layer: Which.
        cost: What errors in what it makes cost.
    """
    samples = sum(len(inputs[0]) for inputs in batches)
    generator = torch.Generator().manual_seed(0)
    sums: list[Tensor] = []
    centres: list[Tensor] = []
    weights = iter(cost.places)
    usual = float(np.mean([part.mean() for part in cost.places]))
    vectors = places = 0
    for inputs in batches:
        most = ceil(_MOST * len(inputs[0]) / samples / layer.uses)
        found = _calls(module, inputs, layer)
        if any(call.transposed and call.groups > 1 for call in found):
            return None  # what a row of the weight is multiplied with is another thing in every group
        for now, before in zip(found, found if original is module else _calls(original, inputs, layer), strict=True):
            chosen, count = sampled(now, most, generator)
            x, y = vectors_of(now, chosen), vectors_of(before, chosen)
            weight = _weights(now, next(weights), chosen)
            # Where the loss depends on nothing that the layer makes, all places are alike.
            weight = weight / usual if usual > 0 else torch.ones_like(weight)
            if layer.bias is not None:
                # Near their mean, so that float32 products do not lose what little some vectors vary by.
                centres = centres or [_mean(x, weight), _mean(y, weight)]
                x, y = x - centres[0], y - centres[1]
            by = x * weight
            more = [by @ x.mT, y @ by.mT, by.sum(dim=2), (y * weight).sum(dim=2), weight.sum()]
            sums = [old + new.double() for old, new in zip(sums or [torch.zeros(())] * 5, more, strict=True)]
            vectors += x.shape[2]
            places += count
    if not vectors:
        return None
    second, cross, mean, mean_before = (one / sums[4] for one in sums[:4])
    if layer.bias is not None:
        second = second - mean[:, :, None] * mean[:, None, :]
        cross = cross - mean_before[:, :, None] * mean[:, None, :]
        mean, mean_before = (one + centre[:, :, 0] for one, centre in zip((mean, mean_before), centres, strict=True))
        variance = second.diagonal(dim1=1, dim2=2)
        moves = (variance > _CONSTANT * (variance + mean.square())).double()
        second, cross = second * moves[:, :, None] * moves[:, None, :], cross * moves[:, None, :]
    each = places / samples
    return Moments(
        second=(second * each).numpy(),
        cross=(cross * each).numpy(),
        mean=mean.numpy(),
        original=mean_before.numpy(),
        sensitivity=cost.rows,
    )


def _mean(vectors: Tensor, weight: Tensor) -> Tensor:
    """``(groups, columns, 1)``: of vectors by their weights; zero where all of these are."""
    return (vectors * weight).sum(dim=2, keepdim=True) / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)


def _calls(module: nn.Module, inputs: Inputs, layer: Layer) -> list[Call]:
    """The uses of a weight in one forward pass, which goes no further than the last."""
    found: list[Call] = []

    def visit(_: str, call: Call) -> None:
        found.append(call)
        if len(found) == layer.uses:
            raise _Enough

    try:
        with torch.no_grad():
            watch(module, inputs, [layer.weight], visit)
    except _Enough:
        pass
    return found


def sampled(call: Call, most: int, generator: torch.Generator) -> tuple[Tensor, int]:
    """About ``most`` of the places at which a weight is used, the same of every image, and how many there are."""
    if call.rows:
        count = call.output.numel() // call.output.shape[-1]
        return torch.randperm(count, generator=generator)[:most], count
    rank = call.arguments["weight"].dim() - 2
    each = call.output.shape[-rank:].numel()
    samples = call.output.numel() // (each * call.output.shape[-rank - 1])
    return torch.randperm(each, generator=generator)[: max(1, most // samples)], each * samples


def _weights(call: Call, weights: Floats, chosen: Tensor) -> Tensor:
    """The weights of the chosen places, in the order of the vectors."""
    if call.rows:
        return torch.from_numpy(weights)[chosen]
    rank = call.arguments["weight"].dim() - 2
    each = call.output.shape[-rank:].numel()
    return torch.from_numpy(weights).reshape(-1, each)[:, chosen].reshape(-1)


def vectors_of(call: Call, chosen: Tensor) -> Tensor:
    """``(groups, columns, vectors)``: what a weight is multiplied with at the chosen places."""
    x: Tensor = call.arguments["input"]
    if call.rows:
        return x.reshape(-1, x.shape[-1])[chosen].T[None]
    weight: Tensor = call.arguments["weight"]
    kernel, rank = weight.shape[2:], weight.dim() - 2
    places = call.output.shape[-rank:]
    windows = (_windows_transposed if call.transposed else _windows)(
        x if x.dim() == rank + 2 else x[None], call, kernel, places
    )
    picked = windows[(slice(None), slice(None), *torch.unravel_index(chosen, places))]
    vectors = picked.movedim(2, 1).reshape(picked.shape[0] * len(chosen), call.groups, -1)
    return vectors.permute(1, 2, 0)


def _windows_transposed(x: Tensor, call: Call, kernel: Sequence[int], places: Sequence[int]) -> Tensor:
    """``(samples, channels, *places, *kernel)``: what a transposed convolution multiplies at every place.

    It is a convolution of what is read with zeros in between, its kernel turned around.
    """
    rank = len(kernel)
    stride, dilation, padding = (
        _each(call.arguments.get(name, usual), rank) for name, usual in (("stride", 1), ("dilation", 1), ("padding", 0))
    )
    sizes = [(size - 1) * step + 1 for size, step in zip(x.shape[2:], stride, strict=True)]
    apart = x.new_zeros((*x.shape[:2], *sizes))
    apart[(slice(None), slice(None), *(slice(None, None, step) for step in stride))] = x
    reach = [step * (size - 1) for step, size in zip(dilation, kernel, strict=True)]
    before = [one - cut for one, cut in zip(reach, padding, strict=True)]
    after = [place + one - first - size for place, one, first, size in zip(places, reach, before, sizes, strict=True)]
    around = [side for pair in reversed(list(zip(before, after, strict=True))) for side in pair]
    return _slid(F.pad(apart, around), [1] * rank, dilation, kernel, places).flip(tuple(range(-rank, 0)))


def _windows(x: Tensor, call: Call, kernel: Sequence[int], places: Sequence[int]) -> Tensor:
    """``(samples, channels, *places, *kernel)``: a view of what a convolution reads at every place."""
    rank = len(kernel)
    stride, dilation = (_each(call.arguments.get(name, 1), rank) for name in ("stride", "dilation"))
    padding = call.arguments.get("padding", 0)
    if padding == "same":
        missing = [step * (size - 1) for step, size in zip(dilation, kernel, strict=True)]
        around = [(one // 2, one - one // 2) for one in missing]
    else:
        around = [(one, one) for one in _each(0 if padding == "valid" else padding, rank)]
    return _slid(F.pad(x, [side for pair in reversed(around) for side in pair]), stride, dilation, kernel, places)


def _slid(
    padded: Tensor, stride: Sequence[int], dilation: Sequence[int], kernel: Sequence[int], places: Sequence[int]
) -> Tensor:
    """A view of the windows that begin at every ``stride``, of which ``dilation`` parts the values."""
    steps = padded.stride()
    moves = [one * step for one, step in zip(steps[2:], stride, strict=True)]
    within = [one * step for one, step in zip(steps[2:], dilation, strict=True)]
    return padded.as_strided((*padded.shape[:2], *places, *kernel), (*steps[:2], *moves, *within))


def _each(value: int | Sequence[int], rank: int) -> list[int]:
    numbers = [value] if isinstance(value, int) else list(value)
    return numbers * rank if len(numbers) == 1 else numbers
