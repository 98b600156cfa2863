"""What is wrong with a file is said before anything is made of it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from whit import DataError, ModelError, ParityError
from whit.torch.onnx_file import check_same, open_onnx_file

Change = Callable[[onnx.ModelProto], Any]


@pytest.fixture
def model(drawing: Any) -> onnx.ModelProto:
    file = drawing("N", 4, 7, 6)
    x = file.then("Relu", file.then("Conv", "x", file.normal(3, 4, 3, 3, name="kernel"), file.normal(3)))
    return file.model(file.then("Flatten", file.then("GlobalAveragePool", x)))


def refused(content: bytes, folder: Path) -> str:
    """The message with which a file is refused."""
    path = folder / "hostile.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError) as error:
        open_onnx_file(path)
    return str(error.value)


def conv(model: onnx.ModelProto) -> onnx.NodeProto:
    return model.graph.node[0]


def weight(model: onnx.ModelProto) -> TensorProto:
    return model.graph.initializer[0]


def attribute(model: onnx.ModelProto, name: str, value: Any) -> None:
    conv(model).attribute.append(helper.make_attribute(name, value))


def external(model: onnx.ModelProto) -> None:
    weight(model).data_location = TensorProto.EXTERNAL
    weight(model).external_data.add(key="location", value="../../etc/passwd")


def of_type(kind: int) -> Change:
    def change(model: onnx.ModelProto) -> None:
        weight(model).data_type = kind

    return change


def operator(name: str, domain: str = "") -> Change:
    def change(model: onnx.ModelProto) -> None:
        conv(model).op_type, conv(model).domain = name, domain

    return change


def transposed(name: str, value: Any) -> Change:
    def change(model: onnx.ModelProto) -> None:
        operator("ConvTranspose")(model)
        attribute(model, name, value)

    return change


def loop(model: onnx.ModelProto) -> None:
    conv(model).input[0] = model.graph.node[-1].output[0]


def opset(version: int) -> Change:
    def change(model: onnx.ModelProto) -> None:
        model.opset_import[0].version = version

    return change


def another_output(model: onnx.ModelProto) -> None:
    model.graph.output.add().name = model.graph.node[0].output[0]


def size(model: onnx.ModelProto, *sizes: int) -> None:
    del weight(model).dims[:]
    weight(model).dims.extend(sizes)


def blown_up(model: onnx.ModelProto) -> None:
    """A constant of a million times a million numbers, in a few bytes."""
    graph = model.graph
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([10**6, 10**6], np.int64), "huge"))
    graph.node.insert(0, helper.make_node("ConstantOfShape", ["huge"], ["zeros"], name="bomb"))


def branch(model: onnx.ModelProto) -> None:
    attribute(model, "body", helper.make_graph([], "inner", [], []))


HOSTILE: dict[str, tuple[Change, str]] = {
    "weights elsewhere": (
        external,
        "initializer kernel lies in '../../etc/passwd'; whit opens files in the same folder",
    ),
    "half precision": (of_type(TensorProto.FLOAT16), "initializer kernel has type float16; whit reads float, int64"),
    "complex numbers": (of_type(TensorProto.COMPLEX64), "has type complex64"),
    "a type of the future": (of_type(999), "has type 999"),
    "huge sizes": (lambda m: size(m, 1 << 40, 1 << 40), "holds 432; the file is damaged"),
    "negative sizes": (lambda m: size(m, -3, -4, 3, 3), r"declares the shape \(-3, -4, 3, 3\)"),
    "too few sizes": (
        lambda m: size(m, 108),
        r"node Conv_0 \(Conv\), opset 18, cannot be read: its weight has shape \(108,\)",
    ),
    "a bias of another size": (
        lambda m: m.graph.initializer[1].dims.__setitem__(0, 1),
        "holds 12; the file is damaged",
    ),
    "two of a name": (lambda m: m.graph.initializer.append(weight(m)), "two initializers named kernel"),
    "a cycle": (loop, r"node Conv_0 \(Conv\) reads v3, which nothing before it makes: the file has a cycle"),
    "a value made twice": (lambda m: m.graph.node.append(conv(m)), "makes v0, of which something is made already"),
    "an unknown operator": (
        operator("Einsum"),
        r"node Conv_0 \(Einsum\), opset 18, is not an operator.*It knows Abs, Add",
    ),
    "an operator of others": (operator("Conv", "com.example"), r"\(com.example:Conv\), opset 18, is not an operator"),
    "a quantized network": (operator("QLinearConv"), "quantized already; give whit the floating-point network"),
    "an unknown attribute": (
        lambda m: attribute(m, "sparse", 1),
        "cannot be read: got an unexpected keyword argument 'sparse'",
    ),
    "windows of another size": (
        lambda m: attribute(m, "kernel_shape", (5, 5)),
        r"shape \(3, 4, 3, 3\), its windows \(5, 5\)",
    ),
    "pads of another number": (lambda m: attribute(m, "pads", (1, 1, 1)), "cannot be read: zip"),
    "a padding of nobody's": (lambda m: attribute(m, "auto_pad", "SOME"), "its auto_pad is SOME; ONNX knows NOTSET"),
    "sizes that are asked for": (
        transposed("auto_pad", "SAME_UPPER"),
        "the sizes that it makes are asked for; whit reads those whose pads are given as numbers",
    ),
    "more is cut off at the end": (
        transposed("pads", (0, 0, 1, 0)),
        r"its pads are \(0, 0, 1, 0\); whit reads those by which the end loses as much as the front, or less",
    ),
    "a branch": (branch, "runs a graph of its own"),
    "an old opset": (opset(6), "opset 6; whit knows 7 to"),
    "an opset of the future": (opset(99), "opset 99; whit knows"),
    "no opset": (lambda m: m.ClearField("opset_import"), "opset none"),
    "two outputs": (another_output, "has the outputs v3, v0; whit compresses networks with one output"),
    "an output of nobody's": (lambda m: setattr(m.graph.output[0], "name", "y"), "has the outputs y"),
    "no inputs": (lambda m: m.graph.ClearField("input"), "the network has no inputs"),
    "an input of strings": (
        lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", TensorProto.STRING),
        "input x has type string",
    ),
    "an input without axes": (
        lambda m: m.graph.input[0].type.tensor_type.ClearField("shape"),
        "input x is not a tensor",
    ),
    "a number as input": (lambda m: m.graph.input[0].type.tensor_type.shape.ClearField("dim"), "is a single number"),
    "nothing": (lambda m: m.ClearField("graph"), "holds no network"),
    "sparse weights": (lambda m: m.graph.sparse_initializer.add(), "sparse initializers"),
    "a constant that explodes": (blown_up, r"bomb \(ConstantOfShape\) makes a value of shape \(1000000, 1000000\)"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_with_what_is_wrong(case: str, model: onnx.ModelProto, tmp_path: Path) -> None:
    change, message = HOSTILE[case]
    change(model)
    assert re.search(message, found := refused(model.SerializeToString(), tmp_path)), found


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\xff" * 64, b"not a model"], ids=str)
def test_what_is_no_onnx_file_is_refused(content: bytes, tmp_path: Path) -> None:
    assert "hostile.onnx: it " in refused(content, tmp_path)


def test_a_file_that_is_cut_short_or_changed_is_refused_or_read_and_nothing_else(
    model: onnx.ModelProto, tmp_path: Path
) -> None:
    content = model.SerializeToString()
    random = np.random.default_rng(0)
    path = tmp_path / "hostile.onnx"
    for place in range(200):
        changed = bytearray(content)
        if place % 2:
            del changed[random.integers(len(content)) :]
        else:
            changed[random.integers(len(content))] = random.integers(256)
        path.write_bytes(changed)
        try:
            open_onnx_file(path)
        except ModelError:
            continue


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no file"):
        open_onnx_file(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (
            np.zeros((2, 7, 6, 4), np.float32),
            r"takes float32 of shape \(samples, 4, 7, 6\).*Check the order of its axes",
        ),
        (np.zeros((2, 4, 7), np.float32), r"has float32 of shape \(2, 4, 7\)"),
        (np.zeros((2, 4, 7, 6), np.uint8), r"has uint8 of shape \(2, 4, 7, 6\). Convert it to float32"),
    ],
)
def test_data_that_are_not_as_declared_are_refused(
    x: Any, message: str, model: onnx.ModelProto, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(DataError, match=message):
        check_same(open_onnx_file(path), path, [x], "data")


def test_activations_that_explode_are_refused_before_they_are_computed(drawing: Any, tmp_path: Path) -> None:
    file = drawing("N", 8)
    path = file.save(file.then("Expand", "x", file.ints(10**9, 1, 8)), tmp_path)
    with pytest.raises(ModelError, match="makes a value of shape"):
        check_same(open_onnx_file(path), path, [np.zeros((2, 8), np.float32)], "data")


def test_a_module_that_computes_something_else_is_an_error(model: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    module = open_onnx_file(path)
    x = np.random.default_rng(0).normal(size=(2, 4, 7, 6)).astype(np.float32)
    check_same(module, path, [x], "data")
    with torch.no_grad():
        module.get_parameter("Conv_0.bias").mul_(1.01)
    with pytest.raises(ParityError, match="does not compute what ONNX Runtime computes"):
        check_same(module, path, [x], "data")


def apart(model: onnx.ModelProto, folder: Path) -> Path:
    """A file whose weights lie in another, as torch's exporter writes it."""
    path = folder / "model.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    return path


def test_weights_in_a_file_of_its_own_are_read(model: onnx.ModelProto, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    expected = tmp_path / "whole" / "model.onnx"
    expected.write_bytes(model.SerializeToString())
    path = apart(model, tmp_path)
    assert b"model.onnx.data" in path.read_bytes()
    x = np.random.default_rng(0).normal(size=(2, 4, 7, 6)).astype(np.float32)
    check_same(open_onnx_file(path), expected, [x], "noise")
    check_same(open_onnx_file(expected), path, [x], "noise")


def moved(key: str, value: str) -> Change:
    def change(model: onnx.ModelProto) -> None:
        fields = {one.key: one for one in weight(model).external_data}
        fields[key].value = value

    return change


APART: dict[str, tuple[Change, str]] = {
    "another folder": (moved("location", "sub/model.data"), "lies in 'sub/model.data'; whit opens files in the same"),
    "a folder of Windows": (moved("location", "model\\x"), "whose names begin with model, and follows no paths"),
    "a file of others": (moved("location", "notes.txt"), "lies in 'notes.txt'; whit opens files in the same folder"),
    "nowhere": (moved("location", ""), "lies in ''; whit opens files"),
    "a file that is not there": (moved("location", "model.data"), "lies in model.data, which is no file beside it"),
    "a link": (moved("location", "model.link"), "lies in model.link, which is no file beside it"),
    "no number": (moved("offset", "here"), "at no place: invalid literal"),
    "before the start": (moved("offset", "-8"), "from byte -8 on"),
    "behind the end": (moved("length", str(1 << 40)), "1099511627776 bytes, which it has not; the file is damaged"),
    "too few": (moved("length", "8"), "432 bytes, and holds 8; the file is damaged"),
}


@pytest.mark.parametrize("case", APART)
def test_no_other_file_is_opened(case: str, model: onnx.ModelProto, tmp_path: Path) -> None:
    change, message = APART[case]
    path = apart(model, tmp_path)
    (tmp_path / "notes.txt").write_bytes(bytes(1000))
    (tmp_path / "model.link").symlink_to(tmp_path / "notes.txt")
    changed = onnx.load(path, load_external_data=False)
    change(changed)
    path.write_bytes(changed.SerializeToString())
    with pytest.raises(ModelError, match=re.escape(message)):
        open_onnx_file(path)
