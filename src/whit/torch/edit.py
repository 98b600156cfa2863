"""Edits of an eager module, in place: slice its parameters and mend the attributes that carry sizes."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]
from torch.nn.modules.conv import _ConvNd  # pyright: ignore[reportPrivateUsage]

from whit.data import Array
from whit.errors import ModelError, WeightsError
from whit.graph import Graph
from whit.ledger import (
    Assigned,
    Decision,
    Factored,
    Folded,
    Kept,
    LeftOut,
    Masked,
    Plain,
    Rounded,
    RoundedActivation,
    RoundedBias,
    Scaled,
)
from whit.torch.activations import activations_of, round_activations_
from whit.torch.factored import chain
from whit.torch.left_out import Through, Zeros
from whit.torch.plain import plain

__all__ = ["apply_", "foldable", "multiply_outputs_", "state_of", "tensor_of"]


_MENDED = (_ConvNd, nn.Linear, _BatchNorm, nn.RNNBase)
"""Layers whose sizes are those of their parameters."""


def apply_(module: nn.Module, decisions: Sequence[Decision]) -> None:
    """Apply decisions to a module, in order."""
    activations = {d.tensor: d for d in decisions if isinstance(d, RoundedActivation)}
    divided = [d for d in decisions if isinstance(d, Scaled) and d.inputs]
    with torch.no_grad():
        for decision in decisions:
            match decision:
                case Folded():
                    _fold_(module, decision)
                case Plain():
                    owner, last = _owner(module, decision.layer)
                    setattr(owner, last, plain(module, decision))
                case Kept():
                    _cut_(module, decision)
                case Scaled():
                    _scale_(module, decision)
                case LeftOut():
                    _leave_out_(module, decision)
                case Factored():
                    owner, last = _owner(module, decision.layer)
                    setattr(owner, last, chain(_submodule(module, decision.layer), decision))
                case Masked():
                    tensor_of(module, decision.parameter).masked_fill_(torch.from_numpy(~decision.mask), 0)
                case Rounded() | RoundedBias():
                    _assign_(module, decision.parameter, decision.values())
                case Assigned():
                    _assign_(module, decision.parameter, decision.values)
                case RoundedActivation():
                    pass
    if activations or divided:
        before = activations_of(module)
        rounded, scaled = (before.decisions, before.scaled) if before else ({}, ())
        round_activations_(module, {**rounded, **activations}, [*scaled, *divided])


def tensor_of(module: nn.Module, name: str) -> Tensor:
    """A parameter or buffer by its dotted name."""
    owner, last = _owner(module, name)
    tensor = getattr(owner, last, None)
    if not isinstance(tensor, Tensor):
        raise WeightsError(f"{type(module).__name__} has no parameter or buffer {name}")
    return tensor


@torch.no_grad()
def multiply_outputs_(module: nn.Module, weight: str, factor: Tensor) -> None:
    """Multiply what a weight of a convolution or linear layer makes with a factor for each output channel."""
    layer = _owner(module, weight)[0]
    assert isinstance(layer, _ConvNd | nn.Linear)  # foldable() asked
    layer.weight.copy_(_by_output(layer, factor))


def state_of(module: nn.Module) -> dict[str, Array]:
    """Parameters and buffers by name, as arrays that share the module's memory."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in module.state_dict().items()}


def foldable(module: nn.Module, graph: Graph) -> list[Folded]:
    """Batch normalisations that alone read the output of a convolution or linear layer, each used once."""
    uses: dict[str, int] = {}
    for operation in graph.operations:
        uses[operation.layer] = uses.get(operation.layer, 0) + 1
    makers = {operation.output: operation for operation in graph.matrix_operations()}
    readers = graph.consumers()
    found: list[Folded] = []
    for operation in graph.operations:
        maker = makers.get(operation.inputs[0]) if operation.kind == "batch_norm" else None
        if maker is None or len(readers[maker.output]) > 1 or maker.output in graph.outputs:
            continue
        layers = (_submodule(module, maker.layer), _submodule(module, operation.layer))
        if (
            isinstance(layers[0], _ConvNd | nn.Linear)
            and isinstance(layers[1], _BatchNorm)
            and layers[1].running_mean is not None
            and uses[maker.layer] == uses[operation.layer] == 1
        ):
            found.append(Folded(batch_norm=operation.layer, into=maker.layer))
    return found


def _submodule(module: nn.Module, name: str) -> nn.Module | None:
    try:
        return module.get_submodule(name)
    except AttributeError:
        return None


def _owner(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, last = name.rpartition(".")
    owner = _submodule(module, path)
    if owner is None:
        raise WeightsError(f"{type(module).__name__} has no module {path}, so it has no {name}")
    return owner, last


def _fold_(module: nn.Module, decision: Folded) -> None:
    """``y = (conv(x) - mean) / sqrt(variance + eps) * weight + bias`` as one convolution."""
    layer, norm = _submodule(module, decision.into), _submodule(module, decision.batch_norm)
    if not isinstance(layer, _ConvNd | nn.Linear) or not isinstance(norm, _BatchNorm):
        raise ModelError(
            f"{decision.batch_norm} cannot be folded into {decision.into}: this {type(module).__name__} has no batch "
            "normalisation behind that layer. Is it the class that was compressed?"
        )
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None  # foldable() asked
    assert variance is not None
    factor = torch.rsqrt(variance.double() + norm.eps)
    if norm.weight is not None:  # pyright: ignore[reportUnnecessaryComparison] (None without affine)
        factor = factor * norm.weight.double()
    shift = -mean.double() * factor
    if norm.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]
        shift = shift + norm.bias.double()
    if layer.bias is not None:  # pyright: ignore[reportUnnecessaryComparison]
        shift = shift + layer.bias.double() * factor
    layer.weight.data = _by_output(layer, factor).to(layer.weight.dtype)
    layer.bias = nn.Parameter(shift.to(layer.weight.dtype))
    owner, last = _owner(module, decision.batch_norm)
    setattr(owner, last, nn.Identity())


def _by_output(layer: _ConvNd | nn.Linear, factor: torch.Tensor) -> torch.Tensor:
    """The weight of a layer, what makes each output channel times that channel's factor, float64."""
    weight = layer.weight.double()
    if not (isinstance(layer, _ConvNd) and layer.transposed):
        return weight * factor.reshape([-1] + [1] * (weight.dim() - 1))
    # (inputs, outputs of a group, ...): each group's inputs make that group's outputs.
    grouped = weight.unflatten(0, (layer.groups, -1))
    each = factor.reshape([layer.groups, 1, -1] + [1] * (weight.dim() - 2))
    return (grouped * each).flatten(0, 1)


def _cut_(module: nn.Module, decision: Kept) -> None:
    touched: dict[int, nn.Module] = {}
    for (parameter, axis), keep in decision.axes.items():
        tensor = tensor_of(module, parameter)
        if keep.size and (axis >= tensor.dim() or int(keep[-1]) >= tensor.shape[axis]):
            raise WeightsError(
                f"{parameter} has shape {tuple(tensor.shape)}, the decision keeps index {keep[-1]} of axis {axis}: "
                "this is not the network that was compressed"
            )
        tensor.data = tensor.index_select(axis, torch.from_numpy(np.ascontiguousarray(keep))).contiguous()
        owner = _owner(module, parameter)[0]
        touched[id(owner)] = owner
    for weight, groups in decision.groups.items():
        layer = _owner(module, weight)[0]
        if isinstance(layer, _ConvNd):
            layer.groups = groups
    for owner in touched.values():
        _mend_(owner)
    for name, sizes in decision.sizes.items():
        owner = _submodule(module, name)
        if owner is None:
            raise WeightsError(f"{type(module).__name__} has no module {name}, whose sizes the decision changes")
        if not isinstance(owner, _MENDED):
            _resize_(owner, sizes)


def _resize_(owner: nn.Module, sizes: Mapping[int, int]) -> None:
    """Change the numbers that a module remembers, alone or in a row of numbers."""

    def changed(value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            return sizes.get(value, value)
        if type(value) is tuple:
            return tuple(changed(one) for one in cast(tuple[Any, ...], value))
        return [changed(one) for one in cast(list[Any], value)] if type(value) is list else value

    for name, value in vars(owner).items():
        if not name.startswith("_"):
            vars(owner)[name] = changed(value)


def _leave_out_(module: nn.Module, decision: LeftOut) -> None:
    for names, kind in ((decision.identity, Through), (decision.zeros, Zeros)):
        for name in names:
            if not name or _submodule(module, name) is None:
                raise ModelError(
                    f"{type(module).__name__} has no module {name}, which the decision leaves out: this is not the "
                    "network that was compressed"
                )
            owner, last = _owner(module, name)
            setattr(owner, last, kind())


def _scale_(module: nn.Module, decision: Scaled) -> None:
    for name in dict.fromkeys(span.name for span in (*decision.made, *decision.read)):
        tensor = tensor_of(module, name)
        try:
            scaled = decision.applied(name, tensor.detach().cpu().numpy())
        except (IndexError, ValueError, np.exceptions.AxisError) as error:
            raise WeightsError(
                f"{name} has shape {tuple(tensor.shape)}, which has no {decision.quarters.size} channels where they "
                "were scaled: this is not the network that was compressed"
            ) from error
        tensor.copy_(torch.from_numpy(scaled))


def _mend_(layer: nn.Module) -> None:
    """Make the sizes that a layer remembers those of its parameters."""
    match layer:
        case _ConvNd():
            first, second = layer.weight.shape[0], layer.weight.shape[1] * layer.groups
            layer.out_channels, layer.in_channels = (second, first) if layer.transposed else (first, second)
        case nn.Linear():
            layer.out_features, layer.in_features = layer.weight.shape
        case _BatchNorm():
            first = layer.running_mean if layer.running_mean is not None else layer.weight
            layer.num_features = first.shape[0]
        case nn.RNNBase():
            layer.input_size = cast(Tensor, layer.weight_ih_l0).shape[1]
            layer.hidden_size = cast(Tensor, layer.weight_hh_l0).shape[1]
        case _:
            pass


def _assign_(module: nn.Module, name: str, values: Array) -> None:
    tensor = tensor_of(module, name)
    if tuple(tensor.shape) != values.shape:
        raise WeightsError(
            f"{name} has shape {tuple(tensor.shape)} in this {type(module).__name__}, {values.shape} in the weights"
        )
    tensor.copy_(torch.from_numpy(np.array(values)))
