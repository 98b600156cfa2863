"""Values put together, taken apart and put in order, whichever order their axes have."""

import numpy as np

from whit.errors import ModelError
from whit.export.litert.flatbuffer import Grid
from whit.export.litert.reading import Node
from whit.export.litert.writer import Value, Writer

__all__ = ["concat", "cut", "gather", "mean", "pad", "reshape", "transpose"]


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
    """Places on an axis that are looked up, such as rows of a table."""
    source, places = (writer.values[name] for name in node.inputs)
    axis = node.attributes.get("axis", 0) % len(source.shape)
    if writer.traced.batches.get(node.inputs[0]) == axis:
        raise ModelError("it looks up samples of the batch")
    asked = writer.get(node.inputs[1])
    if places.array is not None:
        asked = writer.file.constant(np.array(places.array % source.shape[axis], np.int32))
    shape = writer.traced.shapes[node.output]
    place = writer.file.tensor(shape, source.dtype)
    writer.file.operator("GATHER", [writer.get(node.inputs[0]), asked], place, "GatherOptions", axis=axis)
    writer.values[node.output] = Value(shape=shape, dtype=source.dtype, forms={(False, False): place})


def _places(rank: int, last: bool) -> list[int]:
    """Where ONNX's axes are in a tensor."""
    return [0, rank - 1, *range(1, rank - 1)] if last and rank > 2 else list(range(rank))
