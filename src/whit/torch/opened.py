"""Functions of torch that a function mode is to see into: what they do is done by others that it has names for."""

from collections.abc import Callable
from types import FunctionType
from typing import Any

from torch.nn import functional as F

__all__ = ["opened"]


def opened(function: Any) -> Callable[..., Any] | None:
    """The same, to be called with the mode on once more; None of functions that modes take as a whole."""
    return _OPENED.get(function)


def _without_asking(function: Any) -> Callable[..., Any]:
    """A copy that does its work right away: the original hands itself to the mode for as long as one is on."""
    found = FunctionType(
        function.__code__,
        {**function.__globals__, "has_torch_function": lambda _: False},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    found.__kwdefaults__ = function.__kwdefaults__
    return found


_OPENED: dict[Any, Callable[..., Any]] = {
    F.multi_head_attention_forward: _without_asking(F.multi_head_attention_forward)
}
