"""LiteRT: every operator computes what ONNX Runtime computes, layers run in integers, codes stay codes."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import whit
from whit import Int, ModelError, Quantize
from whit.data import Array
from whit.export import Source
from whit.export.litert import LiteRt
from whit.export.litert.flatbuffer import Flatbuffer, Grid
from whit.ledger import Ledger, RoundedActivation
from whit.runtime import Session

pytest.importorskip("ai_edge_litert", reason="pip install 'whit[litert]'")

BYTE = Int(bits=8, symmetric=False, per="tensor")
Attributes = dict[str, Any]
Step = tuple[str, str, Attributes]
"""An operator, its inputs with spaces between, and its attributes; it makes a value named after its place.

``Split`` makes two, the second with an ``a`` behind."""


def floats(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def steps(*values: int) -> Array:
    return np.array(values, np.int64)


def one(value: float) -> Array:
    return np.array(value, np.float32)


IMAGE, KERNEL = (4, 9, 8), {"w": floats(6, 4, 3, 3)}
CONV: Step = ("Conv", "input w", {"pads": [1] * 4})


def convolutions() -> list[Any]:
    """Kernels, strides, pads before and after, groups and gaps; the same layer may be SAME, VALID or neither."""
    table = [
        (3, 1, [1, 1, 1, 1], 1, 1),
        (3, 2, [1, 1, 1, 1], 1, 1),
        (3, 2, [0, 0, 1, 1], 1, 1),
        (1, 2, [0, 0, 0, 0], 1, 1),
        (3, 1, [1, 1, 1, 1], 4, 1),
        (3, 2, [1, 1, 1, 1], 2, 1),
        (3, 2, [2, 2, 2, 2], 1, 2),
        (5, 1, [0, 2, 1, 3], 1, 1),
    ]
    return [
        pytest.param(
            [("Conv", "input w b", {"pads": pads, "strides": [s, s], "group": groups, "dilations": [gap, gap]})],
            IMAGE,
            {"w": floats(8, 4 // groups, k, k), "b": floats(8)},
            id=f"conv {k} by {s}, pads {pads}, {groups} groups, gaps {gap}",
        )
        for k, s, pads, groups, gap in table
    ]


def transposed() -> list[Any]:
    """Kernels, strides, pads before and after, and what is added at the end, which may reach beyond all windows."""
    table = [(2, 2, [0, 0, 0, 0], 0), (4, 2, [1, 1, 1, 1], 0), (3, 2, [1, 1, 1, 1], 1), (3, 2, [0, 0, 0, 0], 1)]
    two = [
        pytest.param(
            [("ConvTranspose", "input w b", {"pads": pads, "strides": [s, s], "output_padding": [more, more]})],
            IMAGE,
            {"w": floats(4, 6, k, k), "b": floats(6)},
            id=f"transposed {k} by {s}, pads {pads}, {more} more",
        )
        for k, s, pads, more in table
    ]
    one_axis = [("ConvTranspose", "input w", {"pads": [1, 1], "strides": [2]}), ("Relu", "0", {})]
    return [*two, pytest.param(one_axis, (4, 9), {"w": floats(4, 6, 4)}, id="transposed, one axis")]


OPERATORS = [
    *convolutions(),
    *transposed(),
    *(
        pytest.param(
            [("Conv", "input w", {"pads": [1, 1], "strides": [2], "group": groups}), ("Relu", "0", {})],
            (4, 9),
            {"w": floats(8, 4 // groups, 3)},
            id=f"one axis, {groups} groups",
        )
        for groups in (1, 2, 4)
    ),
    pytest.param([("MaxPool", "input", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4})], IMAGE, {}),
    pytest.param([("AveragePool", "input", {"kernel_shape": [2, 2], "strides": [2, 2]})], IMAGE, {}),
    *(
        pytest.param(
            [("AveragePool", "input", {"kernel_shape": [3, 3], "pads": [1] * 4, "count_include_pad": counted})],
            IMAGE,
            {},
            id=f"mean with padding, counted {counted}",
        )
        for counted in (0, 1)
    ),
    pytest.param([("GlobalAveragePool", "input", {}), ("Flatten", "0", {})], IMAGE, {}),
    pytest.param(
        [CONV, ("Flatten", "0", {}), ("Gemm", "1 v b", {"transB": 1})],
        IMAGE,
        KERNEL | {"v": floats(3, 432), "b": floats(3)},
        id="a flat image keeps the order of its numbers",
    ),
    *(
        pytest.param(
            [CONV, ("ReduceMean", "0 a", {"keepdims": keep})],
            IMAGE,
            KERNEL | {"a": steps(*axes)},
            id=f"mean over {axes}, kept {keep}",
        )
        for axes in ((2, 3), (1,), (-1,))
        for keep in (0, 1)
    ),
    pytest.param(
        [CONV, ("GlobalAveragePool", "0", {}), ("Sigmoid", "1", {}), ("Mul", "0 2", {})], IMAGE, KERNEL, id="gate"
    ),
    pytest.param([CONV, ("Add", "0 z", {})], IMAGE, KERNEL | {"z": floats(6, 1, 1)}, id="a number a channel"),
    pytest.param([CONV, ("Div", "0 z", {})], IMAGE, KERNEL | {"z": one(3)}, id="one number"),
    pytest.param([CONV, ("Relu", "0", {}), ("Concat", "0 1", {"axis": 1})], IMAGE, KERNEL, id="concat"),
    pytest.param(
        [CONV, ("Slice", "0 from to axes by", {}), ("Pad", "1 pads", {})],
        IMAGE,
        KERNEL
        | {"from": steps(1, 0), "to": steps(2**62, 4), "axes": steps(2, 1), "by": steps(2, 1)}
        | {"pads": steps(0, 2, 0, 0, 0, 1, 0, 1)},
        id="slice, pad",
    ),
    *(
        pytest.param([CONV, ("Clip", "0 low high", {})], IMAGE, KERNEL | {"low": one(low), "high": one(high)})
        for low, high in ((0, 6), (-0.3, 0.6))
    ),
    pytest.param([CONV, ("HardSwish", "0", {})], IMAGE, KERNEL, id="hard swish"),
    pytest.param(
        [CONV, ("BatchNormalization", "0 s b m v", {})],
        IMAGE,
        KERNEL | {"s": floats(6), "b": floats(1, 6)[0], "m": floats(2, 6)[0], "v": floats(6) ** 2},
        id="batch norm",
    ),
    *(
        pytest.param([CONV, (kind, "0", attributes)], IMAGE, KERNEL, id=kind)
        for kind, attributes in (("HardSigmoid", {"alpha": 1 / 6}), ("LeakyRelu", {"alpha": 0.1}), ("Elu", {}))
    ),
    pytest.param([CONV, ("PRelu", "0 share", {})], IMAGE, KERNEL | {"share": floats(6, 1, 1)}, id="a share a channel"),
    pytest.param(
        [CONV, ("Split", "0 sizes", {"axis": 1}), ("Sigmoid", "1a", {}), ("Concat", "1 2", {"axis": 1})],
        IMAGE,
        KERNEL | {"sizes": steps(2, 4)},
        id="split",
    ),
    pytest.param(
        [("Gather", "input places", {"axis": 1})], (5, 7), {"places": np.array(-2)}, id="one place of an axis"
    ),
    pytest.param([("LogSoftmax", "input", {"axis": -1})], (7,), {}, id="log softmax"),
    pytest.param([("Gelu", "input", {})], (7,), {}, id="gelu"),
    pytest.param([("Softmax", "input", {"axis": -1})], (7,), {}, id="softmax"),
    pytest.param([("LayerNormalization", "input s b", {})], (5, 7), {"s": floats(7), "b": floats(7)}, id="layer norm"),
    pytest.param(
        [
            ("MatMul", "input q", {}),
            ("Transpose", "input", {"perm": [0, 2, 1]}),
            ("MatMul", "0 1", {}),
            ("Softmax", "2", {}),
            ("MatMul", "3 input", {}),
        ],
        (5, 7),
        {"q": floats(7, 7)},
        id="attention",
    ),
    pytest.param(
        [("Shape", "input", {"end": 1}), ("Concat", "0 k", {"axis": 0}), ("Reshape", "input 1", {})],
        (4, 6),
        {"k": steps(3, 8)},
        id="a shape that is computed",
    ),
]


def both(nodes: list[Step], shape: tuple[int, ...], constants: dict[str, Array], folder: Path) -> tuple[Array, Array]:
    """What ONNX Runtime and LiteRT make of three samples of a graph that was written on one."""
    last = len(nodes) - 1
    made = [
        helper.make_node(
            kind,
            inputs.split(),
            ["output" if place == last else str(place), *([f"{place}a"] if kind == "Split" else [])],
            **attributes,
        )
        for place, (kind, inputs, attributes) in enumerate(nodes)
    ]
    source = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *shape])
    arrays = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(made, "g", [source], [helper.make_empty_tensor_value_info("output")], arrays)
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()
    x = floats(3, *shape)
    exporter = LiteRt()
    (path,) = exporter.write(
        Source(onnx=content, ledger=Ledger(), module=None, example=(x[:1],)), folder / "out.tflite"
    )
    return Session(content, threads=1, name="onnx")(x), exporter.open(path, threads=1)(x)


@pytest.mark.parametrize(("nodes", "shape", "constants"), OPERATORS)
def test_operators_compute_the_same(
    nodes: list[Step], shape: tuple[int, ...], constants: dict[str, Array], tmp_path: Path
) -> None:
    expected, found = both(nodes, shape, constants, tmp_path)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("nodes", "why"),
    [
        ([("Erf", "input", {})], "Erf"),
        ([("Softmax", "input", {"axis": 1})], "last axis"),
        ([("Elu", "input", {"alpha": 0.5})], "alpha of 1"),
        ([("MaxPool", "input", {"kernel_shape": [3, 3], "dilations": [2, 2]})], "gaps"),
        ([("AveragePool", "input", {"kernel_shape": [3, 3], "pads": [2, 1, 0, 1]})], "leaves out padding"),
    ],
)
def test_what_is_not_translated_is_named(nodes: list[Step], why: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=why):
        both(nodes, IMAGE, {}, tmp_path)


@pytest.mark.parametrize("weights", [Int(bits=8), Int(bits=4), Int(bits=8, per="tensor")], ids=str)
def test_layers_run_in_integers(weights: Int, rounded: Any, samples: Array, tmp_path: Path) -> None:
    source = rounded(Quantize(weights=weights, activations=BYTE))
    made = whit.export(source, tmp_path / "out.tflite", to="litert", samples=samples)
    assert made.parity is not None
    assert made.parity.agreement == 1
    ran = operators(made.files[0])
    # The last layer hands on floats, which LiteRT has no integer layer for.
    assert ran["CONV_2D", "int8"] + ran["DEPTHWISE_CONV_2D", "int8"] == 4
    assert ran["FULLY_CONNECTED", "int8"] == 2
    assert ran["FULLY_CONNECTED", "float32"] == 1
    assert ran["ADD", "int8"] == ran["MAX_POOL_2D", "int8"] == ran["CONCATENATION", "int8"] == 1
    assert ran["TRANSPOSE", "int8"] + ran["TRANSPOSE", "float32"] == 1


def operators(path: Path) -> Counter[tuple[str, str]]:
    """How often each operator is in a file, with the type of what it makes."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(str(path), experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    types = {one["index"]: np.dtype(one["dtype"]).name for one in interpreter.get_tensor_details()}
    ran = interpreter._get_ops_details()
    return Counter((one["op_name"], types[int(one["outputs"][0])]) for one in ran)


def test_activations_of_other_than_8_bits_are_refused(tmp_path: Path) -> None:
    for activations in (replace(BYTE, bits=4), replace(BYTE, bits=16), Int(bits=8, per="tensor")):
        grid = RoundedActivation(tensor="relu", target=activations, scale=one(1), zero_point=np.int32(0))
        source = Source(onnx=b"", ledger=Ledger().record(grid), module=None, example=())
        with pytest.raises(ModelError, match=re.escape(f"Quantize relu with {BYTE}")):
            LiteRt().write(source, tmp_path / "out.tflite")


@pytest.mark.parametrize("bits", [4, 8])
def test_the_weights_are_stored_as_their_codes(bits: int, rounded: Any, samples: Array, tmp_path: Path) -> None:
    sizes: dict[int, int] = {}
    path = tmp_path / "out.tflite"
    for one_of in (bits, 8):
        whit.export(rounded(Quantize(weights=Int(bits=one_of))), path, to="litert", samples=samples, overwrite=True)
        sizes[one_of] = path.stat().st_size
    parameters = 3 * 16 * 9 + 16 * 16 * 9 + 16 * 9 + 16 * 32 + 48 * 64 + 64 * 64 + 64 * 5
    # What is not codes is the same in both.
    assert abs(sizes[8] - sizes[bits] - parameters * (8 - bits) / 8) < 100


def test_equal_vectors_stand_once() -> None:
    """A second weight of 100 channels on the grid of the first: 100 codes, but neither 400 bytes of scales nor 800."""

    def size(weights: int) -> int:
        file = Flatbuffer()
        image = file.tensor([1, 1], "float32")
        for place in range(weights):
            file.constant(np.full((100, 1), place, np.int8), Grid.of(np.full(100, 0.5, np.float32)))
        return len(file.finished([image], image))

    assert 100 <= size(2) - size(1) < 400


class Decoder(nn.Module):
    """Makes images of images, as networks that segment do."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(16, 8, 4, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.norm(self.up(torch.relu(self.down(x))))))


@pytest.mark.parametrize("bits", [4, 8])
def test_transposed_convolutions_of_codes_are_delivered(bits: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = floats(24, 3, 12, 12)
    net = Decoder().eval()
    with torch.no_grad():
        y = net(torch.from_numpy(x)).numpy()
    plan = whit.Plan(whit.FoldBatchNorm(), Quantize(weights=Int(bits=bits), activations=BYTE))
    result = whit.compress(net, plan, data=whit.Data.of(x, y, x, y), metric="mse")
    made = whit.export(result, tmp_path / "out.tflite", to="litert", samples=x)
    assert made.parity is not None
    assert made.parity.agreement == 1
    assert operators(made.files[0])["TRANSPOSE_CONV", "float32"] == 1
    assert made.bytes < 8 * 16 * 16 * bits / 8 + 16 * 27 + 16 * 8 + 6000  # the codes, and the rest of the file
