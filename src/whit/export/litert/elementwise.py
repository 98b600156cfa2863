"""What is done to each number, or to each row of numbers, in LiteRT's words."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from whit.errors import ModelError
from whit.export.litert.flatbuffer import Grid
from whit.export.litert.reading import Node
from whit.export.litert.writer import Ending, Value, Writer

__all__ = [
    "BINARY",
    "UNARY",
    "batch_normalization",
    "binary",
    "cast",
    "clip",
    "dequantize",
    "gelu",
    "hard_sigmoid",
    "layer_normalization",
    "quantize",
    "slope",
    "softmax",
    "unary",
]

BINARY = {
    "Add": ("ADD", "AddOptions"),
    "Sub": ("SUB", "SubOptions"),
    "Mul": ("MUL", "MulOptions"),
    "Div": ("DIV", "DivOptions"),
}
UNARY = {
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
    kind, options = BINARY[node.operator]
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
    writer.make(node.output, UNARY[node.operator], [writer.get(node.inputs[0], last=last)], last=last)


def gelu(writer: Writer, node: Node) -> None:
    """The Gaussian error linear unit."""
    close = node.attributes.get("approximate", b"none") == b"tanh"
    writer.make(node.output, "GELU", [writer.get(node.inputs[0])], "GeluOptions", approximate=close)


def slope(writer: Writer, node: Node) -> None:
    """Rectifiers that let something of negative numbers through: a share, a share a channel, or the exponential."""
    last = writer.values[node.inputs[0]].last
    if node.operator == "PRelu":
        inputs = [writer.get(node.inputs[0], last=True), writer.file.constant(writer.array(node.inputs[1]).reshape(-1))]
        writer.make(node.output, "PRELU", inputs, last=True)
    elif node.operator == "LeakyRelu":
        share = node.attributes.get("alpha", 0.01)
        writer.make(
            node.output,
            "LEAKY_RELU",
            [writer.get(node.inputs[0], last=last)],
            "LeakyReluOptions",
            last=last,
            alpha=share,
        )
    elif node.attributes.get("alpha", 1.0) == 1:
        writer.make(node.output, "ELU", [writer.get(node.inputs[0], last=last)], last=last)
    else:
        raise ModelError("LiteRT has it with an alpha of 1")


def hard_sigmoid(writer: Writer, node: Node) -> None:
    """``min(max(alpha * x + beta, 0), 1)``."""
    last = writer.values[node.inputs[0]].last
    place, file = writer.get(node.inputs[0], last=last), writer.file
    factor, shift = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
    for kind, options, number in (
        ("MUL", "MulOptions", factor),
        ("ADD", "AddOptions", shift),
        ("MAXIMUM", "MaximumMinimumOptions", 0.0),
    ):
        between = file.tensor(file.tensors[place].shape, "float32")
        place = file.operator(kind, [place, file.constant(np.array(number, np.float32))], between, options)
    one = file.constant(np.array(1, np.float32))
    writer.make(node.output, "MINIMUM", [place, one], "MaximumMinimumOptions", last=last)


def batch_normalization(writer: Writer, node: Node) -> None:
    """``x * factor + shift``, a number a channel."""
    scale, bias, mean, variance = (writer.array(name).astype(np.float64) for name in node.inputs[1:5])
    factor = scale / np.sqrt(variance + node.attributes.get("epsilon", 1e-5))
    numbers = [writer.file.constant(x.astype(np.float32)) for x in (factor, bias - mean * factor)]
    place = writer.get(node.inputs[0], last=True)
    scaled = writer.file.tensor(writer.file.tensors[place].shape, "float32")
    writer.file.operator("MUL", [place, numbers[0]], scaled, "MulOptions")
    writer.make(node.output, "ADD", [scaled, numbers[1]], "AddOptions", last=True)


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
    inputs = [writer.get(node.inputs[0])]
    if node.operator == "LogSoftmax":
        writer.make(node.output, "LOG_SOFTMAX", inputs, "LogSoftmaxOptions")
    else:
        writer.make(node.output, "SOFTMAX", inputs, "SoftmaxOptions", beta=1.0)


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
