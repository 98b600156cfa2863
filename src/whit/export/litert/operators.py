"""How LiteRT says what an operator of ONNX computes: one function an operator."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from whit.errors import ModelError
from whit.export.litert.flatbuffer import Grid
from whit.export.litert.layers import convolution, gemm, matmul, pool
from whit.export.litert.reading import Node
from whit.export.litert.writer import Ending, Value, Writer

__all__ = ["OPERATORS"]

Rule = Callable[[Writer, Node], None]
_BINARY = {
    "Add": ("ADD", "AddOptions"),
    "Sub": ("SUB", "SubOptions"),
    "Mul": ("MUL", "MulOptions"),
    "Div": ("DIV", "DivOptions"),
}
_UNARY = {
    "Relu": "RELU",
    "Sigmoid": "LOGISTIC",
    "Tanh": "TANH",
    "HardSwish": "HARD_SWISH",
    "Exp": "EXP",
    "Log": "LOG",
    "Sqrt": "SQRT",
    "Neg": "NEG",
    "Abs": "ABS",
}


def quantize(writer: Writer, node: Node) -> None:
    """Floats become codes."""
    value = writer.values[node.inputs[0]]
    last = value.last
    codes = writer.has_codes(node.inputs[0])
    ending = Ending(name=node.output, activation="NONE", grid=writer.grid(node))
    writer.make(ending, "QUANTIZE", [writer.get(node.inputs[0], codes=codes, last=last)], "QuantizeOptions", last=last)


def dequantize(writer: Writer, node: Node) -> None:
    """Codes are known by their grid; of weights they are constants."""
    source = writer.values[node.inputs[0]]
    if source.array is None:
        writer.values[node.output] = source
        return
    scale = writer.array(node.inputs[1])
    zero_point = writer.array(node.input(2)).astype(np.int64) if node.input(2) else 0
    grid = Grid.of(scale, zero_point, int(node.attributes.get("axis", 1)) if scale.ndim else 0)
    codes = source.array if source.array.dtype == np.int32 else source.array.astype(np.int8)
    writer.values[node.output] = Value(shape=codes.shape, grid=grid, array=codes)


def binary(writer: Writer, node: Node) -> None:
    """Sums, differences, products and quotients, in integers where both sides are codes and a rounding follows."""
    kind, options = _BINARY[node.operator]
    integers = kind != "DIV" and all(writer.has_codes(name) for name in node.inputs)
    ending = writer.ending(node, integers=integers)
    values = [writer.values[name] for name in node.inputs]
    rank = max(len(value.shape) for value in values)
    # Values with fewer axes are spread over the last ones of ONNX's order.
    last = any(value.last for value in values) and all(len(value.shape) in (0, rank) for value in values)
    inputs = [writer.get(name, codes=ending.grid is not None, last=last) for name in node.inputs]
    writer.make(ending, kind, inputs, options, last=last, fusedActivationFunction=writer.activation(ending))


def unary(writer: Writer, node: Node) -> None:
    """What is done to each number alone, in floats."""
    last = writer.values[node.inputs[0]].last
    writer.make(node.output, _UNARY[node.operator], [writer.get(node.inputs[0], last=last)], last=last)


def gelu(writer: Writer, node: Node) -> None:
    """The Gaussian error linear unit."""
    close = node.attributes.get("approximate", b"none") == b"tanh"
    writer.make(node.output, "GELU", [writer.get(node.inputs[0])], "GeluOptions", approximate=close)


def clip(writer: Writer, node: Node) -> None:
    """Between two numbers."""
    last = writer.values[node.inputs[0]].last
    bounds = [writer.array(name) if name else None for name in (node.input(1), node.input(2))]
    low, high = (
        None if bound is None else writer.file.constant(bound.astype(np.float32).reshape(())) for bound in bounds
    )
    place = writer.get(node.inputs[0], last=last)
    if low is not None and high is not None:
        between = writer.file.tensor(writer.file.tensors[place].shape, "float32")
        place = writer.file.operator("MAXIMUM", [place, low], between, "MaximumMinimumOptions")
    kind, bound = ("MAXIMUM", low) if high is None else ("MINIMUM", high)
    assert bound is not None
    writer.make(node.output, kind, [place, bound], "MaximumMinimumOptions", last=last)


def softmax(writer: Writer, node: Node) -> None:
    """Over the last axis."""
    rank = len(writer.traced.shapes[node.output])
    if node.attributes.get("axis", -1) % rank != rank - 1:
        raise ModelError("LiteRT has softmax over the last axis; transpose before it")
    writer.make(node.output, "SOFTMAX", [writer.get(node.inputs[0])], "SoftmaxOptions", beta=1.0)


def concat(writer: Writer, node: Node) -> None:
    """In integers where all parts are codes and a rounding follows, each part brought to the sum's grid first."""
    ending = writer.ending(node, integers=all(writer.has_codes(name) for name in node.inputs), activations=False)
    last = all(writer.values[name].last for name in node.inputs)
    shape = writer.traced.shapes[node.output]
    axis = node.attributes["axis"] % len(shape)
    axis = _places(len(shape), last)[axis]
    inputs = [writer.get(name, codes=ending.grid is not None, last=last) for name in node.inputs]
    if ending.grid is not None:
        inputs = [_requantized(writer, place, ending.grid) for place in inputs]
    writer.make(ending, "CONCATENATION", inputs, "ConcatenationOptions", last=last, axis=axis)


def _requantized(writer: Writer, place: int, grid: Grid) -> int:
    tensor = writer.file.tensors[place]
    found = tensor.quantization
    if np.array_equal(found.scale, grid.scale) and np.array_equal(found.zeroPoint, grid.zero_point):
        return place
    return writer.file.operator("QUANTIZE", [place], writer.file.tensor(tensor.shape, "int8", grid), "QuantizeOptions")


def mean(writer: Writer, node: Node) -> None:
    """Over axes that are given, or over all of an image."""
    rank = len(writer.values[node.inputs[0]].shape)
    if node.operator == "GlobalAveragePool":
        axes, keep = list(range(2, rank)), True
    else:
        axes = [int(axis) % rank for axis in writer.array(node.inputs[1])]
        keep = bool(node.attributes.get("keepdims", 1))
    ending = writer.ending(node, integers=writer.has_codes(node.inputs[0]), activations=False)
    last = writer.values[node.inputs[0]].last and (keep or set(axes) >= set(range(2, rank)))
    places = np.array(sorted(_places(rank, last)[axis] for axis in axes), np.int32)
    inputs = [writer.get(node.inputs[0], codes=ending.grid is not None, last=last), writer.file.constant(places)]
    writer.make(ending, "MEAN", inputs, "ReducerOptions", last=last and keep, keepDims=keep)


def reshape(writer: Writer, node: Node) -> None:
    """The same numbers in another shape."""
    source = writer.values[node.inputs[0]]
    # Where an image is one place, both orders of its axes are one.
    last = source.last and all(size == 1 for size in source.shape[2:])
    shape = list(writer.traced.shapes[node.output])
    if (axis := writer.traced.batches.get(node.output)) is not None:
        shape[axis] = -1
    target = writer.file.constant(np.array(shape, np.int32))
    writer.move(node, "RESHAPE", [target], "ReshapeOptions", before=last, newShape=shape)


def transpose(writer: Writer, node: Node) -> None:
    """Axes in another order."""
    rank = len(writer.traced.shapes[node.output])
    order = np.array(node.attributes.get("perm", range(rank)[::-1]), np.int32)
    source = writer.values[node.inputs[0]]
    if source.array is not None:
        axis = 0 if source.grid is None else order.tolist().index(source.grid.axis)
        grid = None if source.grid is None else Grid.of(source.grid.scale, source.grid.zero_point, axis)
        array = source.array.transpose(order)
        writer.values[node.output] = Value(shape=array.shape, dtype=source.dtype, grid=grid, array=array)
    else:
        writer.move(node, "TRANSPOSE", [writer.file.constant(order)], "TransposeOptions")


def cut(writer: Writer, node: Node) -> None:
    """A part of each of some axes."""
    shape = writer.values[node.inputs[0]].shape
    starts, ends = (writer.array(name).tolist() for name in node.inputs[1:3])
    axes = writer.array(node.input(3)).tolist() if node.input(3) else range(len(starts))
    steps = writer.array(node.input(4)).tolist() if node.input(4) else [1] * len(starts)
    begin, end, step = [0] * len(shape), list(shape), [1] * len(shape)
    for axis, *given in zip(axes, starts, ends, steps, strict=True):
        place = axis % len(shape)
        if given[2] < 1:
            raise ModelError("LiteRT takes parts of an axis from its beginning to its end")
        begin[place], end[place], step[place] = slice(*given).indices(shape[place])
    whole = [(a, b, c) == (0, size, 1) for a, b, c, size in zip(begin, end, step, shape, strict=True)]
    if (batch := writer.traced.batches.get(node.inputs[0])) is not None and not whole[batch]:
        raise ModelError("it takes a part of the batch")
    last = writer.values[node.inputs[0]].last
    places = _places(len(shape), last)
    bounds: list[int] = []
    for given in (begin, end, step):
        moved = np.zeros(len(shape), np.int32)
        moved[places] = given
        bounds.append(writer.file.constant(moved))
    mask = sum(1 << place for place, all_of_it in zip(places, whole, strict=True) if all_of_it)
    writer.move(node, "STRIDED_SLICE", bounds, "StridedSliceOptions", last=last, beginMask=mask, endMask=mask)


def pad(writer: Writer, node: Node) -> None:
    """Zeros around."""
    shape, given = writer.values[node.inputs[0]].shape, node.attributes
    value = writer.array(node.input(2)) if node.input(2) else np.zeros(())
    axes = writer.array(node.input(3)).tolist() if node.input(3) else range(len(shape))
    amounts = writer.array(node.inputs[1]).reshape(2, -1).T
    if given.get("mode", b"constant") != b"constant" or float(value) != 0 or (amounts < 0).any():
        raise ModelError("of paddings only zeros around are translated")
    last = writer.values[node.inputs[0]].last
    places = _places(len(shape), last)
    pads = np.zeros((len(shape), 2), np.int32)
    pads[[places[axis] for axis in axes]] = amounts
    writer.move(node, "PAD", [writer.file.constant(pads)], "PadOptions", last=last)


def gather(writer: Writer, node: Node) -> None:
    """Rows that are looked up, as codes where they are codes."""
    inputs = [writer.get(name) for name in node.inputs]
    source = writer.values[node.inputs[0]]
    axis = node.attributes.get("axis", 0) % len(source.shape)
    if axis != 0 or source.grid is not None:
        raise ModelError("of look-ups only those of rows are translated")
    place = writer.file.tensor(writer.traced.shapes[node.output], source.dtype)
    writer.file.operator("GATHER", inputs, place, "GatherOptions", axis=axis)
    writer.values[node.output] = Value(
        shape=writer.traced.shapes[node.output], dtype=source.dtype, forms={(False, False): place}
    )


def cast(writer: Writer, node: Node) -> None:
    """Integers as floats."""
    if node.attributes["to"] != 1:
        raise ModelError("of casts only those to float32 are translated")
    writer.make(node.output, "CAST", [writer.get(node.inputs[0])], "CastOptions")


def layer_normalization(writer: Writer, node: Node) -> None:
    """``(x - mean) / sqrt(variance + epsilon) * weight + bias`` over the last axes."""
    shape, file = writer.traced.shapes[node.output], writer.file
    first = node.attributes.get("axis", -1) % len(shape)
    axes = file.constant(np.arange(first, len(shape), dtype=np.int32))
    narrow = (*shape[:first], *(1,) * (len(shape) - first))

    def then(kind: str, inputs: Sequence[int], of: Sequence[int], options: str = "", **rest: Any) -> int:
        return file.operator(kind, inputs, file.tensor(of, "float32"), options, **rest)

    x = writer.get(node.inputs[0])
    center = then("MEAN", [x, axes], narrow, "ReducerOptions", keepDims=True)
    squares = then("SQUARED_DIFFERENCE", [x, center], shape, "SquaredDifferenceOptions")
    variance = then("MEAN", [squares, axes], narrow, "ReducerOptions", keepDims=True)
    epsilon = file.constant(np.array(node.attributes.get("epsilon", 1e-5), np.float32))
    factor = then("RSQRT", [then("ADD", [variance, epsilon], narrow, "AddOptions")], narrow)
    scaled = then("MUL", [then("SUB", [x, center], shape, "SubOptions"), factor], shape, "MulOptions")
    for name, kind in zip(node.inputs[1:], ("MUL", "ADD"), strict=False):
        scaled = then(kind, [scaled, writer.get(name)], shape, f"{kind.capitalize()}Options")
    writer.values[node.output] = Value(shape=shape, forms={(False, False): scaled})


def _places(rank: int, last: bool) -> list[int]:
    """Where ONNX's axes are in a tensor."""
    return [0, rank - 1, *range(1, rank - 1)] if last and rank > 2 else list(range(rank))


OPERATORS: dict[str, Rule] = {
    "QuantizeLinear": quantize,
    "DequantizeLinear": dequantize,
    "Conv": convolution,
    "Gemm": gemm,
    "MatMul": matmul,
    "MaxPool": pool,
    "AveragePool": pool,
    "GlobalAveragePool": mean,
    "ReduceMean": mean,
    "Concat": concat,
    "Gelu": gelu,
    "Clip": clip,
    "Softmax": softmax,
    "Transpose": transpose,
    "Slice": cut,
    "Pad": pad,
    "Gather": gather,
    "Cast": cast,
    "LayerNormalization": layer_normalization,
    **dict.fromkeys(_BINARY, binary),
    **dict.fromkeys(_UNARY, unary),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), reshape),
}
