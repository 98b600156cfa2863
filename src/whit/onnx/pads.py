"""Zeros around images belong to the convolution that reads them: there, a runtime can run it in integers."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from whit.data import Array

__all__ = ["merge_pads_"]

_FILLS = {"Conv": 0.0, "MaxPool": -np.inf}
"""What operators take to be beyond the ends of their input."""


def merge_pads_(model: onnx.ModelProto) -> None:
    """Make ``Pad`` nodes attributes of the convolutions, and of the poolings by maximum, that read them.

    Amounts may differ between the two sides of an axis, which torch's own layers cannot say.
    """
    graph = model.graph
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    pads = {node.output[0]: node for node in graph.node if node.op_type == "Pad"}
    for node in graph.node:
        pad = pads.get(node.input[0]) if node.op_type in _FILLS else None
        if pad is not None and (amounts := _around(pad, constants, _FILLS[node.op_type])):
            _widen_(node, amounts)
            node.input[0] = pad.input[0]
    read = {name for node in graph.node for name in node.input} | {item.name for item in graph.output}
    gone = [node for node in pads.values() if node.output[0] not in read]
    for node in gone:
        graph.node.remove(node)


def _around(pad: onnx.NodeProto, constants: dict[str, Array], fill: float) -> list[int] | None:
    """How much a ``Pad`` puts before and after the axes behind the first two; None where it does anything else."""
    mode = next((item.s for item in pad.attribute if item.name == "mode"), b"constant")
    amounts, value = constants.get(pad.input[1]), 0.0
    if len(pad.input) > 2 and pad.input[2]:
        value = constants.get(pad.input[2], np.array(np.nan))
    if mode != b"constant" or amounts is None or any(pad.input[3:]) or float(value) != fill or (amounts < 0).any():
        return None
    rank = amounts.size // 2
    before, after = amounts[:rank].tolist(), amounts[rank:].tolist()
    return None if any(before[:2] + after[:2]) else before[2:] + after[2:]


def _widen_(node: onnx.NodeProto, amounts: list[int]) -> None:
    own = next((item for item in node.attribute if item.name == "pads"), None)
    if own is None:
        node.attribute.append(helper.make_attribute("pads", amounts))
    else:
        own.ints[:] = [a + b for a, b in zip(own.ints, amounts, strict=True)]
