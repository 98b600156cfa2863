"""Peak memory is that of the delivered file: larger networks take more, and what cannot be run is an error."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save

from whit import FileError, PlanError, peak


def file(folder: Path, megabytes: int) -> Path:
    """A network with a square weight of so many megabytes."""
    side = round((megabytes * 2**20 / 4) ** 0.5)
    weight = numpy_helper.from_array(np.random.default_rng(0).normal(size=(side, side)).astype(np.float32), "weight")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, side]) for name in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["y"])], "g", values[:1], values[1:], [weight]
    )
    path = folder / f"{megabytes}.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def test_memory_is_that_of_the_weights_and_of_what_is_made_of_them(tmp_path: Path) -> None:
    small, large = (
        peak.peak_memory(file(tmp_path, size), (np.zeros((1, round((size * 2**20 / 4) ** 0.5)), np.float32),))
        for size in (4, 64)
    )
    # The file as bytes, what is read from it, and a copy in the order in which it is multiplied: three at most, beside
    # what the runtime takes for itself.
    assert 60 * 2**20 <= large - small <= 3.5 * 60 * 2**20


def test_a_file_that_cannot_be_run_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"nothing")
    with pytest.raises(FileError, match=r"broken.onnx cannot be run to see how much memory"):
        peak.peak_memory(path, (np.zeros((1, 4), np.float32),))


def test_a_system_that_tells_no_peak_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peak, "_STATUS", tmp_path / "none")
    with pytest.raises(PlanError, match="does not tell how much memory"):
        peak.check_measurable()
