"""Tables and arrays of a stranger's file as decisions, each looked at before it is believed."""

from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any, cast

import numpy as np

from whit.data import Array
from whit.errors import FileError, listed
from whit.factors import FORMS
from whit.formats import Codebook, Floats, Format, Int, Integers, unpack_scales
from whit.ledger import (
    MOST_QUARTERS,
    Assigned,
    Axis,
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
    Span,
    Structure,
)
from whit.store.decisions.tables import FIELDS, OPTIONAL
from whit.store.fields import positive, reading, shape, table, text, whole
from whit.toml import from_table

__all__ = ["read_ledger"]

Fetch = Callable[[], Array]
"""Gives the arrays back in the order in which they were kept."""
Before = dict[tuple[type, str], Rounded | RoundedActivation]
"""What biases refer to, by kind and name."""


def read_ledger(tables: Any, fetch: Fetch, path: Path) -> Ledger:
    """The ledger that tables describe; ``fetch`` gives their arrays in order.

    Raises:
        FileError: A table is not a decision, its arrays do not fit it, or decisions do not fit each other.
    """
    if not isinstance(tables, list):
        raise FileError(f"{path}: its decisions are not a list")
    found: list[Decision] = []
    before: Before = {}
    incomplete: list[tuple[int, str, Any]] = []
    for place, fields in enumerate(cast(list[Any], tables)):
        with reading(f"{path}, decision {place}"):
            decision = _read(fields, fetch, before)
            if isinstance(decision, Masked) and "from" in fields:
                incomplete.append((place, fields["from"], decision))
            found.append(decision)
            if isinstance(decision, Rounded):
                before[Rounded, decision.parameter] = decision
            elif isinstance(decision, RoundedActivation):
                before[RoundedActivation, decision.tensor] = decision
    for place, source, masked in incomplete:
        with reading(f"{path}, decision {place}"):
            found[place] = _completed(masked, source, before.get((Rounded, masked.parameter)))
    with reading(f"{path}, decisions"):
        return _fitting(found)


def _completed(masked: Masked, source: str, rounded: Any) -> Masked:
    """A mask of which only what codes do not tell was stored."""
    if not isinstance(rounded, Rounded):
        raise ValueError(f"the mask of {masked.parameter} needs its codes, which the file does not hold")
    zero = rounded.zeros()
    mask = ~zero
    if source == "zeros":
        if masked.mask.shape != (np.count_nonzero(zero),):
            raise ValueError(f"{masked.mask.shape} values do not fit {np.count_nonzero(zero)} weights that are zero")
        mask[zero] = masked.mask
    return replace(masked, mask=mask)


def _fitting(found: list[Decision]) -> Ledger:
    """The ledger of decisions that are in replay order and agree on the shapes of what they are about."""
    ledger = Ledger().record(*found)
    if [id(decision) for decision in ledger] != [id(decision) for decision in found]:
        raise ValueError("they are not in replay order, or two of a kind are about one tensor")
    folded = [decision.batch_norm for decision in ledger.structure if isinstance(decision, Folded)]
    if len(set(folded)) < len(folded):
        raise ValueError("a batch normalisation is folded twice")
    plain = [decision.layer for decision in ledger.structure if isinstance(decision, Plain)]
    if len(set(plain)) < len(plain):
        raise ValueError("a layer becomes a plain one twice")
    factored = [decision.layer for decision in ledger.structure if isinstance(decision, Factored)]
    if len(set(factored)) < len(factored):
        raise ValueError("a layer is factored twice")
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
    if kind not in FIELDS:
        raise ValueError(f"there is no decision of kind {str(kind)[:40]!r}")
    fields = table(value, {"kind"} | FIELDS[kind], OPTIONAL.get(kind, set()))
    match kind:
        case "masked":
            return _masked(fields, fetch)
        case "rounded":
            return _rounded(fields, fetch)
        case "rounded_activation":
            return _rounded_activation(fields)
        case "rounded_bias":
            return _rounded_bias(fields, fetch, before)
        case "assigned":
            return Assigned(parameter=text(fields["parameter"]), values=fetch())
        case _:
            return _structure(kind, fields, fetch)


def _structure(kind: Any, fields: dict[str, Any], fetch: Fetch) -> Structure:
    match kind:
        case "folded":
            return Folded(batch_norm=text(fields["batch_norm"]), into=text(fields["into"]))
        case "plain":
            return _plain(fields)
        case "scaled":
            return _scaled(fields, fetch)
        case "kept":
            groups = {text(weight): whole(count, low=1) for weight, count in fields["groups"].items()}
            sizes = {text(layer): _sizes(layer, changes) for layer, changes in fields.get("sizes", {}).items()}
            return Kept(group=text(fields["group"]), axes=_axes(fields["axes"], fetch), groups=groups, sizes=sizes)
        case "left_out":
            identity, zeros = _names(fields["identity"]), _names(fields["zeros"])
            return LeftOut(branch=text(fields["branch"]), identity=identity, zeros=zeros)
        case _:
            return _factored(fields)


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{str(value)[:80]} is no list of names")
    return tuple(text(name) for name in cast(list[Any], value))


def _plain(fields: dict[str, Any]) -> Plain:
    same = fields.get("same", False)
    if not isinstance(same, bool):
        raise ValueError(f"a layer pads by the size of what it reads or not, and {str(same)[:40]!r} is neither")
    return Plain(layer=text(fields["layer"]), same=same)


def _factored(fields: dict[str, Any]) -> Factored:
    form = fields["form"]
    if form not in FORMS:
        raise ValueError(f"factors have the form {listed(FORMS)}, not {str(form)[:40]!r}")
    ranks = tuple(whole(rank, low=1) for rank in fields["ranks"])
    if len(ranks) != FORMS[form].ranks:
        raise ValueError(f"factors in the form {form} have {FORMS[form].ranks} ranks, not {len(ranks)}")
    return Factored(layer=text(fields["layer"]), form=form, ranks=ranks)


def _sizes(layer: str, changes: Any) -> dict[int, int]:
    found: dict[int, int] = {}
    for pair in changes:
        before, after = (whole(number, low=1) for number in pair)
        if before in found:
            raise ValueError(f"the size {before} of {layer!r} is changed twice")
        found[before] = after
    return found


def _scaled(fields: dict[str, Any], fetch: Fetch) -> Scaled:
    quarters: Integers = _of(fetch(), np.int32)
    if quarters.ndim != 1 or (np.clip(quarters, -MOST_QUARTERS, MOST_QUARTERS) != quarters).any():
        raise ValueError(f"factors of channels are {-MOST_QUARTERS} to {MOST_QUARTERS} quarters, in one row")
    made, read = (
        tuple(
            Span(text(name), whole(axis), whole(first), whole(each, low=1)) for name, axis, first, each in fields[key]
        )
        for key in ("made", "read")
    )
    inputs = {text(name): whole(behind) for name, behind in fields.get("inputs", {}).items()}
    return Scaled(group=text(fields["group"]), quarters=quarters, made=made, read=read, inputs=inputs)


def _axes(value: Any, fetch: Fetch) -> dict[Axis, Any]:
    axes: dict[Axis, Any] = {}
    for name, axis in value:
        key = Axis(text(name), whole(axis))
        if key in axes:
            raise ValueError(f"axis {axis} of {name} is cut twice")
        indices = _of(fetch(), np.int64)
        if indices.ndim != 1 or (indices.size and indices[0] < 0) or not (indices[1:] > indices[:-1]).all():
            raise ValueError("kept indices do not rise from 0")
        axes[key] = indices
    return axes


def _masked(fields: dict[str, Any], fetch: Fetch) -> Masked:
    """A mask, or that part of it which is stored."""
    source = fields.get("from")
    if source not in (None, "codes", "zeros") or ("from" in fields and source is None):
        raise ValueError(f"masks come from 'codes' or 'zeros', not from {str(source)[:40]!r}")
    mask = np.zeros(0, np.bool_) if source == "codes" else _of(fetch(), np.bool_)
    return Masked(parameter=text(fields["parameter"]), mask=mask)


def _rounded(fields: dict[str, Any], fetch: Fetch) -> Rounded:
    target = _format(fields["target"])
    sizes = shape(fields["shape"])
    codes: Integers = _of(fetch(), np.int32)
    scale = _scales(fields, target, fetch)
    zero_point: Integers = np.zeros(scale.shape, np.int32)
    if "zero_point" in fields:
        if fields["zero_point"] is not True:
            raise ValueError("zero_point is true, or is left away where all zero points are 0")
        zero_point = _of(fetch(), np.int32)
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
    codebook = _codebook(target, fetch) if isinstance(target, Codebook) else None
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


def _scales(fields: dict[str, Any], target: Format, fetch: Fetch) -> Floats:
    """The scales of a rounded weight, of which those of few bits are stored as integers."""
    kind = target.scale_format
    if (kind == "e4m3") != ("unit" in fields):
        raise ValueError("a unit goes with scales of e4m3, and only with them")
    if kind in ("float32", "one"):
        scale: Floats = _of(fetch(), np.float32)
        if kind == "one" and not (scale == 1).all():
            raise ValueError(f"the scale of {target} is 1")
        return scale
    unit = positive(fields["unit"]) if kind == "e4m3" else 1.0
    return unpack_scales(_of(fetch(), np.int32), unit, kind)


def _codebook(target: Codebook, fetch: Fetch) -> Floats:
    values: Floats = _of(fetch(), np.float32)
    if values.ndim != 1 or not 1 <= values.size <= target.k:
        raise ValueError(f"a codebook of shape {values.shape} does not fit {target}")
    if not np.isfinite(values).all() or not (values[1:] > values[:-1]).all():
        raise ValueError("the values of a codebook are not finite, or do not rise")
    return values


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
    codes: Integers = _of(fetch(), np.int32)
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
