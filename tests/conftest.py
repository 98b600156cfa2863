"""A tiny network, its data, and one run of the command line on them, shared by the tests that need a result."""

import os
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

# One thread, said before torch is imported: what small networks are trained to differs with the number of threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

NETWORK = '''
"""What the command line tests name."""

import numpy as np
import torch
from torch import nn

import whit


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


def make():
    torch.manual_seed(0)
    return Net()


def broken():
    return 1 / 0


def with_nan():
    net = make()
    net.conv.weight.data[0, 0, 0, :2] = float("nan")
    return net


def needs_width(width):
    return Net()


def make_arrays():
    generator = np.random.default_rng(0)
    return generator.normal(size=(40, 3, 8, 8)).astype(np.float32), generator.integers(0, 4, 40)


def make_data():
    return whit.Data.split(*make_arrays())


def make_list():
    return list(make_arrays())


number = 3
'''

PLAN = """
[[step]]
kind = "fold_batch_norm"

[[step]]
kind = "prune"
amount = 0.5
unit = "channel"

[[step]]
kind = "prune"
amount = 0.25

[[step]]
kind = "quantize"
activations = {kind = "int", bits = 8, symmetric = false, per = "tensor"}
"""

COMPRESS = ["compress", "tiny_network:make", "--data", "data.npz", "--plan", "plan.toml"]
IMAGES = ["--scale", "0.0039", "--mean", "0.5,0.5,0.5", "--layout", "NHWC"]


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``tiny_network.py``, ``data.npz`` (bytes, NHWC), ``weights.safetensors`` and ``plan.toml``."""
    from safetensors.numpy import save_file

    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny_network.py").write_text(NETWORK)
    (folder / "plan.toml").write_text(PLAN)
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (200, 8, 8, 3), dtype=np.uint8)
    np.savez(folder / "data.npz", x=x, y=generator.integers(0, 4, 200))
    shapes = {"conv.weight": (8, 3, 3, 3), "conv.bias": (8,), "norm.weight": (8,), "norm.bias": (8,)}
    shapes |= {"norm.running_mean": (8,), "head.weight": (4, 8), "head.bias": (4,)}
    weights: dict[str, Any] = {name: generator.normal(size=size).astype(np.float32) for name, size in shapes.items()}
    weights |= {"norm.running_var": np.ones(8, np.float32), "norm.num_batches_tracked": np.array(0)}
    save_file(weights, folder / "weights.safetensors")
    return folder


@pytest.fixture(scope="session")
def tiny_run(tiny_folder: Path) -> tuple[Path, str]:
    """The folder that ``whit compress --keep-original`` wrote, and what it printed."""
    from whit.cli import app

    options = ["--weights", "weights.safetensors", "--out", "made/run", "--keep-original", *IMAGES]
    with chdir(tiny_folder):
        outcome = CliRunner(env={"COLUMNS": "80"}).invoke(app, [*COMPRESS, *options])
    assert outcome.exit_code == 0, outcome.output
    return tiny_folder / "made" / "run", outcome.stdout


@pytest.fixture(scope="session")
def tiny_result(tiny_run: tuple[Path, str]) -> Any:
    """The result of such a run, made from what it wrote; its model is not there."""
    from whit.cli.output import read_result

    return read_result(tiny_run[0])


@pytest.fixture
def in_tiny_folder(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder is ``tiny_folder``, and is as it was afterwards."""
    before = {item.name for item in tiny_folder.iterdir()} | {"__pycache__", "made"}
    monkeypatch.chdir(tiny_folder)
    yield tiny_folder
    assert {item.name for item in tiny_folder.iterdir()} <= before, "the test left something behind"


class Sketch:
    """A network drawn by hand: each method adds an operation and gives the name of its output."""

    def __init__(self) -> None:
        """Nothing is drawn yet."""
        self.tensors: dict[str, Any] = {}
        self.operations: list[Any] = []

    def tensor(self, name: str, *shape: int, role: str) -> str:
        """An input, a parameter, a constant or an activation."""
        from whit.graph import Tensor

        self.tensors[name] = Tensor(name=name, shape=shape, role=role)  # type: ignore[arg-type]
        return name

    def apply(
        self, kind: str, *inputs: str, shape: tuple[int, ...] | None = None, layer: str = "", **attributes: Any
    ) -> str:
        """Any operation; its output has the first input's shape unless another is given."""
        from whit.graph import Operation

        shape = self.tensors[inputs[0]].shape if shape is None else shape
        output = self.tensor(f"{layer or kind}.{len(self.operations)}", *shape, role="activation")
        operation = Operation(kind=kind, inputs=inputs, output=output, layer=layer, attributes=attributes)
        self.operations.append(operation)
        return output

    def conv(self, x: str, layer: str, channels: int, *, groups: int = 1, bias: bool = False) -> str:
        """A 3x3 convolution that keeps height and width."""
        batch, read, *space = self.tensors[x].shape
        parameters = self._parameters(layer, (channels, read // groups, 3, 3), bias=bias)
        return self.apply("conv", x, *parameters, shape=(batch, channels, *space), layer=layer, groups=groups)

    def linear(self, x: str, layer: str, features: int, *, bias: bool = False) -> str:
        """A linear layer on the last axis."""
        *rest, read = self.tensors[x].shape
        parameters = self._parameters(layer, (features, read), bias=bias)
        return self.apply("linear", x, *parameters, shape=(*rest, features), layer=layer)

    def norm(self, x: str, layer: str) -> str:
        """A batch normalisation."""
        size = self.tensors[x].shape[1]
        parts = ("weight", "bias", "running_mean", "running_var")
        names = [self.tensor(f"{layer}.{part}", size, role="parameter") for part in parts]
        return self.apply("batch_norm", x, *names, layer=layer)

    def mean(self, x: str) -> str:
        """The mean over height and width, which are gone."""
        return self.apply("mean", x, shape=self.tensors[x].shape[:2], axes=(2, 3), keepdim=False)

    def graph(self, *outputs: str, batch: int = 1) -> Any:
        """What was drawn."""
        from whit.graph import Graph

        inputs = tuple(name for name, tensor in self.tensors.items() if tensor.role == "input")
        return Graph(
            tensors=self.tensors, operations=tuple(self.operations), inputs=inputs, outputs=outputs, batch=batch
        )

    def _parameters(self, layer: str, shape: tuple[int, ...], *, bias: bool) -> list[str]:
        names = [f"{layer}.weight"]
        if names[0] not in self.tensors:
            self.tensor(names[0], *shape, role="parameter")
        if bias:
            names.append(self.tensor(f"{layer}.bias", shape[0], role="parameter"))
        return names


@pytest.fixture
def sketch() -> Sketch:
    """An empty drawing with one input ``x``, an image of 3 channels and 2x2 pixels."""
    drawing = Sketch()
    drawing.tensor("x", 1, 3, 2, 2, role="input")
    return drawing
