"""What an exported model says once."""

import onnx
from onnx import TensorProto, helper

from whit.onnx.tidy import shorten_


def model(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y")]
    return helper.make_model(helper.make_graph(list(nodes), "graph", values[:1], values[1:]))


def kinds(*nodes: onnx.NodeProto) -> list[str]:
    """The nodes that are left, each of which reads what those that are left make."""
    short = model(*nodes)
    shorten_(short, set())
    onnx.checker.check_model(short)
    return [node.op_type for node in short.graph.node]


def test_nodes_that_compute_the_same_of_the_same_become_one_and_so_do_those_behind_them() -> None:
    node = helper.make_node
    twice = [node("Abs", ["x"], [f"a{place}"]) for place in (0, 1)]
    behind = [node("Elu", [f"a{place}"], [f"b{place}"], alpha=0.5) for place in (0, 1)]
    assert kinds(*twice, *behind, node("Add", ["b0", "b1"], ["y"])) == ["Abs", "Elu", "Add"]


def test_other_attributes_other_inputs_randomness_and_outputs_of_the_model_stay() -> None:
    node = helper.make_node
    elus = [node("Elu", ["x"], [f"a{place}"], alpha=place + 0.5) for place in (0, 1)]
    random = [node("RandomNormalLike", ["x"], [f"r{place}"]) for place in (0, 1)]
    last = [node("Sum", ["a0", "a1", "r0", "r1"], ["s"]), node("Abs", ["s"], ["t"]), node("Abs", ["s"], ["y"])]
    assert kinds(*elus, *random, *last) == ["Elu", "Elu", "RandomNormalLike", "RandomNormalLike", "Sum", "Abs", "Abs"]
