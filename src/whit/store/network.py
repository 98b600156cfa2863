"""The network in a container: its ONNX graph, and from which of the ledger's arrays each of its weights comes."""

from pathlib import Path
from typing import Any, cast

import numpy as np

from whit.errors import FileError, ModelError
from whit.formats import Int
from whit.ledger import Ledger
from whit.store.fields import reading, shape, table, text, whole
from whit.store.onnx_graph import CODES, Initializer, with_initializers

__all__ = ["join", "split"]

Recipe = list[dict[str, Any]]

_SUFFIXES = {
    "assigned": "",
    "codes": ":codes",
    "scale": ":scale",
    "zero_point": ":zero_point",
    "levels": ":levels",
    "bias": "",
    "bias int32": ":int32",
    "bias scale": ":scale",
}
"""An initializer is named after the parameter that it is ``of``, with the suffix of where it is ``from``."""
_FIELDS: dict[str, set[str]] = {
    "assigned": set(),
    "codes": {"type", "shape"},
    "scale": {"shape"},
    "zero_point": {"type", "shape"},
    "levels": set(),
    "bias": set(),
    "bias int32": set(),
    "bias scale": set(),
}


def split(onnx_bytes: bytes, ledger: Ledger) -> tuple[bytes, Recipe]:
    """A serialized ONNX model without the weights that the ledger has, and where each comes from.

    Needs the ``onnx`` package. What the ledger does not have (small constants) stays in the graph.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load_model_from_string(onnx_bytes)
    weights = _Weights(ledger)
    kept: list[Any] = []
    recipe: Recipe = []
    for item in model.graph.initializer:
        entry = weights.entry(item.name, item.data_type, tuple(item.dims))
        if entry is None:
            kept.append(item)
            continue
        made = weights.initializer(entry)
        raw = item.raw_data or Initializer.of(item.name, numpy_helper.to_array(item)).raw
        stored = Initializer(name=item.name, shape=tuple(item.dims), data_type=item.data_type, raw=raw)
        if made != stored:
            raise ModelError(f"{item.name} in the exported graph is not what the ledger holds; this is a bug in whit")
        recipe.append(entry)
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model.SerializeToString(deterministic=True), recipe


def join(graph: bytes, recipe: Any, ledger: Ledger, path: Path) -> bytes:
    """The serialized ONNX model that ``split`` took apart.

    Raises:
        FileError: The recipe asks for what the ledger does not have, or for the same twice.
    """
    if not isinstance(recipe, list):
        raise FileError(f"{path}: the network's weights are not a list")
    weights = _Weights(ledger)
    made: dict[str, Initializer] = {}
    for place, entry in enumerate(cast(list[Any], recipe)):
        with reading(f"{path}, weight {place} of the network"):
            one = weights.initializer(entry)
            if one.name in made:
                raise ValueError(f"{one.name} stands twice")
            made[one.name] = one
    return with_initializers(graph, made.values())


class _Weights:
    """Where the initializers of a graph come from, and the initializers that come from there."""

    def __init__(self, ledger: Ledger) -> None:
        self.assigned = ledger.assigned()
        self.rounded = ledger.rounded()
        self.biases = ledger.biases()

    def entry(self, name: str, data_type: int, sizes: tuple[int, ...]) -> dict[str, Any] | None:
        """The recipe's entry for an initializer, or None if the ledger does not have it."""
        of, _, part = name.rpartition(":")
        if name in self.assigned:
            return {"from": "assigned", "of": name}
        if of in self.rounded and part == "levels":
            return {"from": part, "of": of}
        if of in self.rounded and part in ("codes", "scale", "zero_point"):
            kind = {} if part == "scale" else {"type": data_type}
            return {"from": part, "of": of, "shape": list(sizes)} | kind
        if of in self.biases and part in ("int32", "scale"):
            return {"from": f"bias {part}", "of": of}
        if name in self.biases:
            return {"from": "bias", "of": name}
        return None

    def initializer(self, entry: Any) -> Initializer:
        """The initializer that a recipe's entry describes.

        Raises:
            ValueError, KeyError, TypeError: The entry is not one, or asks for what the ledger does not have.
        """
        source = entry["from"]
        fields = table(entry, {"from", "of"} | _FIELDS[source])
        of = text(fields["of"])
        name = of + _SUFFIXES[source]
        if source == "assigned":
            return Initializer.of(name, self.assigned[of])
        if source.startswith("bias"):
            return self._bias(source, name, of)
        decision = self.rounded[of]
        if source == "levels":
            if isinstance(decision.target, Int):
                raise ValueError(f"{decision.target} has no table of levels")
            return Initializer.of(name, decision.target.table(decision.codebook))
        sizes = shape(fields["shape"])
        if source == "scale":
            return Initializer.of(name, decision.scale.reshape(sizes))
        kind = whole(fields["type"])
        dtype, low, high = CODES[kind]
        extremes = decision.target.patterns(np.array([decision.target.low, decision.target.high], np.int32))
        if not low <= extremes.min() <= extremes.max() <= high:
            raise ValueError(f"codes of {decision.target} do not fit into ONNX type {kind}")
        values = decision.zero_point if source == "zero_point" else decision.target.patterns(decision.codes)
        if source == "codes" and decision.target.per != "group":
            values = decision.shaped(values)
        return Initializer.of(name, values.astype(dtype).reshape(sizes), kind)

    def _bias(self, source: str, name: str, of: str) -> Initializer:
        decision = self.biases[of]
        if source == "bias int32":
            return Initializer.of(name, decision.codes)
        if source == "bias scale":
            return Initializer.of(name, decision.scale if decision.scale.size > 1 else decision.scale.reshape(()))
        return Initializer.of(name, decision.values())
