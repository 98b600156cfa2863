"""What all translations of ATen operators need of a node."""

from typing import Any

import torch
from torch.fx import Node

__all__ = ["Translation", "argument", "operator", "rank_of"]

Translation = tuple[str, list[Node], dict[str, Any]]
"""Kind, tensor inputs and attributes."""
_aten: Any = torch.ops.aten


def rank_of(node: Any) -> int:
    """How many axes the tensor has that a node gives."""
    value: Any = node.meta["val"]
    return len(value.shape)


def argument(node: Node, place: int, name: str, default: Any) -> Any:
    """An argument of an operator, wherever it was given."""
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def operator(name: str) -> Any:
    """An ATen overload by its name, or None where this torch does not have it."""
    packet, _, overload = name.partition(".")
    return getattr(getattr(_aten, packet, None), overload, None)
