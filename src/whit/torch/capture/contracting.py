"""ATen operators that multiply and sum over axes, each axis with a letter as in Einstein's notation."""

from string import ascii_uppercase
from typing import Any

from torch.fx import Node

from whit.torch.capture.nodes import Translation, operator, rank_of

__all__ = ["addmm", "attention", "einsum", "matmul", "right_factor"]


def matmul(node: Node) -> Translation:
    """``matmul``, ``bmm`` and ``mm``: vectors, matrices, and batches of them; with a weight, a layer."""
    left, right = node.args[:2]
    first = "k" if rank_of(left) == 1 else _batch(rank_of(left) - 2) + "nk"
    second = "k" if rank_of(right) == 1 else _batch(rank_of(right) - 2) + "km"
    batch = max(_batch(rank_of(left) - 2), _batch(rank_of(right) - 2), key=len)
    made = batch + "n" * (rank_of(left) > 1) + "m" * (rank_of(right) > 1)
    kind = "product" if rank_of(left) > 1 and _is_weight(right) else "contract"
    return kind, [left, right], {"letters": (first, second, made)}  # type: ignore[list-item]


def _batch(count: int) -> str:
    """Letters of batch axes, which are aligned at their ends."""
    return ascii_uppercase[::-1][len(ascii_uppercase) - max(count, 0) :]


def addmm(node: Node) -> Translation:
    """A product of matrices with something added: with a weight and a bias, a layer."""
    added, left, right = node.args[:3]
    letters = ("nk", "km", "nm"[2 - rank_of(added) :], "nm")
    is_layer = _is_weight(right) and added.op == "placeholder" and rank_of(added) == 1 and not node.kwargs  # type: ignore[union-attr]
    return "product" if is_layer else "contract", [left, right, added], {"letters": letters}  # type: ignore[list-item]


def _is_weight(node: Any) -> bool:
    """Whether a value is handed to the network as it is, and all that is done with it are products with its columns."""
    return node.op == "placeholder" and rank_of(node) == 2 and all(right_factor(one) is node for one in node.users)


def right_factor(node: Node) -> Any:
    """What a product of matrices has on its right; None of other operations, and of a matrix times itself."""
    place = _RIGHT.get(node.target)
    factor = None if place is None else node.args[place]
    return factor if list(node.args).count(factor) == 1 else None


_RIGHT: dict[Any, int] = {operator("matmul.default"): 1, operator("mm.default"): 1, operator("addmm.default"): 2}
"""Products of matrices, and where their right factor stands among the arguments."""


def einsum(node: Node) -> Translation | None:
    """Einstein's notation itself; None where it leaves axes without letters, or repeats one in an input."""
    equation, inputs = node.args[:2]
    left, arrow, made = str(equation).replace(" ", "").partition("->")
    letters = left.split(",")
    if not arrow or "." in left or any(len(set(one)) < len(one) for one in letters):
        return None
    return "contract", list(inputs), {"letters": (*letters, made)}  # type: ignore[arg-type]


def attention(node: Node) -> Translation:
    """Queries, keys, values and what is added to their products; without a scale it is that of their features."""
    query, key, value = node.args[:3]
    batch = _batch(rank_of(query) - 2)
    mask: Any = node.args[3] if len(node.args) > 3 else node.kwargs.get("attn_mask")
    inputs, letters = [query, key, value], [batch + "nd", batch + "md", batch + "me"]
    if mask is not None:
        inputs.append(mask)
        letters.append((batch + "nm")[-rank_of(mask) :])
    scaled = node.kwargs.get("scale") is None
    return "contract", inputs, {"letters": (*letters, batch + "ne"), "scaled": scaled}  # type: ignore[dict-item]
