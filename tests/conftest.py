"""A tiny network, its data, and one run of the command line on them, shared by the tests that need a result."""

from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

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
    from whit.output import read_result

    return read_result(tiny_run[0])


@pytest.fixture
def in_tiny_folder(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder is ``tiny_folder``, and is as it was afterwards."""
    before = {item.name for item in tiny_folder.iterdir()} | {"__pycache__", "made"}
    monkeypatch.chdir(tiny_folder)
    yield tiny_folder
    assert {item.name for item in tiny_folder.iterdir()} <= before, "the test left something behind"
