"""A name for every activation of an eager module, and a place to step in.

While a ``Tracker`` is active, every torch function that returns a floating-point tensor is counted; its place in the
count and its name (``7.relu``) name the tensor. The same code path gives the same names, in eager mode as in
``torch.export``, so what the exported graph says about an activation can be done to the eager one. What a call with a
weight reads has a name as well (``whit.graph.own_input``), to be rounded for that call alone.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from whit.errors import ModelError, listed
from whit.graph import own_input
from whit.ledger import RoundedActivation, Scaled
from whit.torch.fake_quantize import fake_quantize
from whit.torch.opened import opened
from whit.torch.training.learned_grid import LearnedGrid
from whit.torch.training.renormalised import Renormalised

__all__ = [
    "INPUT",
    "RoundedActivations",
    "Tracker",
    "activations_of",
    "interruptible",
    "mark",
    "round_activations_",
    "rounder_",
    "unrounded",
]

INPUT = "input"
"""Inputs of the network are named ``input.0``, ``input.1``, ..."""
_READ = {**dict.fromkeys(("conv1d", "conv2d", "conv3d", "linear", "matmul", "mm"), (0, "input")), "addmm": (1, "mat1")}
"""Functions that may have a weight matrix, and where they have what may be rounded for them alone: its place among the
arguments, and its name."""

Visit = Callable[[str, Tensor], Tensor]


class Tracker(TorchFunctionMode):
    """Calls ``visit(name, tensor)`` on every activation and goes on with the tensor that it returns.

    Likewise ``read``, if there is one, on what functions with a weight matrix are about to read.
    """

    def __init__(self, visit: Visit, read: Visit | None = None) -> None:
        super().__init__()
        self.visit = visit
        self.read = read
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Visit what the function reads, run it, then visit its result."""
        kind, kwargs = getattr(func, "__name__", "function"), kwargs or {}
        if (body := opened(func)) is not None:
            with self:
                return body(*args, **kwargs)
        name = f"{self.count}.{kind}"
        if self.read is not None and kind in _READ:
            place, key = _READ[kind]
            if len(args) > place:
                args = (*args[:place], self.read(own_input(name), args[place]), *args[place + 1 :])
            else:
                kwargs = {**kwargs, key: self.read(own_input(name), kwargs[key])}
        result = func(*args, **kwargs)
        if isinstance(result, Tensor) and result.is_floating_point() and getattr(func, "namespace", None) != "whit":
            self.count += 1
            return self.visit(name, result)
        return result

    def inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Visit the network's arguments."""
        return tuple(
            self.visit(f"{INPUT}.{place}", arg) if isinstance(arg, Tensor) and arg.is_floating_point() else arg
            for place, arg in enumerate(args)
        )


@torch.library.custom_op("whit::mark", mutates_args=())
def mark(x: Tensor, name: str) -> Tensor:
    """The identity, which puts the name of an activation into an exported graph."""
    return x.clone()


@mark.register_fake
def _(x: Tensor, name: str) -> Tensor:
    return torch.empty_like(x)


class RoundedActivations(nn.Module):
    """Rounds chosen activations on every forward pass of the module that it is attached to.

    Before, what single layers read is divided where decisions say so, also while the rounding is paused.
    Kept as a submodule of its hooks only: it has no parameters and leaves the network's state as it is.

    Attributes:
        scaled: Decisions that divide what layers read.
        learned: Grids in training, which stand in for those of the decisions.
        normalised: By activation, what normalises it before it is rounded, while a training goes on.
    """

    def __init__(self, decisions: Mapping[str, RoundedActivation], scaled: Sequence[Scaled] = ()) -> None:
        super().__init__()
        self.decisions = dict(decisions)
        self.scaled = tuple(scaled)
        self.factors: dict[str, list[str]] = {}
        self.active: list[tuple[Tracker, set[str]]] = []
        self.paused = False
        self.learned: Mapping[str, LearnedGrid] = {}
        self.normalised: Mapping[str, Renormalised] = {}
        for place, decision in enumerate(self.decisions.values()):
            scale = torch.tensor(float(decision.scale), dtype=torch.float32)
            zero_point = torch.tensor(int(decision.zero_point), dtype=torch.int32)
            self.register_buffer(f"scale_{place}", scale)
            self.register_buffer(f"zero_point_{place}", zero_point)
        self.places = {name: place for place, name in enumerate(self.decisions)}
        for place, one in enumerate(self.scaled):
            multiplier = torch.from_numpy((1 / one.factors).astype(np.float32))
            for behind in set(one.inputs.values()):
                self.register_buffer(f"multiplier_{place}_{behind}", multiplier.reshape([-1] + [1] * behind))
            for name, behind in one.inputs.items():
                self.factors.setdefault(name, []).append(f"multiplier_{place}_{behind}")

    def read(self, name: str, x: Tensor) -> Tensor:
        """What a layer reads, divided by the factors of its channels and rounded, if decisions say so."""
        for buffer in self.factors.get(name, ()):
            x = _multiplied(x, self.get_buffer(buffer))
        if self.paused:
            return mark(x, name) if name in self.factors else x
        return self.round(name, x)

    def round(self, name: str, x: Tensor) -> Tensor:
        """The tensor rounded, if a decision says so."""
        place = self.places.get(name)
        if place is None:
            return x
        if x.dtype != torch.float32:  # grids are float32, also where a training computes in bfloat16
            with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage]
                x = x.float()
        if name in self.learned:
            return self.learned[name].round(x)
        target = self.decisions[name].target
        scale, zero_point = self.get_buffer(f"scale_{place}"), self.get_buffer(f"zero_point_{place}")
        if scale.device != x.device:
            scale, zero_point = scale.to(x.device), zero_point.to(x.device)
        return fake_quantize(x, scale, zero_point, 0, target.low, target.high)

    def enter(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Forward pre-hook."""
        if self.paused and not self.scaled:
            return args
        seen: set[str] = set()

        def visit(name: str, x: Tensor) -> Tensor:
            seen.add(name)
            if name in self.normalised:
                x = self.normalised[name](x, training=module.training)
            return x if self.paused else self.round(name, x)

        def read(name: str, x: Tensor) -> Tensor:
            seen.add(name)
            return self.read(name, x)

        tracker = Tracker(visit, read)
        args = tracker.inputs(args)
        tracker.__enter__()
        self.active.append((tracker, seen))
        return args

    def leave(self, module: nn.Module, args: tuple[Any, ...], result: Any) -> None:
        """Forward hook, called after an error too."""
        if not self.active:
            return
        tracker, seen = self.active.pop()
        tracker.__exit__(None, None, None)
        missing = sorted((self.factors.keys() | (set() if self.paused else self.places.keys())) - seen)
        if missing and result is not None:
            raise ModelError(
                f"the forward pass no longer computes {listed(missing)}, which this network rounds or divides: its "
                "code took another path than when it was compressed. Compress it again on this path"
            )


def activations_of(module: nn.Module) -> RoundedActivations | None:
    """What rounds a module's activations, if anything does."""
    for hook in module._forward_pre_hooks.values():  # pyright: ignore[reportPrivateUsage]
        owner = getattr(hook, "__self__", None)
        if isinstance(owner, RoundedActivations):
            return owner
    return None


def rounder_(module: nn.Module) -> RoundedActivations:
    """What rounds a module's activations, attached if nothing does; then it rounds none yet."""
    found = activations_of(module)
    return _attached_(module, RoundedActivations({})) if found is None else found


@contextmanager
def unrounded(module: nn.Module) -> Generator[None]:
    """The module as it is captured: without the rounding of its activations, whose names are counted without it."""
    rounded = activations_of(module)
    if rounded is None:
        yield
        return
    rounded.paused = True
    try:
        yield
    finally:
        rounded.paused = False


@contextmanager
def interruptible(module: nn.Module) -> Generator[None]:
    """Within, what is no ``Exception`` may leave a forward pass, an interrupt, say; torch calls no hooks then."""
    try:
        yield
    except Exception:
        raise
    except BaseException:
        rounded = activations_of(module)
        if rounded is not None:
            rounded.leave(module, (), None)
        raise


def round_activations_(
    module: nn.Module, decisions: Mapping[str, RoundedActivation], scaled: Sequence[Scaled] = ()
) -> None:
    """Round these activations, and divide what layers read, on every forward pass from now on, and no others."""
    for hooks in (module._forward_pre_hooks, module._forward_hooks):  # pyright: ignore[reportPrivateUsage]
        for key, hook in list(hooks.items()):
            if isinstance(getattr(hook, "__self__", None), RoundedActivations):
                del hooks[key]
    if decisions or scaled:
        _attached_(module, RoundedActivations(decisions, scaled))


def _attached_(module: nn.Module, rounded: RoundedActivations) -> RoundedActivations:
    module.register_forward_pre_hook(rounded.enter, prepend=True)
    module.register_forward_hook(rounded.leave, always_call=True)
    return rounded


def _multiplied(x: Tensor, factors: Tensor) -> Tensor:
    """Channels times one factor each, seen by no torch function mode: activations are counted without it."""
    with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage]
        return x * (factors if factors.device == x.device else factors.to(x.device))
