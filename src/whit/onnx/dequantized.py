"""A model for converters of other runtimes, which keep codes of weights where a DequantizeLinear reads them."""

import onnx
from onnx import helper

from whit.formats import Int
from whit.ledger import Ledger
from whit.onnx.initializers import CODES, SCALE, ZERO_POINT
from whit.onnx.qdq import dequantizing, is_recurrent, readers_of
from whit.onnx.unused import drop_unused_

__all__ = ["by_dequantize_linear"]


def by_dequantize_linear(onnx_bytes: bytes, ledger: Ledger) -> bytes:
    """A serialized model in which every weight of integers is made by a DequantizeLinear, but those that are looked up.

    In whit's own files those of layers in floating point are made by arithmetic, which ONNX Runtime does once. Weights
    of recurrent layers stay so: no runtime has such layers in integers.
    """
    model = onnx.load_model_from_string(onnx_bytes)
    readers = readers_of(model)
    nodes = model.graph.node
    places = {node.output[0]: place for place, node in enumerate(nodes)}
    for name, decision in ledger.rounded().items():
        found = readers.get(f"{name}{CODES}", [])
        if not isinstance(decision.target, Int) or [node.op_type for node in found] != ["Cast"]:
            continue
        (difference,) = readers[found[0].output[0]]
        (product,) = readers[difference.output[0]]
        made = product.output[0]
        if is_recurrent(readers[made], readers):
            continue
        parts = [f"{name}{part}" for part in (CODES, SCALE, ZERO_POINT)]
        node = helper.make_node("DequantizeLinear", parts, [made])
        node.attribute.extend(helper.make_attribute(key, value) for key, value in dequantizing(decision).items())
        nodes[places[made]].CopyFrom(node)
    drop_unused_(model.graph)
    return model.SerializeToString(deterministic=True)
