"""Every decision as a table, and the arrays that belong to it."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from whit.data import Array
from whit.formats import pack_scales
from whit.ledger import (
    Assigned,
    Decision,
    Factored,
    Folded,
    Kept,
    Ledger,
    LeftOut,
    Masked,
    Plain,
    Rounded,
    RoundedActivation,
    RoundedBias,
    Scaled,
    Structure,
)
from whit.toml import to_table

__all__ = ["write_ledger"]

Keep = Callable[[str, Array], None]
"""Takes an array and its role; arrays of one role are alike."""


def write_ledger(ledger: Ledger, keep: Keep) -> list[dict[str, Any]]:
    """The ledger's decisions as tables; ``keep`` takes their arrays in order."""
    rounded = ledger.rounded()
    return [_write(decision, rounded, keep) for decision in ledger]


def _write(decision: Decision, rounded: Mapping[str, Rounded], keep: Keep) -> dict[str, Any]:
    match decision:
        case Masked(parameter=parameter, mask=mask):
            return {"kind": "masked", "parameter": parameter} | _write_mask(mask, rounded.get(parameter), keep)
        case Rounded(parameter=parameter, target=target, shape=sizes):
            about = {"parameter": parameter, "target": to_table(target), "shape": list(sizes), "axis": decision.axis}
            return {"kind": "rounded"} | about | _write_arrays(decision, keep)
        case RoundedActivation(tensor=tensor, target=target):
            about = {"kind": "rounded_activation", "tensor": tensor, "target": to_table(target)}
            return about | {"scale": _shortest(decision.scale), "zero_point": int(decision.zero_point)}
        case RoundedBias(parameter=parameter, weight=weight, tensor=tensor, codes=codes):
            keep("bias", codes)
            return {"kind": "rounded_bias", "parameter": parameter, "weight": weight, "tensor": tensor}
        case Assigned(parameter=parameter, values=values):
            keep(f"values of {parameter.rpartition('.')[2]}", values)
            return {"kind": "assigned", "parameter": parameter}
        case _:
            return _write_structure(decision, keep)


def _write_structure(decision: Structure, keep: Keep) -> dict[str, Any]:
    match decision:
        case Folded(batch_norm=batch_norm, into=into):
            return {"kind": "folded", "batch_norm": batch_norm, "into": into}
        case Plain(layer=layer, same=same):
            return {"kind": "plain", "layer": layer} | ({"same": True} if same else {})
        case Scaled(group=group, quarters=quarters, made=made, read=read, inputs=inputs):
            keep("quarters", quarters)
            spans = {key: [list(one) for one in places] for key, places in (("made", made), ("read", read))}
            return {"kind": "scaled", "group": group} | spans | ({"inputs": dict(inputs)} if inputs else {})
        case Kept(group=group, axes=axes, groups=groups, sizes=sizes):
            for indices in axes.values():
                keep("kept", indices)
            found = {"kind": "kept", "group": group, "axes": [list(key) for key in axes], "groups": dict(groups)}
            changes = {layer: [list(change) for change in one.items()] for layer, one in sizes.items()}
            return found | ({"sizes": changes} if changes else {})
        case LeftOut(branch=branch, identity=identity, zeros=zeros):
            return {"kind": "left_out", "branch": branch, "identity": list(identity), "zeros": list(zeros)}
        case Factored(layer=layer, form=form, ranks=ranks):
            return {"kind": "factored", "layer": layer, "form": form, "ranks": list(ranks)}


def _write_arrays(decision: Rounded, keep: Keep) -> dict[str, Any]:
    """Keep the arrays of a rounded weight; gives the fields that say more about them than the format does."""
    fields: dict[str, Any] = {}
    keep("", decision.codes)
    kind = decision.target.scale_format
    if kind in ("e8m0", "e4m3"):
        scale, unit = pack_scales(decision.scale, kind)
        keep(f"scale {kind}", scale)
        fields |= {"unit": unit} if kind == "e4m3" else {}
    else:
        keep("scale", decision.scale)
    if decision.zero_point.any():
        keep("zero_point", decision.zero_point)
        fields["zero_point"] = True
    if decision.codebook is not None:
        keep("codebook", decision.codebook)
    return fields


def _write_mask(mask: Any, rounded: Rounded | None, keep: Keep) -> dict[str, Any]:
    """What the codes of the same weight do not tell: a weight that is not zero was not masked."""
    if rounded is not None and rounded.shape == mask.shape:
        zero = rounded.zeros()
        if mask[~zero].all():
            if mask[zero].any():
                keep("", mask[zero])
                return {"from": "zeros"}
            return {"from": "codes"}
    keep("", mask)
    return {}


def _shortest(scale: Any) -> float:
    """The shortest decimal that is the same float32, where reading it as float64 first does not matter."""
    short = float(str(np.float32(scale)))
    return short if np.float32(short) == scale else float(scale)
