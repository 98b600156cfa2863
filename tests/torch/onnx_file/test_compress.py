"""An ONNX file goes through every step as a module does."""

from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import whit
from whit.cli import app
from whit.runtime import Session, open_onnx
from whit.torch.onnx_file import open_onnx_file

BYTES = whit.Quantize(
    weights=whit.Int(bits=8, reduce_range=True), activations=whit.Int(bits=8, symmetric=False, per="tensor")
)


def residual(d: Any, batch_norm: bool = True) -> str:
    """A residual network that reads images with channels last, as converters from TensorFlow write it."""
    x = d.then("Transpose", "x", perm=(0, 3, 1, 2))
    x = d.then("Conv", x, d.normal(8, 3, 3, 3), auto_pad="SAME_UPPER")
    if batch_norm:
        variance = d.array(np.linspace(0.5, 2, 8).astype(np.float32))
        x = d.then("BatchNormalization", x, d.normal(8), d.normal(8), d.normal(8), variance)
    x = d.then("Relu", x)
    inner = d.then(
        "Relu", d.then("Conv", x, d.normal(16, 8, 3, 3), d.normal(16), auto_pad="SAME_UPPER", strides=(2, 2))
    )
    inner = d.then("Conv", inner, d.normal(16, 1, 3, 3), d.normal(16), group=16, pads=(1, 1, 1, 1))
    beside = d.then("Conv", x, d.normal(16, 8, 1, 1), strides=(2, 2))
    x = d.then("GlobalAveragePool", d.then("Relu", d.then("Add", inner, beside)))
    x = d.then("Squeeze", x, d.ints(2, 3))
    return d.then("Add", d.then("MatMul", x, d.normal(16, 4)), d.normal(4))


def images(count: int = 64) -> tuple[Any, Any]:
    generator = np.random.default_rng(0)
    return generator.normal(size=(count, 8, 8, 3)).astype(np.float32), generator.integers(0, 4, count)


@pytest.fixture
def path(drawing: Any, tmp_path: Path) -> Path:
    file = drawing("N", 8, 8, 3)
    return file.save(residual(file), tmp_path)


def test_every_step_works_on_a_file(path: Path, tmp_path: Path) -> None:
    plan = whit.Plan(
        whit.FoldBatchNorm(),
        whit.Prune(amount=0.5, unit="channel"),
        BYTES,
        whit.Finetune(epochs=1, distill=whit.Distill()),
    )
    result = whit.compress(str(path), plan, data=images())
    assert result.original_onnx == path.read_bytes()  # before is measured on the very file
    assert result.after.macs < 0.6 * result.before.macs
    assert not result.skipped or all("output" in one.reason for one in result.skipped)
    assert result.parity.agreement == 1
    whit.save(result, tmp_path / "model.whit")
    loaded = whit.load(tmp_path / "model.whit", into=path)
    x = torch.from_numpy(images()[0])
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), result.model(x))
        np.testing.assert_allclose(whit.runtime.load(tmp_path / "model.whit")(x.numpy()), loaded(x).numpy(), atol=0.5)


def test_a_file_and_the_module_read_from_it_give_the_same_codes(path: Path) -> None:
    step = whit.Quantize(weights=whit.Int(bits=4), method=whit.OptimalBrain(rate=1e-4))
    results = [
        whit.compress(one, whit.Plan(whit.FoldBatchNorm(), step), data=images()) for one in (path, open_onnx_file(path))
    ]
    assert results[0].file == results[1].file
    assert results[0].after.bytes < 0.6 * results[0].before.bytes


def test_layers_are_named_after_nodes(path: Path) -> None:
    modules = dict(open_onnx_file(path).named_children())
    kinds = {name: type(module).__name__ for name, module in modules.items()}
    assert kinds == {
        "Conv_1": "Conv2d",
        "BatchNormalization_2": "BatchNorm",
        "Conv_4": "Conv2d",
        "Conv_6": "Conv2d",
        "Conv_7": "Conv2d",
        "MatMul_12": "Linear",
    }
    assert modules["MatMul_12"].bias is not None  # what was added behind it


@pytest.mark.parametrize(
    ("name", "found"), [("/layer1.0/conv/Conv", "layer1_0_conv_Conv"), ("forward", "forward_2"), ("7", "n7")]
)
def test_a_name_of_the_file_becomes_one_that_a_module_may_have(
    name: str, found: str, drawing: Any, tmp_path: Path
) -> None:
    file = drawing("N", 8)
    model = file.model(file.then("Gemm", "x", file.normal(8, 2)))
    model.graph.node[0].name = name
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    assert f"{found}.weight" in open_onnx_file(tmp_path / "model.onnx").state_dict()


def test_nodes_with_the_same_weights_are_one_layer(drawing: Any, tmp_path: Path) -> None:
    file = drawing("N", 8)
    weight = file.normal(8, 8)
    once = file.then("Relu", file.then("MatMul", "x", weight))
    module = open_onnx_file(file.save(file.then("MatMul", once, weight), tmp_path))
    assert list(module.state_dict()) == ["MatMul_0.weight"]


def test_a_file_for_one_batch_size_takes_every_other(drawing: Any, tmp_path: Path) -> None:
    file = drawing(1, 4, 2, 3)
    rows = file.then("Reshape", "x", file.ints(1, 24))
    path = file.save(file.then("Gemm", rows, file.normal(24, 5)), tmp_path)
    x = np.random.default_rng(0).normal(size=(50, 4, 2, 3)).astype(np.float32)
    result = whit.compress(path, whit.Prune(amount=0.5), data=(x, np.zeros(50, np.int64)))
    assert all(Session(one, threads=1, name="")(x).shape == (50, 5) for one in (result.original_onnx, result.onnx))


def test_a_file_whose_batch_cannot_be_freed_is_refused(drawing: Any, tmp_path: Path) -> None:
    file = drawing(2, 6)
    path = file.save(file.then("Reshape", file.then("Reshape", "x", file.ints(3, 4)), file.ints(2, 6)), tmp_path)
    x = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    with pytest.raises(whit.WhitError, match=r"batches of exactly 2|cannot run on values"):
        whit.compress(path, whit.Prune(amount=0.5), data=(x, np.zeros(50, np.int64)))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(20, 16), nn.Parameter(torch.randn(6, 16))
        self.norm, self.qkv = nn.LayerNorm(16), nn.Linear(16, 48)
        self.out, self.head = nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.words(tokens) + self.places
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm(x)).view(batch, length, 3, 4, width // 4).permute(2, 0, 3, 1, 4)
        shares = torch.softmax(q @ k.transpose(-2, -1) / 2.0, -1)
        x = x + self.out((shares @ v).transpose(1, 2).reshape(batch, length, width))
        return self.head(nn.functional.gelu(x).mean(1))


def test_what_torch_exports_of_a_transformer_can_be_read(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokens = np.random.default_rng(0).integers(0, 20, (40, 6))
    program = torch.onnx.export(
        Attention().eval(),
        (torch.from_numpy(tokens[:2]),),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    assert program is not None
    program.save(tmp_path / "model.onnx")
    data = (tokens, np.zeros(40, np.int64))
    result = whit.compress(tmp_path / "model.onnx", whit.Quantize(weights=whit.Int(bits=8)), data=data)
    assert len(result.ledger.rounded()) == 4  # words, qkv, out and head


def test_the_command_line_takes_a_file(drawing: Any, tmp_path: Path) -> None:
    file = drawing("N", 8, 8, 3)
    file.save(residual(file, batch_norm=False), tmp_path)
    x, y = images()
    np.savez(tmp_path / "data.npz", x=(x * 20).round().astype(np.int8), y=y)
    whit.save_plan(whit.Plan(BYTES), tmp_path / "plan.toml")
    command = ["compress", "model.onnx", "--data", "data.npz", "--plan", "plan.toml", "--out", "run"]
    with chdir(tmp_path):
        refused = CliRunner().invoke(app, command)
        assert "has int8 of shape" in refused.stderr
        weights = CliRunner().invoke(app, [*command, "--weights", "w.safetensors"])
        assert "holds its weights itself" in weights.stderr
        outcome = CliRunner().invoke(app, [*command, "--scale", "0.05"])
    assert outcome.exit_code == 0, outcome.output
    session = open_onnx(tmp_path / "run" / "model.onnx")
    assert session(x).shape == (64, 4)
    assert onnx.load(tmp_path / "run" / "model.onnx").graph.input[0].type.tensor_type.shape.dim[3].dim_value == 3
