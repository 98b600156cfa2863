"""A target picks the integers that are fast and do not overflow where a network will run, and refuses others."""

import re
from dataclasses import replace

import numpy as np
import pytest

from whit import Codebook, Float, Int, Mixed, Plan, PlanError, Quantize, Rule, Target, formats
from whit.formats import Format
from whit.target import Feature, Runtime, features_of, nearest_weights

BYTE = Int(bits=8, symmetric=False, per="tensor")
AVX2: frozenset[Feature] = frozenset({"avx2"})
VNNI: frozenset[Feature] = frozenset({"avx2", "vnni"})
ARM: frozenset[Feature] = frozenset({"arm-dot"})


@pytest.mark.parametrize(
    ("cpuinfo", "features"),
    [
        ("processor : 0\nflags\t\t: fpu sse2 avx2 avx512_vnni fsrm\nbugs : x", VNNI),
        ("flags : fpu sse2 avx2 avx_vnni", VNNI),
        ("flags : fpu sse2 avx2", AVX2),
        ("flags : fpu sse2", frozenset()),
        ("Features\t: fp asimd asimddp", ARM),
        ("Features : fp asimd", frozenset()),
        ("", frozenset()),
    ],
)
def test_features_are_read_from_what_linux_tells(cpuinfo: str, features: frozenset[str]) -> None:
    assert features_of(cpuinfo) == features


def test_this_machine_is_a_target() -> None:
    assert Target.here("openvino").runtime == "openvino"
    assert Target.here().features <= {"avx2", "vnni", "arm-dot"}


@pytest.mark.parametrize(("features", "reduced"), [(AVX2, True), (VNNI, False), (ARM, False), (frozenset(), False)])
def test_sums_of_two_products_fit_the_integers_that_the_machine_adds_them_in(
    features: frozenset[Feature], reduced: bool
) -> None:
    step = Target(features=features).quantize(samples=7)
    assert step.activations == BYTE
    assert step.samples == 7
    assert isinstance(step.weights, Int)
    assert step.weights.reduce_range == reduced
    most = 2 * 255 * step.weights.high
    assert most <= np.iinfo(np.int16 if features == AVX2 else np.int32).max
    Target(features=features).check(Plan(step))


def test_what_overflows_is_refused_and_what_does_not_is_not() -> None:
    target = Target(features=AVX2)
    with pytest.raises(PlanError, match=r"overflow on AVX2 without VNNI; take weights=Int\(bits=8,.*reduce_range=True"):
        target.check(Plan(Quantize(activations=BYTE)))
    for fine in (
        Quantize(),  # no activations, no products of integers
        Quantize(weights=Int(bits=7), activations=BYTE),
        Quantize(weights=Int(bits=8), activations=Int(bits=7, symmetric=False, per="tensor")),
        Quantize(weights=Int(bits=8, symmetric=False), activations=BYTE),  # unsigned by unsigned is another kernel
    ):
        target.check(Plan(fine))


@pytest.mark.parametrize(
    ("weights", "nearest"),
    [
        (Int(bits=12), Int(bits=8)),
        (Int(bits=16, symmetric=False, per="tensor"), Int(bits=8, symmetric=False, per="tensor")),
        (formats.FP16, Int(bits=8)),
        (Float(exponent=2, mantissa=1), Int(bits=4)),
        (formats.NVFP4, Int(bits=4)),
        (formats.MXFP8_E4M3, Int(bits=8)),
        (Codebook(k=16), Int(bits=4)),
        (Codebook(k=17), Int(bits=8)),
    ],
    ids=str,
)
def test_weights_that_a_runtime_has_not_are_refused_with_the_nearest_that_it_has(
    weights: Format, nearest: Format
) -> None:
    Target().check(Plan(Quantize(weights=weights)))
    with pytest.raises(
        PlanError, match=re.escape(f"openvino has no such weights and would store float32; take weights={nearest}")
    ):
        Target(runtime="openvino").check(Plan(Quantize(weights=weights)))
    Target(runtime="openvino").check(Plan(Quantize(weights=nearest)))
    assert nearest_weights("openvino", nearest) == nearest


def test_rules_and_bits_that_layers_choose_are_checked_too() -> None:
    target = Target(runtime="openvino")
    with pytest.raises(PlanError, match=re.escape(f"take weights={Int(bits=4)}")):
        target.check(Plan(Quantize(rules=(Rule(layers="head", use=Quantize(weights=Codebook(k=8))),))))
    target.check(Plan(Quantize(rules=(Rule(layers="head", use=None),))))
    with pytest.raises(PlanError, match=re.escape(f"take weights={Int(bits=8)}")):
        target.check(Plan(Quantize(bits=Mixed(choices=(4, 12), bytes=1000))))


@pytest.mark.parametrize("runtime", ["litert", "executorch"])
def test_some_runtimes_have_signed_bytes_and_add_them_in_32_bits_everywhere(runtime: Runtime) -> None:
    target = Target(runtime=runtime, features=AVX2)
    step = target.quantize()
    assert step.weights == Int(bits=8)
    target.check(Plan(step))
    for weights, nearest in (
        (Int(bits=8, symmetric=False), Int(bits=8)),
        (Int(bits=4, per="group", group_size=8), Int(bits=4 if runtime == "litert" else 8)),
        (formats.FP8_E4M3, Int(bits=8)),
    ):
        with pytest.raises(
            PlanError, match=re.escape(f"{runtime} has no such weights and would store float32; take weights={nearest}")
        ):
            target.check(Plan(Quantize(weights=weights)))
    for activations in (replace(BYTE, bits=4), replace(BYTE, bits=16)):
        with pytest.raises(PlanError, match=re.escape(f"{runtime} has no such activations; take activations={BYTE}")):
            target.check(Plan(Quantize(activations=activations)))
    with pytest.raises(PlanError, match=re.escape(f"take residual={BYTE}")):
        target.check(Plan(Quantize(activations=BYTE, residual=replace(BYTE, bits=16))))


def test_unknown_runtimes_and_features_are_named() -> None:
    with pytest.raises(PlanError, match="onnx, openvino"):
        Target(runtime="tensorrt")  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="avx2, vnni, arm-dot"):
        Target(features=frozenset({"amx"}))  # type: ignore[arg-type]
