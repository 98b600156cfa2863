"""OpenVINO IR: every number format arrives as it was decided, in files as small as they should be."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import whit
from whit import Data, Int, ModelError, Quantize
from whit.data import Array

openvino = pytest.importorskip("openvino", reason="pip install 'whit[openvino]'")

BYTE = Int(bits=8, symmetric=False, per="tensor")


@pytest.mark.parametrize("weights", [Int(bits=8, reduce_range=True), Int(bits=4, per="tensor")], ids=str)
def test_layers_run_in_integers(weights: Int, rounded: Any, samples: Array, tmp_path: Path) -> None:
    source = rounded(Quantize(weights=weights, activations=BYTE))
    made = whit.export(source, tmp_path / "out.xml", to="openvino", samples=samples)
    assert made.files == (tmp_path / "out.xml", tmp_path / "out.bin")
    assert made.bytes == sum(file.stat().st_size for file in made.files)
    compiled = openvino.Core().compile_model(str(made.files[0]), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    facts = [operation.get_rt_info() for operation in compiled.get_runtime_model().get_ops()]
    layers = [one for one in facts if one["layerType"].astype(str) in ("Convolution", "FullyConnected")]
    assert len(layers) == 7
    assert {one["runtimePrecision"].astype(str) for one in layers} <= {"u8", "i8"}


@pytest.mark.parametrize("bits", [4, 8])
def test_the_weights_are_stored_as_their_codes(bits: int, rounded: Any, samples: Array, tmp_path: Path) -> None:
    source = rounded(Quantize(weights=Int(bits=bits)))
    made = whit.export(source, tmp_path / "out.xml", to="openvino", samples=samples)
    parameters = 3 * 16 * 9 + 16 * 16 * 9 + 16 * 9 + 16 * 32 + 48 * 64 + 64 * 64 + 64 * 5
    rows = 16 + 16 + 16 + 32 + 64 + 64 + 5
    # Scales and biases are float32; beside them there are only shapes and the like.
    codes = made.files[1].stat().st_size - 8 * rows
    assert parameters * bits / 8 <= codes < parameters * bits / 8 + 300


def test_rows_that_groups_do_not_divide_are_refused(rounded: Any, samples: Array, tmp_path: Path) -> None:
    # The first convolution has rows of 27 weights.
    source = rounded(Quantize(weights=Int(bits=4, per="group", group_size=16)))
    with pytest.raises(ModelError, match=re.escape(f"float32. Quantize it with {Int(bits=4)}")):
        whit.export(source, tmp_path / "out.xml", to="openvino", samples=samples)


def test_the_graph_says_everything_once(rounded: Any, samples: Array, tmp_path: Path) -> None:
    source = rounded(Quantize(weights=Int(bits=8), activations=BYTE))
    made = whit.export(source, tmp_path / "out.xml", to="openvino", samples=samples)
    text = made.files[0].read_text(encoding="utf-8")
    constants = re.findall(r'type="Const"[^>]*>(.*?)</layer>', text)
    assert len(constants) == len(set(constants))
    # The lowest number that a rectified activation is clipped at is 0 for all, so it is there once.
    assert text.count('type="FakeQuantize"') > text.count('element_type="f32" shape="1, 1, 1, 1"') / 2
    assert "<dim>" not in text
    model = openvino.Core().read_model(made.files[0])
    assert [port.get_any_name() for port in (*model.inputs, *model.outputs)] == ["input", "output"]


class Residual(nn.Module):
    """Three branches one after the other, each added to what it reads."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        convolutions = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(6))
        self.branches = nn.ModuleList(nn.Sequential(one, nn.ReLU(), next(convolutions)) for one in convolutions)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        for branch in self.branches:
            x = F.relu(branch(x) + x)
        return self.head(x)


def test_what_is_added_in_a_residual_block_is_rounded_before_and_after(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(64, 8, 6, 6)).astype(np.float32)
    with torch.no_grad():
        y = Residual()(torch.from_numpy(x)).numpy()
    result = whit.compress(Residual().eval(), Quantize(activations=BYTE), data=Data.of(x, y, x, y), metric="mse")
    made = whit.export(result, tmp_path / "out.xml", to="openvino", samples=x)
    # With the first rounding left out it is 0.007: a third of a layer is the next code then.
    assert made.parity.mean_abs < 1e-4 * y.std()


def test_several_inputs_arrive_in_their_order(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    from whit.export import Source
    from whit.export.openvino import OpenVino
    from whit.ledger import Ledger

    names = [f"input_{place}" for place in range(12)]
    nodes = [helper.make_node("Sub", ["input_11", "input_2"], ["output"])]
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in names]
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 2])
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, [output]), opset_imports=[helper.make_opsetid("", 21)]
    )
    source = Source(onnx=model.SerializeToString(), ledger=Ledger(), module=None, example=())
    exporter = OpenVino()
    runs = exporter.open(exporter.write(source, tmp_path / "m.xml")[0], threads=1)
    x = [np.full((3, 2), place, np.float32) for place in range(12)]
    np.testing.assert_array_equal(runs(*x), np.full((3, 2), 9, np.float32))
