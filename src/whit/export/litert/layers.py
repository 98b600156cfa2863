"""Layers that have weights or windows, in LiteRT's order: samples, places, channels."""

from collections.abc import Sequence

import numpy as np

from whit.data import Array
from whit.errors import ModelError
from whit.export.litert.flatbuffer import Grid
from whit.export.litert.reading import Node
from whit.export.litert.writer import FLOAT, Ending, Value, Writer

__all__ = ["bias_of", "convolution", "gemm", "matmul", "pool", "reshaped", "weight_of"]


def convolution(writer: Writer, node: Node) -> None:
    """A convolution over one axis or two."""
    source, weight, bias = (node.input(place) for place in range(3))
    given, kernel = node.attributes, writer.values[weight]
    axes = len(kernel.shape) - 2
    if kernel.array is None or axes not in (1, 2):
        raise ModelError("LiteRT has convolutions of constant weights over one axis or two")
    channels, groups = writer.values[source].shape[1], given.get("group", 1)
    depthwise = groups == channels > 1
    ending = _ending(writer, node, source, weight)
    codes = ending.grid is not None
    strides, dilations = ([1, *given.get(name, [1] * axes)][-2:] for name in ("strides", "dilations"))
    windows = [1, *kernel.shape[2:]][-2:]
    place, shape = writer.get(source, codes=codes, last=True), writer.values[source].shape
    if axes == 1:
        place = reshaped(writer, place, (shape[0], 1, shape[2], shape[1]))
    pads = [[0, *given.get("pads", [0] * 2 * axes)[side * axes :][:axes]][-2:] for side in (0, 1)]
    place, same = _padded(writer, place, pads, windows, strides, dilations)
    order = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
    inputs = [place, weight_of(writer, kernel, order, codes), bias_of(writer, bias, source, kernel, codes)]
    name = "DepthwiseConv2D" if depthwise else "Conv2D"
    settings = {"depthMultiplier": kernel.shape[0] // groups} if depthwise else {}
    padding = writer.file.schema.Padding
    shape = writer.traced.shapes[ending.name]
    if axes == 1:
        shape = (shape[0], shape[1], 1, shape[2])
    result = writer.file.tensor((shape[0], *shape[2:], shape[1]), "int8" if codes else FLOAT, ending.grid)
    writer.file.operator(
        "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D",
        inputs,
        result,
        f"{name}Options",
        padding=padding.SAME if same else padding.VALID,
        strideH=strides[0],
        strideW=strides[1],
        dilationHFactor=dilations[0],
        dilationWFactor=dilations[1],
        fusedActivationFunction=writer.activation(ending),
        **settings,
    )
    if axes == 1:
        result = reshaped(writer, result, (shape[0], shape[3], shape[1]))
    writer.values[ending.name] = Value(
        shape=writer.traced.shapes[ending.name], grid=ending.grid, forms={(codes, True): result}
    )


def gemm(writer: Writer, node: Node) -> None:
    """A linear layer on rows."""
    given = node.attributes
    if given.get("transA", 0) or given.get("alpha", 1.0) != 1 or given.get("beta", 1.0) != 1:
        raise ModelError("of products only plain ones are translated")
    _linear(writer, node, transposed=bool(given.get("transB", 0)))


def matmul(writer: Writer, node: Node) -> None:
    """A linear layer, or a product of two values, which is one of floats."""
    if len(writer.values[node.inputs[1]].shape) == 2 and writer.values[node.inputs[1]].array is not None:
        _linear(writer, node, transposed=False)
    else:
        writer.make(node.output, "BATCH_MATMUL", [writer.get(name) for name in node.inputs], "BatchMatMulOptions")


def pool(writer: Writer, node: Node) -> None:
    """The largest of each window, or its mean."""
    given, (source,) = node.attributes, node.inputs
    windows, strides = given["kernel_shape"], given.get("strides", [1, 1])
    if len(windows) != 2 or given.get("ceil_mode", 0) or set(given.get("dilations", [1])) != {1}:
        raise ModelError("LiteRT pools over two axes, without gaps, and leaves out what does not fill a window")
    pads = [given.get("pads", [0] * 4)[:2], given.get("pads", [0] * 4)[2:]]
    largest = node.operator == "MaxPool"
    codes = largest and writer.has_codes(source)
    place = writer.get(source, codes=codes, last=True)
    fill = (-128.0 if codes else -np.inf) if largest else 0.0
    counted = not largest and bool(given.get("count_include_pad", 0))
    place, same = _padded(writer, place, pads, windows, strides, (1, 1), fill, merge=not counted)
    if not same and not largest and not counted and any(map(any, pads)):
        raise ModelError("LiteRT has no mean that leaves out padding of this kind")
    padding = writer.file.schema.Padding
    ending = Ending(name=node.output, activation="NONE", grid=writer.values[source].grid if codes else None)
    writer.make(
        ending,
        "MAX_POOL_2D" if largest else "AVERAGE_POOL_2D",
        [place],
        "Pool2DOptions",
        last=True,
        padding=padding.SAME if same else padding.VALID,
        strideH=strides[0],
        strideW=strides[1],
        filterHeight=windows[0],
        filterWidth=windows[1],
    )


def _linear(writer: Writer, node: Node, *, transposed: bool) -> None:
    """A product with constant weights, ``(outputs, inputs)`` where they are transposed."""
    source, weight, bias = (node.input(place) for place in range(3))
    kernel = writer.values[weight]
    ending = _ending(writer, node, source, weight)
    codes = ending.grid is not None
    rows = weight_of(writer, kernel, (0, 1) if transposed else (1, 0), codes)
    inputs = [writer.get(source, codes=codes), rows]
    if bias or codes:
        inputs.append(bias_of(writer, bias, source, kernel, codes, outputs=0 if transposed else 1))
    activation = writer.activation(ending)
    options = "FullyConnectedOptions"
    writer.make(ending, "FULLY_CONNECTED", inputs, options, fusedActivationFunction=activation, keepNumDims=True)


def _ending(writer: Writer, node: Node, source: str, weight: str) -> Ending:
    """How a layer ends; it runs in integers where what it reads and its weights are codes and a rounding follows."""
    return writer.ending(node, integers=writer.has_codes(source) and writer.values[weight].grid is not None)


def weight_of(writer: Writer, kernel: Value, order: Sequence[int], codes: bool) -> int:
    """Weights with their axes in another order, and with one put in where there are more than they have."""
    array, grid = kernel.array, kernel.grid
    assert array is not None
    if len(order) > array.ndim:
        array = array[:, :, None]
    array = array.transpose(order)
    if grid is not None:
        grid = Grid(scale=grid.scale, zero_point=grid.zero_point, axis=order.index(grid.axis))
    place = writer.file.constant(array, grid)
    if grid is None or codes:
        return place
    return writer.file.operator("DEQUANTIZE", [place], writer.file.tensor(array.shape, FLOAT))


def bias_of(writer: Writer, name: str, source: str, kernel: Value, codes: bool, outputs: int = 0) -> int:
    """The bias, as sums in the scale of input times weight where a layer runs in integers; zeros where it has none."""
    count = kernel.shape[outputs]
    value = writer.values[name] if name else Value(shape=(count,), array=np.zeros(count, np.float32))
    array, grid = value.array, value.grid
    if array is None:
        raise ModelError("LiteRT has constant biases")
    if not codes:
        return writer.file.constant(_floats(array, grid))
    read = writer.values[source].grid
    assert read is not None
    assert kernel.grid is not None
    scale = (read.scale * kernel.grid.scale).astype(np.float32)
    if array.dtype != np.int32:
        array = np.rint(_floats(array, grid) / scale).astype(np.int32)
    return writer.file.constant(array, Grid.of(scale))


def _floats(array: Array, grid: Grid | None) -> Array:
    """A vector without its grid."""
    return array if grid is None else (array * grid.scale).astype(np.float32)


def _padded(
    writer: Writer,
    place: int,
    pads: Sequence[Sequence[int]],
    windows: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    fill: float = 0.0,
    *,
    merge: bool = True,
) -> tuple[int, bool]:
    """An image with what is around it, and whether the layer that reads it has to put it there (``SAME``) itself."""
    tensor = writer.file.tensors[place]
    if not any(map(any, pads)):
        return place, False
    same: list[bool] = []
    for axis, (before, after) in enumerate(zip(*pads, strict=True)):
        size, reach = tensor.shape[1 + axis], (windows[axis] - 1) * dilations[axis] + 1
        total = max((-(-size // strides[axis]) - 1) * strides[axis] + reach - size, 0)
        same.append((before, after) == (total // 2, total - total // 2))
    if merge and all(same):
        return place, True
    shape = [size + more for size, more in zip(tensor.shape, (0, *map(sum, zip(*pads, strict=True)), 0), strict=True)]
    codes = tensor.quantization is not None
    grid = None
    if codes:
        grid = Grid.of(tensor.quantization.scale, tensor.quantization.zeroPoint)
    amounts = writer.file.constant(np.array([(0, 0), *zip(*pads, strict=True), (0, 0)], np.int32))
    wide = writer.file.tensor(shape, "int8" if codes else FLOAT, grid)
    if fill == 0:
        return writer.file.operator("PAD", [place, amounts], wide, "PadOptions"), False
    value = writer.file.constant(np.array([fill], np.int8 if codes else np.float32), grid)
    return writer.file.operator("PADV2", [place, amounts, value], wide, "PadV2Options"), False


def reshaped(writer: Writer, place: int, shape: Sequence[int]) -> int:
    """The same numbers in another shape, whose first axis is the batch."""
    tensor = writer.file.tensors[place]
    target = [-1, *shape[1:]]
    grid = None
    if tensor.quantization is not None:
        grid = Grid.of(tensor.quantization.scale, tensor.quantization.zeroPoint)
    made = writer.file.tensor(shape, FLOAT if grid is None else "int8", grid)
    whole = writer.file.constant(np.array(target, np.int32))
    return writer.file.operator("RESHAPE", [place, whole], made, "ReshapeOptions", newShape=target)
