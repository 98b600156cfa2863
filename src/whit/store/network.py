"""The network in a container: its ONNX graph, and as what each decision's values stand in it."""

from pathlib import Path
from typing import Any, cast

from whit.errors import FileError, ModelError
from whit.ledger import Assigned, Ledger, Rounded, RoundedBias
from whit.onnx.initializers import CODES, SUMS, Initializer, Source, initializers
from whit.store.fields import reading, whole
from whit.store.onnx_graph import with_initializers

__all__ = ["join", "split"]


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
        for made in initializers(source, kind):
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
            for one in initializers(source, whole(kind)):
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
            return [f"{name}{CODES}"]
        case RoundedBias(parameter=name):
            return [f"{name}{SUMS}", name]
        case Assigned(parameter=name):
            return [name]
