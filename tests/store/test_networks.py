"""An ONNX model taken apart by a ledger and put together again."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from whit import runtime
from whit.errors import FileError, ModelError
from whit.formats import Int, nibbles
from whit.ledger import Assigned, Ledger, Rounded, RoundedActivation, RoundedBias, matrix
from whit.quantizers import Nearest
from whit.store import encode, read
from whit.store.network import join, split

HERE = Path("model.whit")
STEP = 0.05
"""The scale of the network's input."""

WEIGHTS = {
    "conv.weight": (Int(bits=8), (3, 2, 3, 3)),
    "grouped.weight": (Int(bits=4, per="group", group_size=4), (5, 12)),
    "nibbles.weight": (Int(bits=4, symmetric=False), (4, 5)),
    "tensor.weight": (Int(bits=5, symmetric=False, per="tensor"), (2, 4)),
}


def make_ledger(seed=0):
    """Rounded weights of four layouts, the bias of the first in integers and the others as they are."""
    rng = np.random.default_rng(seed)
    decisions = []
    for name, (target, shape) in WEIGHTS.items():
        weights = rng.normal(size=shape).astype(np.float32)
        decisions.append(Rounded.of(name, target, shape, Nearest().quantize(matrix(weights), target)))
        bias = rng.normal(size=shape[0]).astype(np.float32)
        decisions.append(Assigned(parameter=name.replace("weight", "bias"), values=bias))
    image = RoundedActivation(
        tensor="x", target=Int(bits=8, symmetric=False, per="tensor"), scale=np.float32(STEP), zero_point=np.int32(128)
    )
    first, plain, *others = decisions
    return Ledger().record(first, image, RoundedBias.of(plain.parameter, plain.values, first, image), *others)


def make_model(ledger):
    """A network whose first layer runs in integers; its other layers read weights of 4 and 5 bits."""
    nodes, initializers = [], []

    def plain(name, values):
        initializers.append(numpy_helper.from_array(np.asarray(values), name))

    def node(kind, inputs, output, **attributes):
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))

    def weight(name, data_type, layout, **attributes):
        decision = ledger.rounded()[name]
        codes = decision.codes if decision.target.per == "group" else decision.shaped(decision.codes)
        for part, values in (("codes", codes), ("zero_point", decision.zero_point.reshape(layout))):
            if data_type in (TensorProto.INT4, TensorProto.UINT4):
                item = helper.make_tensor(f"{name}:{part}", data_type, values.shape, nibbles(values), raw=True)
            else:
                kind = np.int8 if data_type == TensorProto.INT8 else np.uint8
                item = numpy_helper.from_array(values.astype(kind), f"{name}:{part}")
            initializers.append(item)
        plain(f"{name}:scale", decision.scale.reshape(layout))
        node("DequantizeLinear", [f"{name}:{part}" for part in ("codes", "scale", "zero_point")], name, **attributes)

    plain("step", np.float32(STEP))
    plain("middle", np.uint8(128))
    node("QuantizeLinear", ["x", "step", "middle"], "x:codes")
    node("DequantizeLinear", ["x:codes", "step", "middle"], "x:rounded")
    weight("conv.weight", TensorProto.INT8, (3,), axis=0)
    plain("conv.bias:int32", ledger.biases()["conv.bias"].codes)
    plain("conv.bias:scale", ledger.biases()["conv.bias"].scale)
    node("DequantizeLinear", ["conv.bias:int32", "conv.bias:scale"], "conv.bias", axis=0)
    node("Conv", ["x:rounded", "conv.weight", "conv.bias"], "convolved")
    node("Flatten", ["convolved"], "h")
    weight("grouped.weight", TensorProto.INT4, (5, 3), axis=1, block_size=4)
    weight("nibbles.weight", TensorProto.UINT4, (4,), axis=0)
    weight("tensor.weight", TensorProto.UINT8, ())
    for reads, name, makes in (("h", "grouped", "g"), ("g", "nibbles", "n"), ("n", "tensor", "y")):
        plain(f"{name}.bias", ledger.assigned()[f"{name}.bias"])
        node("Gemm", [reads, f"{name}.weight", f"{name}.bias"], makes, transB=1)
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 2, 4, 4))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 2))],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.fixture
def ledger():
    return make_ledger()


@pytest.fixture
def model(ledger):
    return make_model(ledger)


def initializers(serialized):
    """Type, shape and bytes of every initializer by name."""
    graph = onnx.load_model_from_string(serialized).graph
    return {item.name: (item.data_type, tuple(item.dims), item.raw_data) for item in graph.initializer}


def outputs(serialized, x):
    session = onnxruntime.InferenceSession(serialized, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def test_join_gives_back_the_initializers_that_split_took(model, ledger):
    graph, recipe = split(model.SerializeToString(), ledger)
    assert initializers(join(graph, recipe, ledger, HERE)) == initializers(model.SerializeToString())


def test_join_leaves_the_rest_of_the_model_as_it_was(model, ledger):
    joined = onnx.load_model_from_string(join(*split(model.SerializeToString(), ledger), ledger, HERE))
    for one in (joined, model):
        del one.graph.initializer[:]
    assert joined == model
    onnx.checker.check_model(make_model(ledger))


def test_the_joined_model_computes_what_the_original_computes(model, ledger):
    serialized = model.SerializeToString()
    joined = join(*split(serialized, ledger), ledger, HERE)
    x = np.random.default_rng(1).normal(size=(1, 2, 4, 4)).astype(np.float32)
    np.testing.assert_array_equal(outputs(joined, x), outputs(serialized, x))


def test_only_what_the_ledger_does_not_have_stays_in_the_graph(model, ledger):
    graph, recipe = split(model.SerializeToString(), ledger)
    assert initializers(graph).keys() == {"step", "middle"}
    # Of the ledger, in its order: four weights, a bias in integers and three as they are.
    assert recipe == [TensorProto.INT8, TensorProto.INT4, TensorProto.UINT4, TensorProto.UINT8, 6, 1, 1, 1]


def test_equal_models_give_equal_files(ledger):
    about = {"a": 1}
    files = {encode(make_ledger(), make_model(ledger).SerializeToString(), about) for _ in range(2)}
    assert len(files) == 1


def test_a_file_runs_without_the_onnx_package_as_the_model_does(model, ledger, tmp_path):
    path = tmp_path / "model.whit"
    path.write_bytes(encode(ledger, model.SerializeToString(), {}))
    assert initializers(read(path).onnx()) == initializers(model.SerializeToString())
    x = np.ones((1, 2, 4, 4), np.float32)
    np.testing.assert_array_equal(runtime.load(path)(x), outputs(model.SerializeToString(), x))


def test_a_graph_that_disagrees_with_the_ledger_is_refused(model):
    with pytest.raises(ModelError, match=r"conv\.weight:codes in the exported graph is not what the ledger holds"):
        split(model.SerializeToString(), make_ledger(seed=1))


def test_a_recipe_for_another_ledger_is_refused(model, ledger):
    graph, recipe = split(model.SerializeToString(), ledger)
    with pytest.raises(FileError, match=r"model\.whit: the network's weights are not a list of 0"):
        join(graph, recipe, Ledger(), HERE)
    with pytest.raises(FileError, match=r"model\.whit, conv\.weight in the network: .* ONNX type 21"):
        join(graph, [21, *recipe[1:]], ledger, HERE)


def test_a_source_that_the_graph_does_not_have_is_0(ledger):
    more = ledger.record(Assigned(parameter="steps", values=np.array(7)))
    graph, recipe = split(make_model(ledger).SerializeToString(), more)
    assert recipe[-1] == 0
    assert initializers(join(graph, recipe, more, HERE)) == initializers(make_model(ledger).SerializeToString())
