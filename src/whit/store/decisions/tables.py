"""What the tables of decisions say about the arrays that belong to them."""

from collections.abc import Mapping
from typing import Any, cast

__all__ = ["FIELDS", "OPTIONAL", "arrays_of"]

FIELDS = {
    "folded": {"batch_norm", "into"},
    "plain": {"layer"},
    "scaled": {"group", "made", "read"},
    "kept": {"group", "axes", "groups"},
    "left_out": {"branch", "identity", "zeros"},
    "factored": {"layer", "form", "ranks"},
    "masked": {"parameter"},
    "rounded": {"parameter", "target", "shape", "axis"},
    "rounded_activation": {"tensor", "target", "scale", "zero_point"},
    "rounded_bias": {"parameter", "weight", "tensor"},
    "assigned": {"parameter"},
}
"""What every table of a kind has, beside ``kind``."""
OPTIONAL = {
    "plain": {"same"},
    "scaled": {"inputs"},
    "kept": {"sizes"},
    "masked": {"from"},
    "rounded": {"zero_point", "unit"},
}
"""What it may have."""


def arrays_of(table: Mapping[str, Any]) -> list[str]:
    """What the arrays are that belong to a decision, in their order.

    Raises:
        ValueError: There is no such decision.
    """
    match table:
        case {"kind": "kept", "axes": axes}:
            return ["indices"] * len(axes)
        case {"kind": "scaled"}:
            return ["quarters"]
        case {"kind": "masked"}:
            return [] if table.get("from") == "codes" else ["mask"]
        case {"kind": "rounded"}:
            codebook = ["codebook"] if _has_codebook(table["target"]) else []
            return ["codes", "scale", *(["zero_point"] if "zero_point" in table else []), *codebook]
        case {"kind": "rounded_bias"}:
            return ["codes"]
        case {"kind": "assigned"}:
            return ["values"]
        case {"kind": "folded" | "plain" | "left_out" | "factored" | "rounded_activation"}:
            return []
        case _:
            raise ValueError(f"there is no decision like {str(table)[:80]}")


def _has_codebook(target: Any) -> bool:
    """Whether a format as a table is one of which weights have an array more."""
    return isinstance(target, Mapping) and cast(Mapping[str, Any], target).get("kind") == "codebook"
