"""Weights of every format in every runtime: they run as in ONNX Runtime, or are refused with the nearest."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import whit
from whit import Codebook, Int, ModelError, Plan, PlanError, Quantize, Target, formats
from whit.data import Array
from whit.export import exporters
from whit.formats import Format

PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino", "litert": "ai_edge_litert", "executorch": "executorch"}
SYMMETRIC: list[Format] = [
    *(Int(bits=bits, per=per) for bits in (1, 2, 4, 8) for per in ("tensor", "channel")),  # type: ignore[arg-type]
    Int(bits=8, reduce_range=True),
]
BYTES: list[Format] = [
    Int(bits=4, symmetric=False),
    Int(bits=8, symmetric=False),
    Int(bits=4, per="group", group_size=1),
    Int(bits=8, symmetric=False, per="group", group_size=1),
    formats.FP8_E4M3,
    formats.FP8_E5M2,
]
OTHERS: list[Format] = [Int(bits=12), formats.FP16, formats.FP6_E2M3, formats.MXFP4, Codebook(k=16)]
HELD: dict[str, list[Format]] = {
    "onnx": [*SYMMETRIC, *BYTES, *OTHERS],
    "openvino": [*SYMMETRIC, *BYTES],
    "litert": SYMMETRIC,
    "executorch": [Int(bits=8), Int(bits=8, per="tensor"), Int(bits=8, reduce_range=True)],
}
SMALL = [Int(bits=bits, per=per) for bits in (1, 2, 4) for per in ("tensor", "channel")]  # type: ignore[arg-type]
NEAREST: dict[Format, Int] = {
    Int(bits=12): Int(bits=8),
    formats.FP16: Int(bits=8),
    formats.FP6_E2M3: Int(bits=8),
    formats.MXFP4: Int(bits=4),
    Codebook(k=16): Int(bits=4),
    Int(bits=4, symmetric=False): Int(bits=4),
    Int(bits=8, symmetric=False): Int(bits=8),
    Int(bits=4, per="group", group_size=1): Int(bits=4),
    Int(bits=8, symmetric=False, per="group", group_size=1): Int(bits=8),
    formats.FP8_E4M3: Int(bits=8),
    formats.FP8_E5M2: Int(bits=8),
} | {weights: replace(weights, bits=8) for weights in SMALL}


def cases(*, held: bool) -> list[Any]:
    return [
        pytest.param(runtime, weights, id=f"{runtime}-{weights}")
        for runtime in PACKAGES
        for weights in HELD["onnx"]
        if (weights in HELD[runtime]) == held
    ]


@pytest.mark.parametrize(("runtime", "weights"), cases(held=True))
def test_what_a_runtime_holds_runs_as_in_onnx_runtime(
    runtime: str, weights: Format, rounded: Any, samples: Array, tmp_path: Path
) -> None:
    pytest.importorskip(PACKAGES[runtime], reason=f"pip install 'whit[{runtime}]', or make test-runtimes")
    Target.named(runtime).check(Plan(Quantize(weights=weights)))
    path = tmp_path / f"out{exporters()[runtime].suffix}"
    made = whit.export(rounded(Quantize(weights=weights)), path, to=runtime, samples=samples[:16])
    # Only weights are rounded, and these in the same way: what is left is the order of sums.
    assert made.parity is not None
    assert made.parity.max_abs < 1e-4


@pytest.mark.parametrize(("runtime", "weights"), cases(held=False))
def test_what_it_does_not_hold_is_refused_by_plans_and_exports_with_the_nearest(
    runtime: str, weights: Format, rounded: Any, samples: Array, tmp_path: Path
) -> None:
    nearest, stored = NEAREST[weights], "float32"
    if runtime == "executorch":
        # It has whole bytes only, which 4 bits fit and do not fill.
        nearest = replace(nearest, bits=8)
        stored = "bytes" if weights in SMALL else stored
    with pytest.raises(PlanError, match=re.escape(f"would store {stored}; take weights={nearest}")):
        Target.named(runtime).check(Plan(Quantize(weights=weights)))
    pytest.importorskip(PACKAGES[runtime], reason=f"pip install 'whit[{runtime}]', or make test-runtimes")
    path = tmp_path / f"out{exporters()[runtime].suffix}"
    with pytest.raises(ModelError, match=re.escape(f"would store {stored}. Quantize it with {nearest}")):
        whit.export(rounded(Quantize(weights=weights)), path, to=runtime, samples=samples)
    assert not list(tmp_path.glob("out*"))
