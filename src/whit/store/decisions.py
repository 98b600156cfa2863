"""The ledger in a container: every decision as a table, its arrays by their place among the container's."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np

from whit import ledger as decisions
from whit.data import Array
from whit.errors import FileError, PlanError
from whit.formats import Floats, Int, Integers
from whit.ledger import Axis, Decision, Folded, Kept, Ledger, Masked, Rounded, RoundedActivation
from whit.toml import from_table, to_table

__all__ = ["read_ledger", "reading", "write_ledger"]

Keep = Callable[[Array], int]
Fetch = Callable[[Any], Array]


def write_ledger(ledger: Ledger, keep: Keep) -> list[dict[str, Any]]:
    """The ledger's decisions as tables; ``keep`` takes an array and gives its place."""
    return [_write(decision, keep) for decision in ledger]


def _write(decision: Decision, keep: Keep) -> dict[str, Any]:
    match decision:
        case Folded(batch_norm=batch_norm, into=into):
            return {"kind": "folded", "batch_norm": batch_norm, "into": into}
        case Kept(group=group, axes=axes):
            listed = [[key.parameter, key.axis, keep(indices)] for key, indices in axes.items()]
            return {"kind": "kept", "group": group, "axes": listed}
        case Masked(parameter=parameter, mask=mask):
            return {"kind": "masked", "parameter": parameter, "mask": keep(mask)}
        case Rounded(parameter=parameter, target=target, shape=shape):
            table = {
                "kind": "rounded",
                "parameter": parameter,
                "target": to_table(target),
                "shape": list(shape),
                "axis": decision.axis,
            }
            return table | {name: keep(getattr(decision, name)) for name in ("codes", "scale", "zero_point")}
        case RoundedActivation(tensor=tensor, target=target):
            table = {"kind": "rounded_activation", "tensor": tensor, "target": to_table(target)}
            return table | {"scale": float(decision.scale), "zero_point": int(decision.zero_point)}
        case decisions.Assigned(parameter=parameter, values=values):
            return {"kind": "assigned", "parameter": parameter, "values": keep(values)}


def read_ledger(tables: Any, fetch: Fetch, path: Path) -> Ledger:
    """The ledger that tables describe; ``fetch`` gives the array of a place.

    Raises:
        FileError: A table is not a decision, or its arrays do not fit it.
    """
    if not isinstance(tables, list):
        raise FileError(f"{path}: its decisions are not a list")
    found: list[Decision] = []
    for place, table in enumerate(cast(list[Any], tables)):
        with reading(f"{path}, decision {place}"):
            found.append(_read(table, fetch))
    return Ledger().record(*found)


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Whatever does not fit in what is read becomes an error that says where."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, PlanError) as error:
        raise FileError(f"{where}: is not what a .whit holds ({type(error).__name__}: {error})") from error


def _read(table: Mapping[str, Any], fetch: Fetch) -> Decision:
    match table["kind"]:
        case "folded":
            return Folded(batch_norm=_text(table["batch_norm"]), into=_text(table["into"]))
        case "kept":
            axes = {Axis(_text(name), int(axis)): _indices(fetch(place)) for name, axis, place in table["axes"]}
            return Kept(group=_text(table["group"]), axes=axes)
        case "masked":
            return Masked(parameter=_text(table["parameter"]), mask=_of(fetch(table["mask"]), np.bool_))
        case "rounded":
            return _rounded(table, fetch)
        case "rounded_activation":
            target = cast(Int, from_table(table["target"], Int))
            scale, zero = np.float32(table["scale"]), np.int32(table["zero_point"])
            if not (np.isfinite(scale) and scale > 0 and target.low <= zero <= target.high):
                raise ValueError(f"scale {scale} or zero point {zero} is not one of {target}")
            name = _text(table["tensor"])
            return RoundedActivation(tensor=name, target=target, scale=np.asarray(scale), zero_point=np.asarray(zero))
        case "assigned":
            return decisions.Assigned(parameter=_text(table["parameter"]), values=fetch(table["values"]))
        case kind:
            raise ValueError(f"there is no decision of kind {kind!r}")


def _rounded(table: Mapping[str, Any], fetch: Fetch) -> Rounded:
    target = cast(Int, from_table(table["target"], Int))
    shape = tuple(int(size) for size in table["shape"])
    codes: Integers = _of(fetch(table["codes"]), np.int32)
    scale: Floats = _of(fetch(table["scale"]), np.float32)
    zero_point: Integers = _of(fetch(table["zero_point"]), np.int32)
    rows, columns = codes.shape
    groups = -(-columns // target.block(columns)) if columns else 0
    expected = (1 if target.per == "tensor" else rows, groups)
    if scale.shape != expected or zero_point.shape != expected:
        raise ValueError(f"scales have shape {scale.shape}, zero points {zero_point.shape}; {expected} is needed")
    axis = int(table["axis"])
    if not 0 <= axis < len(shape) or shape[axis] != rows or int(np.prod(shape, dtype=np.int64)) != codes.size:
        raise ValueError(f"codes of shape {codes.shape} do not fill a weight of shape {shape}")
    if codes.size and not target.low <= int(codes.min()) <= int(codes.max()) <= target.high:
        raise ValueError(f"codes from {codes.min()} to {codes.max()} leave the grid of {target}")
    return Rounded(
        parameter=_text(table["parameter"]),
        target=target,
        shape=shape,
        axis=axis,
        codes=codes,
        scale=scale,
        zero_point=zero_point,
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a name")
    return value


def _of(array: Array, dtype: Any) -> Any:
    if array.dtype != dtype:
        raise TypeError(f"an array of {array.dtype} stands where {np.dtype(dtype)} is needed")
    return array


def _indices(array: Array) -> Any:
    indices = _of(array, np.int64)
    if indices.ndim != 1 or (indices.size and indices[0] < 0) or not (np.diff(indices) > 0).all():
        raise ValueError("kept indices do not rise from 0")
    return indices
