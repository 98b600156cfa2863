"""What a model need not compute in every call: fewer nodes, the same numbers."""

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from whit.onnx.folding import fold_

X = np.random.default_rng(0).normal(size=(5, 2, 6)).astype(np.float32)
node = helper.make_node


def model(nodes: Sequence[onnx.NodeProto], constants: dict[str, list[int]] | None = None) -> onnx.ModelProto:
    """From ``x``, ``(batch, 2, 6)``, to ``y``."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2, 6])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    arrays = [numpy_helper.from_array(np.array(one, np.int64), name) for name, one in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), "graph", inputs, outputs, arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def computed(found: onnx.ModelProto) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(found.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": X})[0]


def folded(nodes: Sequence[onnx.NodeProto], constants: dict[str, list[int]] | None = None) -> list[str]:
    """The kinds of nodes that are left, in a model that computes bit for bit what it did."""
    found = model(nodes, constants)
    expected = computed(found)
    fold_(found)
    np.testing.assert_array_equal(computed(found), expected)
    return [one.op_type for one in found.graph.node]


def constant(name: str, *values: int) -> onnx.NodeProto:
    return node("Constant", [], [name], value_ints=list(values))


def test_a_shape_that_is_computed_from_the_batch_size_becomes_numbers() -> None:
    shape = [node("Shape", ["x"], ["s"], end=1), constant("twelve", 12), node("Concat", ["s", "twelve"], ["t"], axis=0)]
    assert folded([*shape, node("Reshape", ["x", "t"], ["r"]), node("Relu", ["r"], ["y"])]) == ["Reshape", "Relu"]


def test_a_shape_with_two_sizes_that_are_not_known_is_computed() -> None:
    """Two numbers are left open, and nobody can tell which is which."""
    nodes = [
        node("Shape", ["x"], ["s"], end=1),
        node("Transpose", ["x"], ["u"], perm=[1, 0, 2]),
        constant("n", -1),
        constant("one", 1),
        node("Concat", ["n", "s", "one"], ["t"], axis=0),
        node("Reshape", ["u", "t"], ["r"]),
        node("Relu", ["r"], ["y"]),
    ]
    assert "Concat" in folded(nodes)


def test_of_two_reshapes_in_a_row_the_second_is_left_and_none_that_leads_back() -> None:
    sizes = {"flat": [-1, 12], "other": [-1, 3, 4], "same": [-1, 2, 6]}
    first = node("Reshape", ["x", "flat"], ["r"])
    assert folded([first, node("Reshape", ["r", "other"], ["y"])], sizes) == ["Reshape"]
    back = node("Reshape", ["r", "same"], ["b"])
    assert folded([first, back, node("Relu", ["b"], ["y"])], sizes) == ["Relu"]


def test_a_zero_in_a_shape_is_a_size_of_what_it_reads_and_stays() -> None:
    first = node("Reshape", ["x", "flat"], ["r"])
    second = node("Reshape", ["r", "zero"], ["y"])
    assert folded([first, second], {"flat": [-1, 4], "zero": [0, 2, 2]}) == ["Reshape", "Reshape"]


@pytest.mark.parametrize(
    ("first", "second", "left"),
    [((0, 2, 1), (0, 2, 1), ["Relu"]), ((1, 2, 0), (2, 0, 1), ["Relu"]), ((1, 2, 0), (0, 2, 1), ["Transpose", "Relu"])],
)
def test_transpositions_in_a_row_are_one_or_none(
    first: tuple[int, ...], second: tuple[int, ...], left: list[str]
) -> None:
    nodes = [node("Transpose", ["x"], ["t"], perm=first), node("Transpose", ["t"], ["u"], perm=second)]
    assert folded([*nodes, node("Relu", ["u"], ["y"])]) == left


def test_what_does_nothing_is_gone() -> None:
    nodes = [
        node("Identity", ["x"], ["a"]),
        node("Cast", ["a"], ["b"], to=TensorProto.FLOAT),
        node("CastLike", ["b", "x"], ["c"]),
        node("Slice", ["c", "zero", "end", "zero"], ["d"]),
        node("Slice", ["d", "zero", "six", "two"], ["e"]),
        node("Concat", ["e"], ["f"], axis=1),
        node("Relu", ["f"], ["y"]),
    ]
    constants = {"zero": [0], "end": [np.iinfo(np.int64).max], "six": [6], "two": [2]}
    assert folded(nodes, constants) == ["Relu"]


def test_what_does_something_stays() -> None:
    nodes = [
        node("Cast", ["x"], ["a"], to=TensorProto.DOUBLE),
        node("CastLike", ["a", "x"], ["b"]),
        node("Slice", ["b", "zero", "five", "two"], ["c"]),
        node("Slice", ["c", "zero", "end", "two", "steps"], ["d"]),
        node("Slice", ["d", "zero", "one", "zero"], ["y"]),  # the batch may be larger than one
    ]
    constants = {"zero": [0], "one": [1], "five": [5], "two": [2], "end": [5], "steps": [2]}
    assert folded(nodes, constants) == ["Cast", "CastLike", "Slice", "Slice", "Slice"]


def test_what_the_model_gives_keeps_its_name() -> None:
    assert folded([node("Identity", ["x"], ["y"])]) == ["Identity"]


def test_rounding_is_left_as_it_is() -> None:
    rounding = [
        node("QuantizeLinear", ["x", "scale", "point"], ["q"]),
        node("DequantizeLinear", ["q", "scale", "point"], ["d"]),
    ]
    found = model([*rounding, *(node(kind, *rest) for kind, *rest in (("Relu", ["d"], ["y"]),))])
    found.graph.initializer.extend(
        [
            numpy_helper.from_array(np.float32(0.1), "scale"),
            numpy_helper.from_array(np.uint8(128), "point"),
        ]
    )
    before = found.graph.SerializeToString(deterministic=True)
    fold_(found)
    assert found.graph.SerializeToString(deterministic=True) == before
