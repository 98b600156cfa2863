"""``whit compress --target``: plans for a machine, and plans that are wrong there."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from whit import Int, Quantize
from whit.cli import app
from whit.toml import load_plan

WHOLE_BYTES = """
[[step]]
kind = "quantize"
weights = {kind = "int", bits = 8}
activations = {kind = "int", bits = 8, symmetric = false, per = "tensor"}
"""


def compress(out: Path, *options: str | Path) -> Result:
    command = ["compress", "tiny_network:make", "--data", "data.npz", "--layout", "NHWC", "--out", out, *options]
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, [str(one) for one in command])


def test_a_target_alone_makes_the_integers_that_do_not_overflow_there(in_tiny_folder: Path, tmp_path: Path) -> None:
    outcome = compress(tmp_path / "run", "--target", "avx2")
    assert outcome.exit_code == 0, outcome.output
    step = load_plan(tmp_path / "run" / "plan.toml").steps[-1]
    assert isinstance(step, Quantize)
    assert step.weights == Int(bits=8, reduce_range=True)
    assert step.activations == Int(bits=8, symmetric=False, per="tensor")


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--target", "avx2", "--plan", "bytes.toml"], ["overflow on AVX2 without VNNI", "reduce_range=True"]),
        (["--target", "avx"], ["onnx, openvino", "avx2, vnni, arm-dot or here", "'avx' is not"]),
        (["--target", "onnx,openvino"], ["'onnx,openvino' is not"]),
        ([], ["--plan", "--target"]),
    ],
)
def test_what_does_not_fit_is_said_before_anything_runs(
    options: list[str], parts: list[str], in_tiny_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "bytes.toml").write_text(WHOLE_BYTES)
    outcome = compress(tmp_path / "run", *(one.replace("bytes.toml", f"{tmp_path}/bytes.toml") for one in options))
    assert outcome.exit_code == 1, outcome.output
    assert all(part in outcome.stderr for part in parts), outcome.stderr
    assert not (tmp_path / "run").exists()
