"""Codes in an ONNX model: weights stored as codes behind what turns them into float32, biases as int32 where needed.

Every exporter of quantized networks goes through here, so that all of them deliver the ledger's own codes.
"""

from collections.abc import Mapping, Sequence, Set

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from whit.data import Array
from whit.errors import ModelError
from whit.formats import Int
from whit.ledger import Ledger, Rounded, RoundedBias
from whit.onnx.initializers import LEVELS, Source, code_type, initializers

__all__ = ["dequantizing", "is_recurrent", "readers_of", "store_codes_"]

_MOVES = frozenset({"Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "MaxPool", "Identity"})
_GATES, _RECURRENT = frozenset({"Slice", "Concat", "Unsqueeze"}), frozenset({"LSTM", "GRU", "RNN"})
Readers = Mapping[str, list[onnx.NodeProto]]


def store_codes_(model: onnx.ModelProto, ledger: Ledger) -> set[str]:
    """Replace the initializers that the ledger rounds by its codes.

    Returns:
        The names of the initializers that hold codes and what belongs to them.

    Raises:
        ModelError: The exporter changed a weight, so that the codes are not those of the exported network.
    """
    stored: set[str] = set()
    makers = {node.output[0]: node for node in model.graph.node}
    readers = readers_of(model)
    for name, decision in ledger.rounded().items():
        _check_unchanged(model, name, decision.values())
        # Integer kernels read bytes; where floats are made of the codes first, two of them may fit in one.
        integers = any(_reads_integers(node, makers) for node in _followed(readers[name], readers, _MOVES))
        kind = code_type(decision, whole_bytes=integers)
        if _is_table(decision, kind, readers[name]):
            stored.update(_replace_in_gathers_(model, decision, kind, readers[name]))
            continue
        if not isinstance(decision.target, Int):
            replace_ = _replace_by_levels_
        elif integers and not is_recurrent(readers[name], readers):
            replace_ = _replace_by_integers_
        else:
            replace_ = _replace_by_arithmetic_
        stored.update(replace_(model, decision, kind))
    for name, decision in ledger.biases().items():
        if all(node.op_type in ("Conv", "Gemm") for node in readers[name]):
            _check_unchanged(model, name, decision.values())
            stored.update(_replace_bias_(model, decision))
    return stored


def _reads_integers(node: onnx.NodeProto, makers: dict[str, onnx.NodeProto]) -> bool:
    """Whether what a node reads was dequantized before, so that a runtime can run the node in integers."""
    maker = makers.get(node.input[0])
    while maker is not None and maker.op_type in _MOVES:
        maker = makers.get(maker.input[0])
    return maker is not None and maker.op_type == "DequantizeLinear"


def readers_of(model: onnx.ModelProto) -> Readers:
    """By the name of a value, the nodes that read it."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers


def _followed(nodes: Sequence[onnx.NodeProto], readers: Readers, through: Set[str]) -> list[onnx.NodeProto]:
    """The nodes, and whatever reads what those of some kinds make."""
    found = [*nodes]
    for node in found:
        if node.op_type in through:
            found += [reader for name in node.output for reader in readers.get(name, [])]
    return found


def is_recurrent(nodes: Sequence[onnx.NodeProto], readers: Readers) -> bool:
    """Whether a weight, its gates put in ONNX's order, goes into a recurrent layer and nowhere else."""
    ends = {node.op_type for node in _followed(nodes, readers, _GATES)} - _GATES
    return bool(ends) and ends <= _RECURRENT


def _check_unchanged(model: onnx.ModelProto, name: str, values: Array) -> None:
    item = next((item for item in model.graph.initializer if item.name == name), None)
    if item is None or not np.array_equal(numpy_helper.to_array(item), values):
        raise ModelError(
            f"the exporter merged or changed {name}, so its codes cannot be stored in the file; please report the "
            "architecture"
        )


def _replace_by_integers_(model: onnx.ModelProto, decision: Rounded, kind: int) -> list[str]:
    """Codes that are integers become weights in DequantizeLinear."""
    chain = _Chain(model, decision, kind)
    chain.then("DequantizeLinear", *chain.stored, **dequantizing(decision))
    _reshape_(chain, decision)
    return chain.finished_()


def dequantizing(decision: Rounded) -> dict[str, int]:
    """The attributes of a DequantizeLinear that makes a weight of its codes, but for the order of axes with groups."""
    match decision.target.per:
        case "tensor":
            return {}
        case "group":
            return {"axis": 1, "block_size": decision.target.block(decision.codes.shape[1])}
        case _:
            return {"axis": decision.axis}


def _replace_by_arithmetic_(model: onnx.ModelProto, decision: Rounded, kind: int) -> list[str]:
    """Codes that are integers become floats once, when a runtime opens the file.

    For layers that run in floating point: ONNX Runtime would run a DequantizeLinear in every call.
    """
    chain = _Chain(model, decision, kind)
    codes, scale, zero_point = chain.stored
    codes, zero_point = (chain.then("Cast", one, to=TensorProto.FLOAT) for one in (codes, zero_point))
    scale, zero_point = _spread(chain, decision, [scale, zero_point])
    chain.then("Mul", chain.then("Sub", codes, zero_point), scale)
    _reshape_(chain, decision)
    return chain.finished_()


def _is_table(decision: Rounded, kind: int, readers: list[onnx.NodeProto]) -> bool:
    """Whether a weight is bytes of which rows are looked up and nothing else is done with them."""
    whole = decision.target.per != "group" and decision.axis == 0 and len(decision.shape) == 2
    return (
        isinstance(decision.target, Int)
        and whole
        and kind in (TensorProto.INT8, TensorProto.UINT8)
        and all(
            node.op_type == "Gather"
            and node.input[0] == decision.parameter
            and not any(one.i for one in node.attribute)
            for node in readers
        )
    )


def _replace_in_gathers_(
    model: onnx.ModelProto, decision: Rounded, kind: int, gathers: list[onnx.NodeProto]
) -> list[str]:
    """Rows are looked up as codes and then dequantized: runtimes would dequantize the whole table in every call."""
    chain = _Chain(model, decision, kind)
    codes, scale, zero_point = chain.stored
    of_rows = decision.target.per != "tensor"
    last = chain.array("last", np.array([-1], np.int64)) if of_rows else ""
    for gather in gathers:
        chain.nodes = []
        rows, steps, zero = chain.then("Gather", codes, gather.input[1]), scale, zero_point
        if of_rows:
            steps, zero = (
                chain.then("Unsqueeze", chain.then("Gather", one, gather.input[1]), last) for one in (scale, zero_point)
            )
        # Not by DequantizeLinear: before a QuantizeLinear with another type ONNX Runtime 1.32 joins the two wrongly.
        parts = [chain.then("Cast", one, to=TensorProto.FLOAT) for one in (rows, zero)]
        chain.then("Mul", chain.then("Sub", *parts), steps)
        chain.replaces_(gather)
    return chain.stored


def _replace_by_levels_(model: onnx.ModelProto, decision: Rounded, kind: int) -> list[str]:
    """Codes become levels by a cast where ONNX has the format, else by a table; then the levels are scaled.

    A runtime does all this once, when it opens the file.
    """
    chain = _Chain(model, decision, kind)
    codes, *rest = chain.stored
    if rest and rest[0].endswith(LEVELS):
        chain.then("Gather", rest.pop(0), chain.then("Cast", codes, to=TensorProto.INT32))
    else:
        chain.then("Cast", codes, to=TensorProto.FLOAT)
    levels = chain.last
    if decision.target.per == "group":
        rest = _of_columns(chain, decision, rest)
    for scale in rest:
        chain.then("Mul", levels, scale)
    _reshape_(chain, decision)
    return chain.finished_()


def _spread(chain: "_Chain", decision: Rounded, names: list[str]) -> list[str]:
    """Scales or zero points, as they meet codes of a weight with output channels first."""
    match decision.target.per:
        case "tensor":
            return names
        case "group":
            return _of_columns(chain, decision, names)
        case _:
            axes = chain.array("axes", np.delete(np.arange(len(decision.shape)), decision.axis))
            return [chain.then("Unsqueeze", name, axes) for name in names]


def _of_columns(chain: "_Chain", decision: Rounded, names: list[str]) -> list[str]:
    """The scale or zero point of every column: that of the group ``column // block``."""
    columns = decision.codes.shape[1]
    first, end, step, block = (
        chain.array(suffix, np.array(value, np.int32))
        for suffix, value in zip(
            ("first", "end", "step", "block"), (0, columns, 1, decision.target.block(columns)), strict=True
        )
    )
    groups = chain.then("Div", chain.then("Range", first, end, step), block)
    return [chain.then("Gather", name, groups, axis=1) for name in names]


def _reshape_(chain: "_Chain", decision: Rounded) -> None:
    """Weights with groups are matrices so far, of one row an output channel."""
    if decision.target.per != "group":
        return
    axes = list(range(len(decision.shape)))
    first = [decision.axis, *(axis for axis in axes if axis != decision.axis)]
    shape = [decision.shape[axis] for axis in first]
    if shape != list(decision.codes.shape):
        chain.then("Reshape", chain.last, chain.array("shape", np.array(shape, np.int64)))
    if first != axes:
        chain.then("Transpose", chain.last, perm=[first.index(axis) for axis in axes])


def _replace_bias_(model: onnx.ModelProto, decision: RoundedBias) -> list[str]:
    """Integer kernels add the bias to int32 sums, so it is stored in their scale."""
    chain = _Chain(model, decision, TensorProto.INT32)
    chain.then("DequantizeLinear", *chain.stored, **({"axis": 0} if decision.scale.size > 1 else {}))
    return chain.finished_()


class _Chain:
    """What stands for a parameter in place of its initializer, and nodes that make the parameter of it.

    Attributes:
        stored: Names of the initializers that hold the decision.
        last: Name of what the last node makes.
    """

    def __init__(self, model: onnx.ModelProto, source: Source, kind: int) -> None:
        self.model = model
        self.name = source.parameter
        self.nodes: list[onnx.NodeProto] = []
        self.made = 0
        self.last = ""
        kept = [item for item in model.graph.initializer if item.name != self.name]
        del model.graph.initializer[:]
        made = list(initializers(source, kind))
        tensors = [helper.make_tensor(one.name, one.data_type, one.shape, one.raw, raw=True) for one in made]
        model.graph.initializer.extend([*kept, *tensors])
        self.stored = [one.name for one in made]

    def array(self, suffix: str, values: Array) -> str:
        """A small array of the exporter's own; gives its name."""
        item = numpy_helper.from_array(values, f"{self.name}:{suffix}")
        self.model.graph.initializer.append(item)
        return item.name

    def then(self, kind: str, *inputs: str, **attributes: int | list[int]) -> str:
        """One more node; gives the name of what it makes."""
        self.last = f"{self.name}:{self.made}"
        self.made += 1
        node = helper.make_node(kind, list(inputs), [self.last], name=self.last)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(node)
        return self.last

    def replaces_(self, node: onnx.NodeProto) -> None:
        """Let the nodes stand in place of one whose output the last of them makes."""
        output = node.output[0]
        self.nodes[-1].output[0] = output
        start = next(place for place, one in enumerate(self.model.graph.node) if output in one.output)
        del self.model.graph.node[start]
        for place, one in enumerate(self.nodes, start):
            self.model.graph.node.insert(place, one)

    def finished_(self) -> list[str]:
        """Give what the last node makes the parameter's name, and put the nodes before all others; gives ``stored``."""
        self.nodes[-1].output[0] = self.name
        for place, node in enumerate(self.nodes):
            self.model.graph.node.insert(place, node)
        return self.stored
