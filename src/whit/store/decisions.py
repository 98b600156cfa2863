"""The ledger in a container: every decision as a table, its arrays by their place among the container's."""

from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any, cast

import numpy as np

from whit.data import Array
from whit.errors import FileError
from whit.formats import Codebook, Floats, Format, Int, Integers, pack_scales, unpack_scales
from whit.ledger import Assigned, Axis, Decision, Folded, Kept, Ledger, Masked, Rounded, RoundedActivation, RoundedBias
from whit.store.fields import positive, reading, shape, table, text, whole
from whit.toml import from_table, to_table

__all__ = ["read_ledger", "write_ledger"]

Keep = Callable[[Array], int]
Fetch = Callable[[Any], Array]
Before = dict[tuple[type, str], Rounded | RoundedActivation]
"""What biases refer to, by kind and name."""

_FIELDS = {
    "folded": {"batch_norm", "into"},
    "kept": {"group", "axes", "groups"},
    "masked": {"parameter", "mask"},
    "rounded": {"parameter", "target", "shape", "axis", "codes", "scale", "zero_point"},
    "rounded_activation": {"tensor", "target", "scale", "zero_point"},
    "rounded_bias": {"parameter", "weight", "tensor", "codes"},
    "assigned": {"parameter", "values"},
}

_OPTIONAL = {"rounded": {"unit", "codebook"}}


def write_ledger(ledger: Ledger, keep: Keep) -> list[dict[str, Any]]:
    """The ledger's decisions as tables; ``keep`` takes an array and gives its place."""
    return [_write(decision, keep) for decision in ledger]


def _write(decision: Decision, keep: Keep) -> dict[str, Any]:
    match decision:
        case Folded(batch_norm=batch_norm, into=into):
            return {"kind": "folded", "batch_norm": batch_norm, "into": into}
        case Kept(group=group, axes=axes, groups=groups):
            listed = [[key.parameter, key.axis, keep(indices)] for key, indices in axes.items()]
            return {"kind": "kept", "group": group, "axes": listed, "groups": dict(groups)}
        case Masked(parameter=parameter, mask=mask):
            return {"kind": "masked", "parameter": parameter, "mask": keep(mask)}
        case Rounded(parameter=parameter, target=target, shape=sizes):
            about = {"parameter": parameter, "target": to_table(target), "shape": list(sizes), "axis": decision.axis}
            scale, unit = _packed(decision)
            arrays = {"codes": keep(decision.codes), "scale": keep(scale), "zero_point": keep(decision.zero_point)}
            codebook = {} if decision.codebook is None else {"codebook": keep(decision.codebook)}
            return {"kind": "rounded"} | about | arrays | unit | codebook
        case RoundedActivation(tensor=tensor, target=target):
            about = {"kind": "rounded_activation", "tensor": tensor, "target": to_table(target)}
            return about | {"scale": float(decision.scale), "zero_point": int(decision.zero_point)}
        case RoundedBias(parameter=parameter, weight=weight, tensor=tensor, codes=codes):
            about = {"kind": "rounded_bias", "parameter": parameter, "weight": weight, "tensor": tensor}
            return about | {"codes": keep(codes)}
        case Assigned(parameter=parameter, values=values):
            return {"kind": "assigned", "parameter": parameter, "values": keep(values)}


def _packed(decision: Rounded) -> tuple[Array, dict[str, float]]:
    """Scales as they are stored, and the unit of those that have one."""
    kind = decision.target.scale_format
    if kind not in ("e8m0", "e4m3"):
        return decision.scale, {}
    codes, unit = pack_scales(decision.scale, kind)
    return codes, {"unit": unit} if kind == "e4m3" else {}


def _scales(fields: dict[str, Any], target: Format, stored: Array) -> Floats:
    """The scales that ``_packed`` took."""
    kind = target.scale_format
    if (kind == "e4m3") != ("unit" in fields):
        raise ValueError("a unit goes with scales of e4m3, and only with them")
    if kind in ("float32", "one"):
        scale: Floats = _of(stored, np.float32)
        if kind == "one" and not (scale == 1).all():
            raise ValueError(f"the scale of {target} is 1")
        return scale
    return unpack_scales(_of(stored, np.int32), positive(fields["unit"]) if kind == "e4m3" else 1.0, kind)


def _codebook(fields: dict[str, Any], target: Format, fetch: Fetch) -> Floats | None:
    if isinstance(target, Codebook) != ("codebook" in fields):
        raise ValueError("a codebook goes with codes of it, and only with them")
    if "codebook" not in fields:
        return None
    values: Floats = _of(fetch(fields["codebook"]), np.float32)
    if values.ndim != 1 or not 1 <= values.size <= target.high + 1:
        raise ValueError(f"a codebook of shape {values.shape} does not fit {target}")
    if not np.isfinite(values).all() or not (values[1:] > values[:-1]).all():
        raise ValueError("the values of a codebook are not finite, or do not rise")
    return values


def read_ledger(tables: Any, fetch: Fetch, path: Path) -> Ledger:
    """The ledger that tables describe; ``fetch`` gives the array of a place.

    Raises:
        FileError: A table is not a decision, its arrays do not fit it, or decisions do not fit each other.
    """
    if not isinstance(tables, list):
        raise FileError(f"{path}: its decisions are not a list")
    found: list[Decision] = []
    before: Before = {}
    for place, fields in enumerate(cast(list[Any], tables)):
        with reading(f"{path}, decision {place}"):
            decision = _read(fields, fetch, before)
            found.append(decision)
            if isinstance(decision, Rounded):
                before[Rounded, decision.parameter] = decision
            elif isinstance(decision, RoundedActivation):
                before[RoundedActivation, decision.tensor] = decision
    with reading(f"{path}, decisions"):
        return _fitting(found)


def _fitting(found: list[Decision]) -> Ledger:
    """The ledger of decisions that are in replay order and agree on the shapes of what they are about."""
    ledger = Ledger().record(*found)
    if [id(decision) for decision in ledger] != [id(decision) for decision in found]:
        raise ValueError("they are not in replay order, or two of a kind are about one tensor")
    folded = [decision.batch_norm for decision in ledger.structure if isinstance(decision, Folded)]
    if len(set(folded)) < len(folded):
        raise ValueError("a batch normalisation is folded twice")
    shapes: dict[str, tuple[int, ...]] = {}
    for decision in ledger.values:
        match decision:
            case Masked(parameter=name, mask=array) | Assigned(parameter=name, values=array):
                found_shape = array.shape
            case Rounded(parameter=name, shape=found_shape):
                pass
            case RoundedBias(parameter=name, codes=array):
                found_shape = array.shape
            case RoundedActivation():
                continue
        if shapes.setdefault(name, found_shape) != found_shape:
            raise ValueError(f"{name} has the shape {shapes[name]} in one and {found_shape} in another")
    return ledger


def _read(value: Any, fetch: Fetch, before: Before) -> Decision:
    kind = value["kind"]
    if kind not in _FIELDS:
        raise ValueError(f"there is no decision of kind {str(kind)[:40]!r}")
    fields = table(value, {"kind"} | _FIELDS[kind], _OPTIONAL.get(kind, frozenset()))
    match kind:
        case "folded":
            return Folded(batch_norm=text(fields["batch_norm"]), into=text(fields["into"]))
        case "kept":
            groups = {text(weight): whole(count, low=1) for weight, count in fields["groups"].items()}
            return Kept(group=text(fields["group"]), axes=_axes(fields["axes"], fetch), groups=groups)
        case "masked":
            return Masked(parameter=text(fields["parameter"]), mask=_of(fetch(fields["mask"]), np.bool_))
        case "rounded":
            return _rounded(fields, fetch)
        case "rounded_activation":
            return _rounded_activation(fields)
        case "rounded_bias":
            return _rounded_bias(fields, fetch, before)
        case _:
            return Assigned(parameter=text(fields["parameter"]), values=fetch(fields["values"]))


def _axes(value: Any, fetch: Fetch) -> dict[Axis, Any]:
    axes: dict[Axis, Any] = {}
    for name, axis, place in value:
        key = Axis(text(name), whole(axis))
        if key in axes:
            raise ValueError(f"axis {axis} of {name} is cut twice")
        indices = _of(fetch(place), np.int64)
        if indices.ndim != 1 or (indices.size and indices[0] < 0) or not (indices[1:] > indices[:-1]).all():
            raise ValueError("kept indices do not rise from 0")
        axes[key] = indices
    return axes


def _rounded(fields: dict[str, Any], fetch: Fetch) -> Rounded:
    target = _format(fields["target"])
    sizes = shape(fields["shape"])
    codes: Integers = _of(fetch(fields["codes"]), np.int32)
    scale = _scales(fields, target, fetch(fields["scale"]))
    zero_point: Integers = _of(fetch(fields["zero_point"]), np.int32)
    rows, columns = codes.shape
    groups = -(-columns // target.block(columns)) if columns else 0
    expected = (1 if target.per == "tensor" else rows, groups)
    if scale.shape != expected or zero_point.shape != expected:
        raise ValueError(f"scales have shape {scale.shape}, zero points {zero_point.shape}; {expected} is needed")
    axis = whole(fields["axis"])
    if axis >= len(sizes) or sizes[axis] != rows or prod(sizes) != codes.size:
        raise ValueError(f"codes of shape {codes.shape} do not fill a weight of shape {sizes}")
    if not (np.isfinite(scale) & (scale > 0)).all():
        raise ValueError("a scale is not finite and positive")
    if not target.are_codes(codes):
        raise ValueError(f"codes from {codes.min()} to {codes.max()} leave the grid of {target}")
    least, most = (target.low, target.high) if isinstance(target, Int) else (0, 0)
    if zero_point.size and not least <= int(zero_point.min()) <= int(zero_point.max()) <= most:
        raise ValueError(f"zero points from {zero_point.min()} to {zero_point.max()} leave the grid of {target}")
    codebook = _codebook(fields, target, fetch)
    if codebook is not None and codes.size and int(codes.max()) >= codebook.size:
        raise ValueError(f"the code {codes.max()} is not one of {codebook.size} values")
    return Rounded(
        parameter=text(fields["parameter"]),
        target=target,
        shape=sizes,
        axis=axis,
        codes=codes,
        scale=scale,
        zero_point=zero_point,
        codebook=codebook,
    )


def _rounded_activation(fields: dict[str, Any]) -> RoundedActivation:
    target = _format(fields["target"])
    if not isinstance(target, Int) or target.per != "tensor" or target.scale != "float32" or target.bits < 2:
        raise ValueError(f"activations are integers of 2 bits or more with one scale a tensor, not {target}")
    zero_point = whole(fields["zero_point"], target.low, target.high)
    return RoundedActivation(
        tensor=text(fields["tensor"]),
        target=target,
        scale=np.asarray(positive(fields["scale"]), np.float32),
        zero_point=np.asarray(zero_point, np.int32),
    )


def _rounded_bias(fields: dict[str, Any], fetch: Fetch, before: Before) -> RoundedBias:
    """A bias, whose scale is that of the weight and the activation which were read before it."""
    name, weight, tensor = (text(fields[key]) for key in ("parameter", "weight", "tensor"))
    rounded, activation = before.get((Rounded, weight)), before.get((RoundedActivation, tensor))
    if not isinstance(rounded, Rounded) or not isinstance(activation, RoundedActivation):
        raise ValueError(f"the bias {name} needs the rounded {weight} and {tensor} before it")
    if rounded.target.per == "group":
        raise ValueError(f"{weight} has a scale a group, so its bias {name} has no scale of its own")
    codes: Integers = _of(fetch(fields["codes"]), np.int32)
    if codes.shape != rounded.codes.shape[:1]:
        raise ValueError(f"codes of shape {codes.shape} are no bias of {weight}, {rounded.codes.shape[0]} channels")
    scale = RoundedBias.scale_of(rounded, activation)
    if (np.abs(codes.astype(np.float64)) * scale > np.finfo(np.float32).max).any():
        raise ValueError(f"the bias {name} is no float32")
    return RoundedBias(parameter=name, weight=weight, tensor=tensor, codes=codes, scale=scale)


def _format(value: Any) -> Format:
    """A number format; the kinds of others, which a plan may name, are not looked up for a file."""
    if not isinstance(value, dict) or cast(dict[str, Any], value).get("kind") not in ("int", "float", "codebook"):
        raise ValueError(f"{str(value)[:80]} is not a number format")
    return cast(Format, from_table(value, Format))


def _of(array: Array, dtype: Any) -> Any:
    if array.dtype != dtype:
        raise ValueError(f"an array of {array.dtype} stands where {np.dtype(dtype)} is needed")
    return array
