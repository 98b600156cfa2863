"""An export is delivered whole, where it was asked for, and only if it computes what the network computes."""

import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import whit
from whit import Data, DataError, Int, ModelError, OutputError, ParityError, PlanError, Quantize
from whit.data import Array, Samples
from whit.export import Exporter, Runs, Source
from whit.measure import Parity
from whit.runtime import open_onnx

STEP = Quantize(weights=Int(bits=8))


class Wrong(Exporter):
    """A runtime that gets a share of the samples wrong."""

    name: ClassVar[str] = "wrong"
    suffix: ClassVar[str] = ".wrong"

    def __init__(self, share: float) -> None:
        self.share = share

    def write(self, source: Source, path: Path) -> tuple[Path, ...]:
        path.write_bytes(source.onnx)
        return (path,)

    def open(self, path: Path, *, threads: int) -> Runs:
        right = open_onnx(path)

        def run(*inputs: Array) -> Array:
            found = right(*inputs)
            found[: round(self.share * len(found))] *= -1
            return found

        return run


def test_a_result_a_file_and_its_path_are_exported_alike(rounded: Any, samples: Array, tmp_path: Path) -> None:
    source = rounded(STEP)
    for given in (source, source.path, str(source.path)):
        made = whit.export(given, tmp_path / "new" / "a.onnx", to="onnx", samples=samples, overwrite=True)
        assert made.files == (tmp_path / "new" / "a.onnx",)
        assert made.parity == Parity(max_abs=0.0, mean_abs=0.0, agreement=1.0)
        expected = open_onnx(source.onnx)(samples)
        np.testing.assert_array_equal(open_onnx(made.files[0])(samples), expected)


@pytest.mark.parametrize("kind", [Samples, Data, np.ndarray, tuple])
def test_samples_are_taken_in_any_form(kind: type, rounded: Any, samples: Array, tmp_path: Path) -> None:
    targets = np.zeros(len(samples), np.int64)
    given: Any = {
        Samples: Samples((samples,), targets),
        Data: Data.of(samples, targets, samples, targets),
        np.ndarray: samples,
        tuple: (samples,),
    }[kind]
    made = whit.export(rounded(STEP), tmp_path / "a.wrong", to=Wrong(0.0), samples=given)
    assert made.parity is not None
    assert made.parity.agreement == 1


@pytest.mark.parametrize("metric", ["accuracy", "mse"])
def test_what_disagrees_is_an_error_that_says_how_many_and_leaves_nothing(
    metric: str, rounded: Any, samples: Array, tmp_path: Path
) -> None:
    source = rounded(STEP, metric)
    with pytest.raises(ParityError, match=r"wrong disagrees with the network on 32 of 64 samples"):
        whit.export(source, tmp_path / "out" / "a.wrong", to=Wrong(0.5), samples=samples)
    assert not (tmp_path / "out").exists()


def test_one_sample_may_disagree_and_more_than_one_in_two_hundred_may_not(
    rounded: Any, samples: Array, tmp_path: Path
) -> None:
    source = rounded(STEP)
    made = whit.export(source, tmp_path / "a.wrong", to=Wrong(1 / 64), samples=samples)
    assert made.parity is not None
    assert made.parity.agreement == 1 - 1 / 64
    with pytest.raises(ParityError, match="2 of 64"):
        whit.export(source, tmp_path / "b.wrong", to=Wrong(2 / 64), samples=samples)


def test_what_is_there_is_replaced_only_when_asked(rounded: Any, samples: Array, tmp_path: Path) -> None:
    source, out = rounded(STEP), tmp_path / "a.onnx"
    out.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        whit.export(source, out, to="onnx", samples=samples)
    (tmp_path / "a.bin").write_text("mine")
    with pytest.raises(OutputError, match=r"a\.bin exists already"):
        whit.export(source, tmp_path / "a.xml", to="openvino", samples=samples)
    assert out.read_text() == (tmp_path / "a.bin").read_text() == "mine"
    assert whit.export(source, out, to="onnx", samples=samples, overwrite=True).bytes == out.stat().st_size


def test_unknown_runtimes_and_foreign_suffixes_are_named(rounded: Any, samples: Array, tmp_path: Path) -> None:
    source = rounded(STEP)
    with pytest.raises(PlanError, match=r"onnx, openvino.*not to 'tensorrt'"):
        whit.export(source, tmp_path / "a.plan", to="tensorrt", samples=samples)
    with pytest.raises(OutputError, match=r"ends in .xml; name it a.xml"):
        whit.export(source, tmp_path / "a.onnx", to="openvino", samples=samples)


def test_samples_are_needed_where_another_runtime_runs(rounded: Any, tmp_path: Path) -> None:
    source = rounded(STEP)
    assert whit.export(source, tmp_path / "a.onnx", to="onnx").parity is None
    with pytest.raises(DataError, match="give samples"):
        whit.export(source, tmp_path / "a.wrong", to=Wrong(0.0))
    with pytest.raises(DataError, match="it takes input"):
        whit.export(source, tmp_path / "a.wrong", to=Wrong(0.0), samples=np.zeros((4, 2, 8, 8), np.float32))
    with pytest.raises(DataError, match="cannot run on input: uint8"):
        whit.export(source, tmp_path / "a.tflite", to="litert", samples=np.zeros((4, 3, 8, 8), np.uint8))


def test_a_missing_package_is_named_with_its_extra(
    rounded: Any, samples: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ModelError, match=r"pip install 'whit\[openvino\]'"):
        whit.export(rounded(STEP), tmp_path / "a.xml", to="openvino", samples=samples)
