"""Padding that torch's layers cannot say is in the exported layers all the same."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import whit
from whit.data import Samples
from whit.ledger import Ledger
from whit.onnx.pads import merge_pads_
from whit.runtime import Session
from whit.torch.network import TorchNetwork

BYTES = whit.Quantize(
    weights=whit.Int(bits=8, reduce_range=True), activations=whit.Int(bits=8, symmetric=False, per="tensor")
)


class Padded(nn.Module):
    """As networks from TensorFlow pad where they step by two."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        self.body = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(F.pad(x, (0, 1, 0, 1))))
        x = F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-torch.inf), 3, 2)
        x = F.relu(self.body(F.pad(x, (1, 0, 2, 0))))
        return torch.softmax(self.head(x.mean((2, 3))), -1)


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 3, 12, 12)).astype(np.float32)


def operators(content: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_model_from_string(content).graph.node]


@pytest.fixture(scope="module")
def result() -> whit.Result[Padded]:
    torch.manual_seed(0)
    return whit.compress(Padded(), BYTES, data=(images(60), np.zeros(60, np.int64)))


def test_layers_pad_for_themselves_in_floating_point_and_in_integers(result: whit.Result[Padded]) -> None:
    for content in (result.original_onnx, result.onnx):
        assert "Pad" not in operators(content)
    pads = [
        list(item.ints)
        for node in onnx.load_model_from_string(result.onnx).graph.node
        for item in node.attribute
        if item.name == "pads"
    ]
    assert pads == [[0, 0, 1, 1], [0, 0, 1, 1], [3, 2, 1, 1]]
    assert result.parity.agreement == 1


def test_layers_that_pad_run_in_integers_in_onnx_runtime(result: whit.Result[Padded], tmp_path: Path) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(result.onnx, options, providers=["CPUExecutionProvider"])
    kinds = operators((tmp_path / "optimized.onnx").read_bytes())
    assert kinds.count("QLinearConv") == 2
    assert "QGemm" in kinds
    assert not {"Conv", "Gemm", "Pad"} & set(kinds)


def test_what_a_last_softmax_reads_is_not_rounded(result: whit.Result[Padded]) -> None:
    nodes = onnx.load_model_from_string(result.onnx).graph.node
    assert nodes[-1].op_type == "Softmax"
    assert nodes[-2].op_type == "Gemm"


@pytest.mark.parametrize(
    ("pad", "merged"),
    [
        (lambda x: F.pad(x, (1, 1, 0, 2)), True),
        (lambda x: F.pad(x, (1, 1, 0, 2), value=1.0), False),
        (lambda x: F.pad(x, (1, 1, 1, 2), mode="reflect"), False),
        (lambda x: F.pad(x, (1, 1, -1, 2)), False),
        (lambda x: F.pad(x, (1, 1, 0, 2, 0, 1))[:, :3], False),
    ],
)
def test_only_zeros_around_images_are_merged(pad: object, merged: bool, tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(pad(x))  # type: ignore[operator]

    net = TorchNetwork(Net(), (images(4),))
    net.export(tmp_path / "model.onnx", Ledger())
    content = (tmp_path / "model.onnx").read_bytes()
    assert ("Pad" not in operators(content)) == merged
    samples = Samples((images(4),), np.zeros(4, np.int64))
    found = Session(content, threads=1, name="model")(*samples.inputs)
    np.testing.assert_allclose(found, net.predict(samples), atol=1e-5)


def test_a_pad_that_others_read_stays() -> None:
    nodes = [
        onnx.helper.make_node("Pad", ["x", "pads"], ["p"]),
        onnx.helper.make_node("Conv", ["p", "w"], ["c"]),
        onnx.helper.make_node("Relu", ["p"], ["r"]),
    ]
    arrays = {"pads": np.array([0, 0, 1, 0, 0, 0, 0, 1]), "w": np.zeros((1, 1, 2, 2), np.float32)}
    initializers = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [], [], initializers))
    merge_pads_(model)
    assert [(node.op_type, node.input[0]) for node in model.graph.node] == [("Pad", "x"), ("Conv", "x"), ("Relu", "p")]
