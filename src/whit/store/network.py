"""The network in a container: its ONNX graph, and from which of the ledger's arrays each of its weights comes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np

from whit.errors import FileError, ModelError
from whit.formats import Floats
from whit.ledger import Ledger, bias_codes, bias_scale
from whit.store.decisions import reading
from whit.store.onnx_graph import TYPES, Initializer, with_initializers

__all__ = ["join", "split"]

Recipe = list[dict[str, Any]]


def split(onnx_bytes: bytes, ledger: Ledger) -> tuple[bytes, Recipe]:
    """A serialized ONNX model without the weights that the ledger has, and where each comes from.

    Needs the ``onnx`` package. What the ledger does not have (small constants) stays in the graph.
    """
    import onnx
    from onnx import numpy_helper

    model = onnx.load_model_from_string(onnx_bytes)
    writer = _Writer(ledger)
    steps = _steps(model)
    kept: list[Any] = []
    recipe: Recipe = []
    for item in model.graph.initializer:
        values = numpy_helper.to_array(item)
        entry = writer.entry(item.name, item.data_type, tuple(item.dims), steps)
        if entry is None:
            kept.append(item)
            continue
        made = _initializer(entry, ledger)
        stored = Initializer.of(item.name, values.astype(np.int8) if made.data_type > 16 else values, made.data_type)
        if made != stored:
            raise ModelError(f"{item.name} in the exported graph is not what the ledger holds; this is a bug in whit")
        recipe.append(entry)
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    return model.SerializeToString(deterministic=True), recipe


def join(graph: bytes, recipe: Any, ledger: Ledger, path: Path) -> bytes:
    """The serialized ONNX model that ``split`` took apart.

    Raises:
        FileError: The recipe names what the ledger does not have.
    """
    if not isinstance(recipe, list):
        raise FileError(f"{path}: the network's weights are not a list")

    def initializers() -> Iterator[Initializer]:
        for place, entry in enumerate(cast(list[Any], recipe)):
            with reading(f"{path}, weight {place} of the network"):
                yield _initializer(entry, ledger)

    return with_initializers(graph, initializers())


def _steps(model: Any) -> dict[str, float]:
    """For every bias stored as int32, the scale of the input that its layer reads."""
    from onnx import numpy_helper

    scales = {item.name: item for item in model.graph.initializer}
    makers = {node.output[0]: node for node in model.graph.node}
    steps: dict[str, float] = {}
    for node in model.graph.node:
        maker = makers.get(node.input[0]) if node.op_type in ("Conv", "Gemm") else None
        if maker is not None and maker.op_type == "DequantizeLinear" and len(node.input) > 2:
            if maker.input[1] in scales:
                steps[node.input[2]] = float(numpy_helper.to_array(scales[maker.input[1]]).reshape(()))
    return steps


class _Writer:
    """Finds where the initializers of a graph come from."""

    def __init__(self, ledger: Ledger) -> None:
        self.assigned = ledger.assigned()
        self.rounded = ledger.rounded()
        self.biases = {name.rpartition(".")[0]: name for name in self.rounded}

    def entry(
        self, name: str, data_type: int, shape: tuple[int, ...], steps: dict[str, float]
    ) -> dict[str, Any] | None:
        of, _, part = name.rpartition(":")
        if name in self.assigned:
            return {"name": name, "from": "assigned", "of": name}
        if of in self.rounded and part in ("codes", "scale", "zero_point"):
            return {"name": name, "from": part, "of": of, "type": data_type, "shape": list(shape)}
        if of in self.assigned and part in ("int32", "scale") and of in steps:
            weight = self.biases.get(of.rpartition(".")[0])
            if weight is not None:
                return {"name": name, "from": f"bias {part}", "of": of, "weight": weight, "step": steps[of]}
        return None


def _initializer(entry: dict[str, Any], ledger: Ledger) -> Initializer:
    name, of, source = entry["name"], entry["of"], entry["from"]
    if source == "assigned":
        return Initializer.of(name, ledger.assigned()[of])
    if source in ("bias int32", "bias scale"):
        scale = bias_scale(entry["step"], ledger.rounded()[entry["weight"]])
        if source == "bias scale":
            return Initializer.of(name, scale if scale.size > 1 else scale.reshape(()))
        return Initializer.of(name, bias_codes(cast(Floats, ledger.assigned()[of]), scale))
    decision = ledger.rounded()[of]
    if source == "scale":
        return Initializer.of(name, decision.scale.reshape(entry["shape"]))
    values = decision.zero_point if source == "zero_point" else decision.codes
    if source == "codes" and decision.target.per != "group":
        values = decision.shaped(values)
    stored = np.uint8 if entry["type"] == TYPES["uint8"] else np.int8
    return Initializer.of(name, values.astype(stored).reshape(entry["shape"]), entry["type"])
