"""The installed C++ package, used as a stranger uses it: the example reads what Python wrote."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from whit.cli.inspection import format_text
from whit.formats import BF16, FP8_E4M3, FP16, MXFP4, MXFP8_E5M2, MXINT8, NVFP4, Codebook, Float, Int
from whit.ledger import Assigned, Ledger, Masked, Rounded, RoundedActivation, RoundedBias, matrix
from whit.quantizers import Nearest
from whit.store import encode, read

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(shutil.which("cmake") is None, reason="there is no cmake to build the example with")


def run(*command: str | Path, cwd: Path) -> str:
    outcome = subprocess.run([str(one) for one in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return outcome.stdout


@pytest.fixture(scope="module")
def print_tensors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, built outside of the repository against an installed whit."""
    folder = tmp_path_factory.mktemp("package")
    shutil.copytree(ROOT / "examples" / "cpp", folder / "example")
    installed = folder / "installed"
    run("cmake", "-S", ROOT, "-B", "whit", "-DWHIT_PYTHON=OFF", f"-DCMAKE_INSTALL_PREFIX={installed}", cwd=folder)
    run("cmake", "--install", "whit", cwd=folder)
    run("cmake", "-S", "example", "-B", "build", f"-DCMAKE_PREFIX_PATH={installed}", cwd=folder)
    run("cmake", "--build", "build", cwd=folder)
    return folder / "build" / "print_tensors"


def every_kind() -> Ledger:
    """Weights of every layout, biases of both kinds, a mask, and values of every dtype and of 0 to 8 axes."""
    rng = np.random.default_rng(0)
    layouts = {
        "conv.weight": (Int(bits=4), (8, 4, 3, 3), 0),
        "transposed.weight": (Int(bits=3, symmetric=False), (3, 6, 2), 1),
        "tensor.weight": (Int(bits=8, symmetric=False, per="tensor"), (5, 7), 0),
        "grouped.weight": (Int(bits=2, per="group", group_size=5), (6, 12), 0),
        "binary.weight": (Int(bits=1), (4, 9), 0),
        "wide.weight": (Int(bits=16, symmetric=False), (4, 9), 0),
        "half.weight": (FP16, (4, 9), 0),
        "bfloat.weight": (BF16, (4, 9), 0),
        "fp8.weight": (FP8_E4M3, (3, 6, 2), 1),
        "fp12.weight": (Float(exponent=6, mantissa=5, per="tensor"), (4, 9), 0),
        "e5m2.weight": (MXFP8_E5M2, (4, 40), 0),
        "mxfp4.weight": (MXFP4, (4, 40), 0),
        "mxint8.weight": (MXINT8, (4, 40), 0),
        "nvfp4.weight": (NVFP4, (4, 3, 3, 3), 0),
        "shared.weight": (Codebook(k=5), (4, 9), 0),
        "groups.weight": (Codebook(k=3, per="group", group_size=4), (4, 9), 0),
    }
    decisions = []
    for name, (target, shape, axis) in layouts.items():
        codes = Nearest().quantize(matrix(rng.normal(size=shape).astype(np.float32), axis), target)
        decisions.append(Rounded.of(name, target, shape, codes, axis))
    decisions.append(Masked(parameter="conv.weight", mask=decisions[0].values() != 0))
    step = Int(bits=8, symmetric=False, per="tensor")
    image = RoundedActivation(tensor="x", target=step, scale=np.float32(0.0371), zero_point=np.int32(12))
    bias = rng.normal(size=8).astype(np.float32)
    decisions += [image, RoundedBias.of("conv.bias", bias, decisions[0], image)]
    for dtype in ("bool", "int8", "uint8", "int16", "uint16", "int32", "int64", "float16", "float32", "float64"):
        decisions.append(Assigned(parameter=f"{dtype}.values", values=(rng.normal(size=(3, 40)) * 9).astype(dtype)))
    decisions += [
        Assigned(parameter="steps", values=np.array(70_000_000_000)),
        Assigned(parameter="eight", values=rng.normal(size=(1, 2) * 4).astype(np.float32)),
        Assigned(parameter="empty", values=np.zeros((0, 3), np.float32)),
        Assigned(parameter="ones", values=np.ones(5000, np.float32)),
    ]
    return Ledger().record(*decisions)


@pytest.mark.parametrize("profile", ["small", "fast"])
def test_the_example_prints_what_python_reads(print_tensors, tmp_path, profile):
    path = tmp_path / "model.whit"
    path.write_bytes(encode(every_kind(), None, {"of": 'a "test"'}, profile=profile))
    ledger = read(path).ledger()
    values = {name: one.values() for name, one in (ledger.rounded() | ledger.biases()).items()} | ledger.assigned()
    rows = [line.split("\t") for line in run(print_tensors, path, cwd=tmp_path).splitlines()]
    assert [row[0] for row in rows] == list(values)
    for name, stored, bits, size, shape, *facts in rows:
        expected = values[name]
        assert shape == ("x".join(map(str, expected.shape)) or "scalar")
        assert int(size.removesuffix(" bytes")) >= 0
        assert bits.endswith(" bits")
        if name in ledger.assigned():
            assert stored == expected.dtype.name
        if name in ledger.rounded():
            assert stored == format_text(ledger.rounded()[name].target)
        wide = expected.astype(np.float64)
        found = [float(fact) for fact in facts]
        np.testing.assert_allclose(
            found, [wide.min(), wide.max(), wide.mean()] if wide.size else [], rtol=1e-7, atol=1e-9
        )
    stored = {row[0]: row[1] for row in rows}
    assert stored["grouped.weight"] == "int2 per group of 5"


def test_the_example_names_what_is_wrong_with_a_file(print_tensors, tmp_path):
    path = tmp_path / "model.whit"
    whole = encode(every_kind(), None, {})
    for content in (b"", b"not a file", whole[:-1], whole[:-1] + b"\0"):
        path.write_bytes(content)
        outcome = subprocess.run([print_tensors, path], capture_output=True, text=True, check=False)
        assert outcome.returncode == 1
        assert outcome.stderr.startswith(f"error: {path}")


def test_the_package_has_the_version_of_the_project():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    version = project.partition('version = "')[2].partition('"')[0]
    assert f"project(whit VERSION {version} " in (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
