"""The network in a container: its ONNX graph, and as what each decision's values stand in it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np

from whit.errors import FileError, ModelError
from whit.formats import Float, Int
from whit.ledger import Assigned, Ledger, Rounded, RoundedBias
from whit.store.fields import reading, whole
from whit.store.onnx_graph import CODES, FLOATS, INTEGERS, TYPES, UINT4, Initializer, with_initializers

__all__ = ["join", "split"]

Source = Rounded | RoundedBias | Assigned
"""A decision that gives a parameter its values."""


def split(onnx_bytes: bytes, ledger: Ledger) -> tuple[bytes, list[int]]:
    """A serialized ONNX model without the weights that the ledger has, and as what each source stands in it.

    Needs the ``onnx`` package. What the ledger does not have (small constants) stays in the graph.

    Raises:
        ModelError: The graph holds other weights than the ledger.
    """
    import onnx

    model = onnx.load_model_from_string(onnx_bytes)
    items = {item.name: item for item in model.graph.initializer}
    weights: list[int] = []
    for source in _sources(ledger):
        kind = next((items[name].data_type for name in _names(source) if name in items), 0)
        weights.append(kind)
        for made in _initializers(source, kind):
            item = items.pop(made.name, None)
            if item is None or made != _as_it_stands(item):
                raise ModelError(
                    f"{made.name} in the exported graph is not what the ledger holds; this is a bug in whit"
                )
    kept = list(items.values())
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model.SerializeToString(deterministic=True), weights


def _as_it_stands(item: Any) -> Initializer:
    """An initializer of an ``onnx`` graph."""
    from onnx import numpy_helper

    raw = item.raw_data or Initializer.of(item.name, numpy_helper.to_array(item), item.data_type).raw
    return Initializer(name=item.name, shape=tuple(item.dims), data_type=item.data_type, raw=raw)


def join(graph: bytes, weights: Any, ledger: Ledger, path: Path) -> bytes:
    """The serialized ONNX model that ``split`` took apart.

    Raises:
        FileError: ``weights`` does not fit the ledger.
    """
    sources = _sources(ledger)
    if not isinstance(weights, list) or len(cast(list[Any], weights)) != len(sources):
        raise FileError(
            f"{path}: the network's weights are not a list of {len(sources)}, one for each source of values"
        )
    made: dict[str, Initializer] = {}
    for source, kind in zip(sources, cast(list[Any], weights), strict=True):
        with reading(f"{path}, {source.parameter} in the network"):
            for one in _initializers(source, whole(kind)):
                if one.name in made:
                    raise ValueError(f"{one.name} stands twice")
                made[one.name] = one
    return with_initializers(graph, made.values())


def _sources(ledger: Ledger) -> list[Source]:
    return [decision for decision in ledger.values if isinstance(decision, Rounded | RoundedBias | Assigned)]


def _names(source: Source) -> list[str]:
    """The initializers by whose type one sees as what a source stands in a graph."""
    match source:
        case Rounded(parameter=name):
            return [f"{name}:codes"]
        case RoundedBias(parameter=name):
            return [f"{name}:int32", name]
        case Assigned(parameter=name):
            return [name]


def _initializers(source: Source, kind: int) -> Iterator[Initializer]:
    """The initializers of a source that stands in a graph as an ONNX type, which is 0 where it does not.

    Raises:
        ValueError: The source cannot stand there as this.
    """
    name = source.parameter
    match source:
        case _ if kind == 0:
            return
        case Rounded():
            yield from _integers(source, kind) if isinstance(source.target, Int) else _levels(source, kind)
        case RoundedBias() if kind == TYPES["int32"]:
            scale = source.scale if source.scale.size > 1 else source.scale.reshape(())
            yield Initializer.of(f"{name}:int32", source.codes)
            yield Initializer.of(f"{name}:scale", scale)
        case RoundedBias() if kind == TYPES["float32"]:
            yield Initializer.of(name, source.values())
        case Assigned(values=values) if kind == TYPES[values.dtype.name]:
            yield Initializer.of(name, values)
        case _:
            raise ValueError(f"{type(source).__name__.lower()} values cannot be of ONNX type {kind}")


def _integers(source: Rounded, kind: int) -> Iterator[Initializer]:
    """Codes, scale and zero point, as DequantizeLinear reads them."""
    name, target = source.parameter, source.target
    integers, low, high = CODES[kind] if kind in INTEGERS else ("", 1, 0)
    if not low <= target.low <= target.high <= high:
        raise ValueError(f"codes of {target} do not fit into ONNX type {kind}")
    grouped = target.per == "group"
    layout = {"tensor": (), "channel": (source.scale.size,), "group": source.scale.shape}[target.per]
    codes = source.codes if grouped else source.shaped(source.codes)
    yield Initializer.of(f"{name}:codes", codes.astype(integers), kind)
    yield Initializer.of(f"{name}:scale", source.scale.reshape(layout))
    yield Initializer.of(f"{name}:zero_point", source.zero_point.reshape(layout).astype(integers), kind)


def _levels(source: Rounded, kind: int) -> Iterator[Initializer]:
    """Patterns of codes, their levels unless ONNX has the format, and the scale where it is not 1."""
    name, target = source.parameter, source.target
    table = target.table(source.codebook)
    native = FLOATS.get((target.exponent, target.mantissa)) if isinstance(target, Float) else None
    if kind != native and (kind not in (UINT4, TYPES["uint8"]) or table.size > CODES[kind][2] + 1):
        raise ValueError(f"codes of {target} do not fit into ONNX type {kind}")
    grouped = target.per == "group"
    patterns = target.patterns(source.codes)
    patterns = patterns if grouped else source.shaped(patterns)
    yield Initializer.of(f"{name}:codes", patterns.astype(CODES[kind][0]), kind)
    if kind != native:
        yield Initializer.of(f"{name}:levels", table)
    if grouped:
        yield Initializer.of(f"{name}:scale", source.scale)
    elif (source.scale != 1).any():
        layout = [source.scale.size if axis == source.axis else 1 for axis in range(len(source.shape))]
        yield Initializer.of(f"{name}:scale", source.scale.reshape(layout))
