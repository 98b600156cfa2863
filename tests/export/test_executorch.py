"""ExecuTorch: layers are lowered to XNNPACK in integers and compute what ONNX Runtime computes of the same codes."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import whit
from whit import Int, ModelError, Quantize
from whit.cli import app
from whit.data import Array
from whit.export import Source
from whit.export.executorch import ExecuTorch
from whit.ledger import Ledger

BYTES = Quantize(weights=Int(bits=8), activations=Int(bits=8, symmetric=False, per="tensor"))


@pytest.fixture(scope="module")
def lowering() -> None:
    pytest.importorskip("executorch", reason="make test-runtimes")


def test_every_layer_runs_by_xnnpack_and_computes_the_same(
    lowering: None, rounded: Any, samples: Array, tmp_path: Path
) -> None:
    made = whit.export(rounded(BYTES), tmp_path / "out.pte", to="executorch", samples=samples)
    assert made.files == (tmp_path / "out.pte",)
    assert made.parity is not None
    assert made.parity.agreement == 1
    parameters = 3 * 16 * 9 + 16 * 16 * 9 + 16 * 9 + 16 * 32 + 48 * 64 + 64 * 64 + 64 * 5
    # Codes are a byte each; float32 alone would take four.
    assert parameters < made.bytes < 4 * parameters + 20_000


def test_the_command_line_takes_the_model(
    lowering: None, tiny_run: tuple[Path, str], in_tiny_folder: Path, tmp_path: Path
) -> None:
    images = ["--data", "data.npz", "--scale", "0.0039", "--mean", "0.5,0.5,0.5", "--layout", "NHWC"]
    command = ["export", f"{tiny_run[0]}/model.whit", "--to", "executorch", "--out", f"{tmp_path}/m.pte", *images]
    refused = CliRunner(env={"COLUMNS": "200"}).invoke(app, command)
    assert refused.exit_code == 1
    assert "--model" in refused.stderr
    outcome = CliRunner().invoke(app, [*command, "--model", "tiny_network:make"])
    assert outcome.exit_code == 0, outcome.output
    assert "executorch and the network agree on" in outcome.stdout
    assert (tmp_path / "m.pte").exists()


def test_a_file_alone_is_not_enough(rounded: Any, samples: Array, tmp_path: Path) -> None:
    source = rounded(Quantize())
    with pytest.raises(ModelError, match=re.escape("module=whit.load(file, into=...)")):
        whit.export(source.path, tmp_path / "out.pte", to="executorch", samples=samples)
    other = SimpleNamespace(file=source.file, model={"weight": np.zeros(1)})
    with pytest.raises(ModelError, match="not from dict"):
        ExecuTorch().write(
            Source(onnx=b"", ledger=Ledger(), module=other.model, example=(samples[:1],)), tmp_path / "out.pte"
        )
