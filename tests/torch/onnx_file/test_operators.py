"""Every operator, in the opsets in which its form changed, computes what ONNX Runtime computes, and can be exported."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from whit.ledger import Ledger
from whit.runtime import open_onnx
from whit.torch.network import TorchNetwork
from whit.torch.onnx_file import check_same, open_onnx_file
from whit.torch.onnx_file.layers import LAYERS
from whit.torch.onnx_file.operators import OPERATORS

Draw = Callable[[Any], str]
IMAGE = ("N", 4, 7, 6)
ROWS = ("N", 5, 8)


def unary(operator: str, **attributes: Any) -> tuple[tuple[Any, ...], Draw]:
    return ROWS, lambda d: d.then(operator, "x", **attributes)


def positive(operator: str) -> tuple[tuple[Any, ...], Draw]:
    return ROWS, lambda d: d.then(operator, d.then("Exp", "x"))


def image(operator: str, **attributes: Any) -> tuple[tuple[Any, ...], Draw]:
    return IMAGE, lambda d: d.then(operator, "x", **attributes)


def beside(operator: str, *shape: int) -> tuple[tuple[Any, ...], Draw]:
    """An operator that reads ``x`` and a constant."""
    return ROWS, lambda d: d.then(operator, "x", d.normal(*shape))


def convolution(*weight: int, bias: bool = True, **attributes: Any) -> tuple[tuple[Any, ...], Draw]:
    def draw(d: Any) -> str:
        return d.then("Conv", "x", d.normal(*weight), *([d.normal(weight[0])] if bias else []), **attributes)

    return ("N", 4, *(7, 6, 5)[: len(weight) - 2]), draw


def transposed(*weight: int, made: int, bias: bool = True, **attributes: Any) -> tuple[tuple[Any, ...], Draw]:
    def draw(d: Any) -> str:
        return d.then("ConvTranspose", "x", d.normal(*weight), *([d.normal(made)] if bias else []), **attributes)

    return ("N", 4, *(7, 6, 5)[: len(weight) - 2]), draw


def with_axes(operator: str, axes: tuple[int, ...], **attributes: Any) -> tuple[tuple[Any, ...], Draw]:
    """Axes are an attribute at first, and an input later."""

    def draw(d: Any) -> str:
        as_input = 18 if operator.startswith("Reduce") and operator != "ReduceSum" else 13
        if d.opset < as_input:
            return d.then(operator, "x", axes=axes, **attributes)
        return d.then(operator, "x", d.ints(*axes), **attributes)

    return ("N", 4, 1, 6), draw


def gemm(d: Any, **attributes: Any) -> str:
    rows = d.then("Flatten", "x")
    weight = d.normal(3, 40) if attributes.get("transB") else d.normal(40, 3)
    return d.then("Gemm", rows, weight, d.normal(3), **attributes)


def clip(d: Any) -> str:
    if d.opset < 11:
        return d.then("Clip", "x", min=-0.5, max=0.75)
    return d.then("Clip", "x", d.array(np.float32(-0.5)), d.array(np.float32(0.75)))


def pad(d: Any, **attributes: Any) -> str:
    amounts = (0, 0, 1, 2, 0, 0, 0, 1)
    if d.opset < 11:
        return d.then("Pad", "x", pads=amounts, **attributes)
    return d.then("Pad", "x", d.ints(*amounts), **attributes)


def cut(d: Any) -> str:
    if d.opset < 10:
        return d.then("Slice", "x", starts=(1, 0), ends=(9223372036854775807, -2), axes=(1, 2))
    return d.then("Slice", "x", d.ints(1, 0), d.ints(9223372036854775807, -2), d.ints(1, 2), d.ints(2, 1))


def split(d: Any, **attributes: Any) -> str:
    inputs = ["x"]
    if d.opset < 13:
        attributes["split"] = (2, 6)
    else:
        inputs.append(d.ints(2, 6))
    first = d.then("Split", *inputs, outputs=2, axis=2, **attributes)
    return d.then("Concat", f"{first}_1", first, axis=-1)


def rows_by_shape(d: Any) -> str:
    """What torch's tracing exporter writes for ``x.view(x.size(0), -1)``."""
    size = d.then("Gather", d.then("Shape", "x"), d.array(np.int64(0)), axis=0)
    first = d.then("Unsqueeze", size, axes=(0,)) if d.opset < 13 else d.then("Unsqueeze", size, d.ints(0))
    return d.then("Reshape", "x", d.then("Concat", first, d.ints(-1), axis=0))


def expanded(d: Any) -> str:
    """What torch's tracing exporter writes for ``token.expand(x.size(0), -1, -1)`` before a concatenation."""
    size = d.then("Gather", d.then("Shape", "x"), d.ints(0), axis=0)
    target = d.then("Concat", size, d.ints(-1), d.ints(-1), axis=0)
    ones = d.then("ConstantOfShape", d.ints(3), value=d_tensor(1))
    kept = d.then("Equal", target, d.then("Mul", ones, d.array(np.int64(-1))))
    token = d.then("Expand", d.normal(1, 1, 8), d.then("Where", kept, ones, target))
    return d.then("Concat", token, "x", axis=1)


def d_tensor(value: int) -> Any:
    from onnx import numpy_helper

    return numpy_helper.from_array(np.array([value], np.int64))


def looked_up(d: Any) -> str:
    places = d.then("Cast", d.then("Clip", "x", d.array(np.float32(0)), d.array(np.float32(3))), to=7)
    return d.then("Gather", d.normal(4, 6), places)


def normalised(d: Any, *shape: int) -> str:
    variance = d.array(np.linspace(0.5, 2, 5).astype(np.float32))
    return d.then("BatchNormalization", "x", d.normal(5), d.normal(5), d.normal(5), variance, epsilon=1e-3)


def positions(d: Any) -> str:
    length = d.then("Gather", d.then("Shape", "x"), d.array(np.int64(2)))
    return d.then("Add", "x", d.then("Cast", d.then("Range", d.array(np.int64(0)), length, d.array(np.int64(1))), to=1))


CASES: dict[str, tuple[tuple[Any, ...], Draw]] = {
    **{name: unary(name) for name in ("Relu", "Sigmoid", "Tanh", "Erf", "Exp", "Abs", "Neg", "Sin", "Cos", "Softplus")},
    **{name: unary(name) for name in ("HardSwish", "Mish", "Gelu", "Softsign", "Identity", "Dropout", "HardSigmoid")},
    **{name: positive(name) for name in ("Sqrt", "Log", "Reciprocal")},
    "HardSigmoid of MobileNet": unary("HardSigmoid", alpha=1 / 6, beta=0.5),
    "Gelu by tanh": unary("Gelu", approximate="tanh"),
    "LeakyRelu": unary("LeakyRelu", alpha=0.2),
    "Elu": unary("Elu", alpha=0.7),
    "Clip": (ROWS, clip),
    "PRelu": beside("PRelu", 5, 1),
    "Softmax": unary("Softmax"),
    "Softmax along 1": unary("Softmax", axis=1),
    "LogSoftmax": unary("LogSoftmax", axis=-1),
    **{
        f"{name} with {shape}": beside(name, *shape)
        for name in ("Add", "Sub", "Mul", "Div")
        for shape in ((8,), (5, 1), ())
    },
    "a number minus x": (ROWS, lambda d: d.then("Sub", d.array(np.float32(1)), "x")),
    "Pow": (ROWS, lambda d: d.then("Pow", "x", d.array(np.float32(2)))),
    "Min": beside("Min", 8),
    "Max of a number": (ROWS, lambda d: d.then("Max", d.array(np.float32(0.1)), "x")),
    "Sum": (ROWS, lambda d: d.then("Sum", "x", d.normal(8), "x")),
    "Mean": (ROWS, lambda d: d.then("Mean", "x", d.normal(5, 8))),
    "Where": (ROWS, lambda d: d.then("Where", d.then("Greater", "x", d.normal(8)), "x", d.array(np.float32(-1)))),
    "Where of two": (
        ROWS,
        lambda d: d.then(
            "Where",
            d.then("And", d.then("Less", "x", d.normal(8)), d.then("Not", d.then("Equal", "x", "x"))),
            "x",
            d.normal(8),
        ),
    ),
    "Cast": (ROWS, lambda d: d.then("Cast", d.then("Cast", "x", to=6), to=1)),
    "MatMul": beside("MatMul", 8, 3),
    "MatMul with a bias": (ROWS, lambda d: d.then("Add", d.then("MatMul", "x", d.normal(8, 3)), d.normal(3))),
    "MatMul from the left": (ROWS, lambda d: d.then("MatMul", d.normal(3, 5), "x")),
    "MatMul of two": (ROWS, lambda d: d.then("MatMul", "x", d.then("Transpose", "x", perm=(0, 2, 1)))),
    "Gemm": (ROWS, gemm),
    "Gemm with factors": (ROWS, lambda d: gemm(d, transB=1, alpha=0.5, beta=2.0)),
    "Gemm of a transposed input": (
        ("N", 3),
        lambda d: d.then("Transpose", d.then("Gemm", "x", d.then("Transpose", "x"), transB=0)),
    ),
    "Conv": convolution(6, 4, 3, 3),
    "Conv1d": convolution(6, 4, 3, pads=(1, 1)),
    "Conv3d": convolution(6, 4, 3, 1, 2),
    "Conv with pads": convolution(6, 4, 3, 3, pads=(1, 1, 1, 1), strides=(2, 1)),
    "Conv with unequal pads": convolution(6, 4, 3, 3, pads=(0, 1, 1, 0), strides=(2, 2)),
    "Conv with gaps": convolution(6, 4, 3, 3, bias=False, dilations=(2, 1)),
    "Conv by channel": convolution(8, 1, 3, 3, group=4, kernel_shape=(3, 3)),
    "Conv same": convolution(6, 4, 3, 3, auto_pad="SAME_UPPER"),
    "Conv same and even": convolution(6, 4, 4, 2, auto_pad="SAME_LOWER"),
    "Conv same by steps": convolution(6, 4, 3, 3, auto_pad="SAME_UPPER", strides=(2, 2)),
    "Conv same from below": convolution(6, 4, 3, 3, auto_pad="SAME_LOWER", strides=(2, 2)),
    "Conv of single places": convolution(6, 4, 1, 1, auto_pad="SAME_UPPER", strides=(2, 2)),
    "Conv valid": convolution(6, 4, 3, 3, auto_pad="VALID"),
    "Conv and a bias": (
        IMAGE,
        lambda d: d.then("Add", d.then("Conv", "x", d.normal(3, 4, 3, 3)), d.normal(1, 3, 1, 1)),
    ),
    "Conv behind a Pad": (IMAGE, lambda d: d.then("Conv", pad(d), d.normal(3, 4, 3, 3), pads=(1, 1, 0, 0))),
    "ConvTranspose": transposed(4, 6, 3, 3, made=6),
    "ConvTranspose1d": transposed(4, 6, 4, made=6, bias=False, strides=(2,), pads=(1, 1)),
    "ConvTranspose3d": transposed(4, 2, 2, 1, 2, made=2, strides=(2, 1, 2), auto_pad="VALID"),
    "ConvTranspose by steps": transposed(4, 6, 3, 3, made=6, strides=(2, 2), pads=(1, 1, 1, 1), output_padding=(1, 1)),
    "ConvTranspose with unequal pads": transposed(4, 6, 3, 3, made=6, strides=(2, 2), pads=(1, 1, 0, 1)),
    "ConvTranspose with gaps": transposed(4, 6, 3, 2, made=6, dilations=(2, 1), kernel_shape=(3, 2)),
    "ConvTranspose in groups": transposed(4, 3, 3, 3, made=6, group=2),
    "BatchNormalization": (ROWS, normalised),
    "LayerNormalization": (ROWS, lambda d: d.then("LayerNormalization", "x", d.normal(8), d.normal(8))),
    "LayerNormalization of two axes": (ROWS, lambda d: d.then("LayerNormalization", "x", d.normal(5, 8), axis=1)),
    "InstanceNormalization": (ROWS, lambda d: d.then("InstanceNormalization", "x", d.normal(5), d.normal(5))),
    "MaxPool": image("MaxPool", kernel_shape=(2, 3), strides=(2, 1)),
    "MaxPool with pads": image("MaxPool", kernel_shape=(3, 3), pads=(1, 1, 1, 1), strides=(2, 2)),
    "MaxPool with unequal pads": image("MaxPool", kernel_shape=(3, 3), pads=(0, 0, 1, 1), strides=(2, 2)),
    "MaxPool same": image("MaxPool", kernel_shape=(3, 3), auto_pad="SAME_UPPER", strides=(2, 2)),
    "MaxPool upwards": image("MaxPool", kernel_shape=(2, 2), ceil_mode=1, strides=(2, 2)),
    "AveragePool": image("AveragePool", kernel_shape=(3, 3)),
    "AveragePool with pads": image("AveragePool", kernel_shape=(3, 3), pads=(1, 1, 1, 1)),
    "AveragePool that counts pads": image("AveragePool", kernel_shape=(3, 3), pads=(0, 0, 1, 1), count_include_pad=1),
    "AveragePool same": image("AveragePool", kernel_shape=(3, 2), auto_pad="SAME_UPPER", strides=(2, 2)),
    "GlobalAveragePool": image("GlobalAveragePool"),
    "GlobalMaxPool": image("GlobalMaxPool"),
    **{name: with_axes(name, (1, -1), keepdims=0) for name in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin")},
    "ReduceMean that keeps axes": with_axes("ReduceMean", (2, 3)),
    "Squeeze": with_axes("Squeeze", (2,)),
    "Unsqueeze": with_axes("Unsqueeze", (1, -1)),
    "Flatten": unary("Flatten"),
    "Flatten behind": unary("Flatten", axis=2),
    "Transpose": unary("Transpose", perm=(0, 2, 1)),
    "Transpose twice": (ROWS, lambda d: d.then("Transpose", d.then("Transpose", "x", perm=(0, 2, 1)), perm=(0, 2, 1))),
    "Reshape": (ROWS, lambda d: d.then("Reshape", "x", d.ints(0, -1, 10))),
    "Reshape by shape": (ROWS, rows_by_shape),
    "Expand": (ROWS, expanded),
    "Range": (ROWS, positions),
    "Concat": (ROWS, lambda d: d.then("Concat", "x", d.then("Neg", "x"), axis=1)),
    "Split": (ROWS, split),
    "Slice": (ROWS, cut),
    "Pad": (IMAGE, pad),
    "Pad by reflection": (IMAGE, lambda d: pad(d, mode="reflect")),
    "Pad by the edge": (IMAGE, lambda d: pad(d, mode="edge")),
    "Gather a row": (ROWS, lambda d: d.then("Gather", "x", d.array(np.int64(-1)), axis=1)),
    "Gather rows": (ROWS, lambda d: d.then("Gather", "x", d.ints(3, 0), axis=2)),
    "Gather from a table": (ROWS, looked_up),
    "ConstantOfShape": (ROWS, lambda d: d.then("Add", "x", d.then("ConstantOfShape", d.then("Shape", "x")))),
}
NEW = {
    "Gelu": 20,
    "HardSwish": 14,
    "Mish": 18,
    "LayerNormalization": 17,
    "Range": 11,
    "Reshape by shape": 11,
    "Expand": 16,
}
NEW |= {
    "Gather from a table": 11,
    "Where": 9,
    "Where of two": 11,
    "Cast": 9,
    "MaxPool upwards": 10,
    "Max": 12,
    "Sum": 8,
    "ConstantOfShape": 9,
}
NEW |= {"Softsign": 7, "Less": 9, "Min": 8, "Mean": 8, "Erf": 9, "Sin": 7}


def opsets(case: str) -> list[int]:
    since = max([7, *(opset for name, opset in NEW.items() if case.startswith(name))])
    return sorted({max(since, opset) for opset in (9, 12, 17, 21)} - ({9} if "Gemm" in case else set()))


@pytest.mark.parametrize(("case", "opset"), [(case, opset) for case in CASES for opset in opsets(case)])
def test_the_module_computes_what_the_file_computes(case: str, opset: int, drawing: Any, tmp_path: Path) -> None:
    shape, draw = CASES[case]
    file = drawing(*shape, opset=opset)
    path = file.save(draw(file), tmp_path)
    module = open_onnx_file(path)
    x = np.random.default_rng(1).normal(size=(3, *shape[1:])).astype(np.float32)
    check_same(module, path, [x], "noise")


@pytest.mark.parametrize("shape", [ROWS, IMAGE, ("N", 4, 1, 6)], ids=str)
def test_a_module_of_all_operators_can_be_exported_again(shape: tuple[Any, ...], drawing: Any, tmp_path: Path) -> None:
    file = drawing(*shape, opset=21)
    outputs = [draw(file) for given, draw in CASES.values() if given == shape]
    count = file.then("Slice", file.then("Shape", "x"), file.ints(0), file.ints(1))
    rows = file.then("Concat", count, file.ints(-1), axis=0)
    every = file.then("Concat", *(file.then("Reshape", output, rows) for output in outputs), axis=1)
    module = open_onnx_file(file.save(every, tmp_path))
    x = np.random.default_rng(1).normal(size=(3, *shape[1:])).astype(np.float32)
    TorchNetwork(module, (x,)).export(tmp_path / "again.onnx", Ledger())
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(open_onnx(tmp_path / "again.onnx")(x), expected, atol=1e-4, rtol=1e-4)


def test_every_operator_is_tested(drawing: Any) -> None:
    tested: set[str] = set()
    for shape, draw in CASES.values():
        for opset in (9, 21):
            file = drawing(*shape, opset=opset)
            draw(file)
            tested |= {node.op_type for node in file.nodes}
    assert tested == {*OPERATORS, *LAYERS}
