"""Transposed convolutions: LiteRT makes whole ones, of which what padding takes off is cut away."""

from collections.abc import Sequence

import numpy as np

from whit.errors import ModelError
from whit.export.litert.layers import bias_of, reshaped, weight_of
from whit.export.litert.reading import Node
from whit.export.litert.writer import FLOAT, Value, Writer

__all__ = ["transposed_convolution"]

_OUTER = 0b1001
"""The axes of which all is taken: samples and channels."""


def transposed_convolution(writer: Writer, node: Node) -> None:
    """A transposed convolution over one axis or two, of floats; its weights may be codes."""
    source, weight, bias = (node.input(place) for place in range(3))
    given, kernel = node.attributes, writer.values[weight]
    axes = len(kernel.shape) - 2
    if kernel.array is None or axes not in (1, 2):
        raise ModelError("LiteRT has transposed convolutions of constant weights over one axis or two")
    if given.get("group", 1) != 1 or set(given.get("dilations", [1])) != {1}:
        raise ModelError("LiteRT has transposed convolutions of one group, without gaps")
    shape, made = writer.values[source].shape, writer.traced.shapes[node.output]
    strides = [1, *given.get("strides", [1] * axes)][-2:]
    first = [0, *given.get("pads", [0] * 2 * axes)[:axes]][-2:]
    windows, sizes, wanted = ([1, *one[2:]][-2:] for one in (kernel.shape, shape, made))
    place = writer.get(source, last=True)
    if axes == 1:
        place = reshaped(writer, place, (shape[0], 1, shape[2], shape[1]))
    # All that the windows reach, and what is to be there beyond.
    whole = [(size - 1) * stride + window for size, stride, window in zip(sizes, strides, windows, strict=True)]
    whole = [max(size, before + wished) for size, before, wished in zip(whole, first, wanted, strict=True)]
    inputs = [
        _shape(writer, place, [*whole, made[1]]),
        weight_of(writer, kernel, (1, 2, 3, 0), codes=False),
        place,
        *([bias_of(writer, bias, source, kernel, codes=False, outputs=1)] if bias else []),
    ]
    result = writer.file.operator(
        "TRANSPOSE_CONV",
        inputs,
        writer.file.tensor((shape[0], *whole, made[1]), FLOAT),
        "TransposeConvOptions",
        padding=writer.file.schema.Padding.VALID,
        strideH=strides[0],
        strideW=strides[1],
    )
    if whole != wanted:
        ends = [before + wished for before, wished in zip(first, wanted, strict=True)]
        bounds = [[0, *first, 0], [0, *ends, 0], [1] * 4]
        result = writer.file.operator(
            "STRIDED_SLICE",
            [result, *(writer.file.constant(np.array(one, np.int32)) for one in bounds)],
            writer.file.tensor((shape[0], *wanted, made[1]), FLOAT),
            "StridedSliceOptions",
            beginMask=_OUTER,
            endMask=_OUTER,
        )
    if axes == 1:
        result = reshaped(writer, result, (made[0], made[2], made[1]))
    writer.values[node.output] = Value(shape=made, forms={(False, True): result})


def _shape(writer: Writer, place: int, rest: Sequence[int]) -> int:
    """The shape ``(samples, *rest)``, with as many samples as a tensor has when the network runs."""
    file = writer.file
    whole = file.operator(
        "SHAPE", [place], file.tensor((4,), "int32"), "ShapeOptions", outType=file.schema.TensorType.INT32
    )
    ends = [file.constant(np.array([one], np.int32)) for one in (0, 1)]
    samples = file.operator("SLICE", [whole, *ends], file.tensor((1,), "int32"), "SliceOptions")
    sizes = file.constant(np.array(rest, np.int32))
    return file.operator("CONCATENATION", [samples, sizes], file.tensor((4,), "int32"), "ConcatenationOptions", axis=0)
