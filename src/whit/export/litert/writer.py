"""The values of a network while it is translated: as floats or as codes, with channels where ONNX or LiteRT has them.

ONNX has channels on the axis behind the batch, LiteRT on the last. A value keeps the order in which it was made, and is
transposed when someone asks for the other; so a chain of layers of images is transposed once, where it begins.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from whit.data import Array
from whit.errors import ModelError
from whit.export.litert.flatbuffer import Flatbuffer, Grid
from whit.export.litert.reading import Node, Traced

__all__ = ["FLOAT", "Ending", "Value", "Writer"]

FLOAT = "float32"
_ACTIVATIONS = {(0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1"}


@dataclass(kw_only=True, slots=True, eq=False)
class Value:
    """What a name of the ONNX graph stands for.

    Attributes:
        shape: In ONNX's order, for one sample.
        dtype: Of the values; of those that have a grid, ``"float32"``.
        grid: What codes stand for, where there are codes.
        array: Of a constant: its codes where it has a grid, else its values.
        forms: Tensors that hold it, by whether they are codes and whether channels are last.
    """

    shape: tuple[int, ...]
    dtype: str = FLOAT
    grid: Grid | None = None
    array: Array | None = None
    forms: dict[tuple[bool, bool], int] = field(default_factory=dict[tuple[bool, bool], int])

    @property
    def last(self) -> bool:
        """Whether all tensors that hold it have channels on the last axis."""
        return bool(self.forms) and all(last for _, last in self.forms)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """How an operator ends once what follows it is merged into it.

    Attributes:
        name: Of the value that it makes then.
        activation: ``"NONE"``, ``"RELU"``, ...
        grid: Of its codes; None where it makes floats.
    """

    name: str
    activation: str
    grid: Grid | None


class Writer:
    """A file in the making, and the values that are known so far."""

    def __init__(self, traced: Traced) -> None:
        """Begin with the inputs and the constants."""
        self.file = Flatbuffer()
        self.traced = traced
        self.merged: set[str] = set()
        self.readers: dict[str, list[Node]] = {}
        for node in traced.nodes:
            for name in node.inputs:
                self.readers.setdefault(name, []).append(node)
        self.values = {
            name: Value(shape=array.shape, dtype=array.dtype.name, array=array)
            for name, array in traced.constants.items()
        }

    def input(self, name: str, dtype: str) -> int:
        """An input of the network."""
        shape = self.traced.shapes[name]
        place = self.file.tensor(shape, dtype, name=name)
        self.values[name] = Value(shape=shape, dtype=dtype, forms={(False, False): place})
        return place

    def array(self, name: str) -> Array:
        """The values of a constant.

        Raises:
            ModelError: It is none.
        """
        value = self.values[name]
        if value.array is None or value.grid is not None:
            raise ModelError("LiteRT wants to know it before the network runs, and it depends on the inputs")
        return value.array

    def has_codes(self, name: str) -> bool:
        """Whether a value that depends on the inputs is there as codes."""
        value = self.values[name]
        return value.grid is not None and value.array is None

    def get(self, name: str, *, codes: bool = False, last: bool = False) -> int:
        """A tensor that holds a value as asked, made where there is none yet."""
        value = self.values[name]
        return self._form(value, codes, last and len(value.shape) > 2)

    def _form(self, value: Value, codes: bool, last: bool) -> int:
        if (codes, last) not in value.forms:
            if value.array is not None and codes == (value.grid is not None):
                value.forms[codes, last] = self._constant(value, last)
            elif (codes, not last) in value.forms:
                value.forms[codes, last] = self._transposed(value, codes, last)
            else:  # floats of codes, in the order that these have
                order = last if value.array is not None or (True, last) in value.forms else not last
                floats = self.file.tensor(_ordered(value.shape, order), FLOAT)
                value.forms[False, order] = floats
                self.file.operator("DEQUANTIZE", [self._form(value, True, order)], floats)
                return self._form(value, codes, last)
        return value.forms[codes, last]

    def _transposed(self, value: Value, codes: bool, last: bool) -> int:
        order = _order(len(value.shape))
        order = np.array(order if last else np.argsort(order), np.int32)
        dtype, grid = ("int8", value.grid) if codes else (value.dtype, None)
        place = self.file.tensor(_ordered(value.shape, last), dtype, grid)
        inputs = [value.forms[codes, not last], self.file.constant(order)]
        return self.file.operator("TRANSPOSE", inputs, place, "TransposeOptions")

    def _constant(self, value: Value, last: bool) -> int:
        assert value.array is not None
        array, grid = value.array, value.grid
        if last:
            order = _order(array.ndim)
            array = array.transpose(order)
            grid = (
                None
                if grid is None
                else Grid(scale=grid.scale, zero_point=grid.zero_point, axis=order.index(grid.axis))
            )
        return self.file.constant(array, grid)

    def make(
        self,
        ending: Ending | str,
        kind: str,
        inputs: Sequence[int],
        options: str = "",
        *,
        last: bool = False,
        **rest: Any,
    ) -> None:
        """An operator that makes a value: of an ending, or floats of the name."""
        name, grid = (ending, None) if isinstance(ending, str) else (ending.name, ending.grid)
        shape = self.traced.shapes[name]
        last = last and len(shape) > 2
        place = self.file.tensor(_ordered(shape, last), FLOAT if grid is None else "int8", grid)
        self.file.operator(kind, inputs, place, options, **rest)
        self.values[name] = Value(shape=shape, grid=grid, forms={(grid is not None, last): place})

    def move(
        self,
        node: Node,
        kind: str,
        others: Sequence[int],
        options: str = "",
        *,
        before: bool = False,
        last: bool = False,
        **rest: Any,
    ) -> None:
        """An operator that hands on what its first input holds: codes where there are codes, on the same grid.

        ``before`` and ``last`` say whether channels are last in what it reads, and in both.
        """
        source = self.values[node.inputs[0]]
        codes = self.has_codes(node.inputs[0])
        first = self.get(node.inputs[0], codes=codes, last=before or last)
        shape = self.traced.shapes[node.output]
        last = last and len(shape) > 2
        dtype, grid = ("int8", source.grid) if codes else (source.dtype, None)
        place = self.file.tensor(_ordered(shape, last), dtype, grid)
        self.file.operator(kind, [first, *others], place, options, **rest)
        self.values[node.output] = Value(shape=shape, dtype=source.dtype, grid=grid, forms={(codes, last): place})

    def ending(self, node: Node, *, integers: bool, activations: bool = True) -> Ending:
        """What an operator makes once an activation behind it, and in integers a rounding behind that, are merged."""
        name, activation, grid = node.output, "NONE", None
        after = self._only_reader(name)
        if activations and after is not None and (found := self._activation(after)):
            name, activation = after.output, found
            self.merged.add(name)
            after = self._only_reader(name)
        if integers and after is not None and after.operator == "QuantizeLinear":
            name, grid = after.output, self.grid(after)
            self.merged.add(name)
        return Ending(name=name, activation=activation, grid=grid)

    def grid(self, node: Node) -> Grid:
        """Of a QuantizeLinear of an activation, for codes that are signed: LiteRT's bytes are."""
        scale, zero_point = (self.array(name) for name in node.inputs[1:3])
        if zero_point.dtype != np.uint8:
            raise ModelError(f"LiteRT has activations of 8 bits, and not of {8 * zero_point.itemsize}")
        return Grid.of(scale.reshape(-1), zero_point.astype(np.int64).reshape(-1) - 128)

    def activation(self, ending: Ending) -> int:
        """What the schema calls an ending's activation."""
        return getattr(self.file.schema.ActivationFunctionType, ending.activation)

    def _only_reader(self, name: str) -> Node | None:
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 and name != self.traced.output else None

    def _activation(self, node: Node) -> str:
        """The activation that a node is, or ``""``."""
        if node.operator == "Relu":
            return "RELU"
        if node.operator == "Clip" and len(node.inputs) == 3:
            low, high = (self.traced.constants.get(name) for name in node.inputs[1:])
            if low is not None and high is not None:
                return _ACTIVATIONS.get((float(low), float(high)), "")
        return ""


def _order(rank: int) -> tuple[int, ...]:
    """The axes of ONNX in LiteRT's order."""
    return (0, *range(2, rank), 1)


def _ordered(shape: tuple[int, ...], last: bool) -> tuple[int, ...]:
    return tuple(shape[axis] for axis in _order(len(shape))) if last else shape
