"""Floats of a few bits: value by value those of ml_dtypes, and rounded as it rounds."""

import re
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from whit import PlanError, formats
from whit.formats import Float, Format, Int
from whit.formats.minifloat import magnitudes
from whit.quantizers import Nearest

KNOWN = {
    formats.FP16: np.float16,
    formats.BF16: ml_dtypes.bfloat16,
    formats.FP8_E4M3: ml_dtypes.float8_e4m3fn,
    formats.FP8_E5M2: ml_dtypes.float8_e5m2,
    Float(exponent=3, mantissa=4): ml_dtypes.float8_e3m4,
    formats.FP6_E3M2: ml_dtypes.float6_e3m2fn,
    formats.FP6_E2M3: ml_dtypes.float6_e2m3fn,
    formats.FP4_E2M1: ml_dtypes.float4_e2m1fn,
}
SCALED = [
    formats.FP8_E4M3,
    formats.FP8_E5M2,
    replace(formats.FP8_E4M3, per="tensor"),
    Float(exponent=5, mantissa=10),
    Float(exponent=7, mantissa=0),
    Float(exponent=2, mantissa=0, per="group", group_size=3),
    formats.MXFP8_E5M2,
    formats.MXFP6_E3M2,
    replace(formats.MXFP4, group_size=4),
    replace(formats.NVFP4, group_size=4),
    replace(formats.MXINT8, group_size=4),
    Int(bits=4, per="group", group_size=4, scale="e4m3"),
]
LARGEST = np.finfo(np.float32).max
TINY = np.finfo(np.float32).tiny
known = pytest.mark.parametrize(("target", "dtype"), KNOWN.items(), ids=[target.name for target in KNOWN])
scaled = pytest.mark.parametrize("target", [*SCALED, formats.FP16, formats.BF16], ids=str)
finite = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=True)
matrices = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=11), elements=finite)


def plain(target, values):
    """Codes of a row of values at scale 1."""
    one = np.ones((1, 1), np.float32)
    whole = replace(target, per="tensor", group_size=None)
    return whole.quantize(np.asarray(values, np.float32).reshape(1, -1), one, one.astype(np.int32) * 0)[0]


def every(dtype):
    """All numbers of a dtype with their bits, but for NaN, infinity and negative zero."""
    bits = ml_dtypes.finfo(dtype).bits
    patterns = np.arange(1 << bits, dtype=np.uint8 if bits <= 8 else np.uint16)
    values = patterns.view(dtype).astype(np.float32)
    real = np.isfinite(values) & ~(np.signbit(values) & (values == 0))
    return patterns[real], values[real]


# The numbers.


@known
def test_levels_are_all_numbers_of_ml_dtypes(target, dtype):
    _, values = every(dtype)
    np.testing.assert_array_equal(target.levels(), np.sort(values))


@known
def test_patterns_are_the_bits_of_ml_dtypes(target, dtype):
    patterns, values = every(dtype)
    np.testing.assert_array_equal(target.patterns(plain(target, values)), patterns)
    np.testing.assert_array_equal(target.table()[patterns], values)


@known
def test_every_number_is_its_own_nearest(target, dtype):
    codes = np.arange(target.low, target.high + 1)
    np.testing.assert_array_equal(plain(target, target.levels()), codes)


@known
def test_rounding_is_that_of_ml_dtypes(target, dtype):
    levels = target.levels().astype(np.float64)
    middle = ((levels[:-1] + levels[1:]) / 2).astype(np.float32)
    random = np.random.default_rng(0).normal(size=20_000) * levels[-1] / 3
    small = np.random.default_rng(1).normal(size=2_000) * levels[target.high + 1] * 4
    values = [middle, np.nextafter(middle, np.float32(-np.inf)), np.nextafter(middle, np.float32(np.inf))]
    values = np.concatenate([*values, random.clip(levels[0], levels[-1]), small]).astype(np.float32)
    found = target.levels()[plain(target, values) - target.low]
    np.testing.assert_array_equal(found, values.astype(dtype).astype(np.float32))


@known
def test_what_lies_beyond_gets_the_largest_number(target, dtype):
    largest = target.levels()[-1]
    beyond = [np.nextafter(largest, np.float32(np.inf)), LARGEST]
    assert plain(target, beyond).tolist() == [target.high] * 2
    assert plain(target, np.negative(beyond)).tolist() == [target.low] * 2


@given(st.integers(2, 8), st.integers(0, 7))
def test_magnitudes_rise_in_steps_that_double_with_the_exponent(exponent, mantissa):
    values = magnitudes(exponent, mantissa).astype(np.float64)
    steps = np.diff(values)
    assert values[0] == 0
    assert (steps > 0).all()
    first = 1 << mantissa
    assert (steps[: 2 * first] == steps[0]).all()
    np.testing.assert_array_equal(steps[2 * first :], 2 * steps[first : len(steps) - first])


def test_the_largest_numbers_are_those_of_the_specifications():
    # OCP FP8 2023, OCP Microscaling 2023, IEEE 754.
    largest = {"fp16": 65504, "fp8 e4m3": 448, "fp8 e5m2": 57344, "fp6 e3m2": 28, "fp6 e2m3": 7.5, "fp4 e2m1": 6}
    assert {target.name: target.levels()[-1] for target in KNOWN if target.name in largest} == largest


# The scales.


@scaled
@settings(deadline=None)
@given(matrices)
def test_weights_on_their_grid_stay_where_they_are(target, matrix):
    codes, scale, zero_point, _ = Nearest().quantize(matrix, target)
    weights = target.dequantize(codes, scale, zero_point)
    np.testing.assert_array_equal(target.quantize(weights, scale, zero_point), codes)
    assert target.are_codes(codes)
    assert not zero_point.any()
    assert not weights[matrix == 0].any()


@scaled
@settings(deadline=None)
@given(matrices)
def test_no_level_is_nearer_than_the_chosen_one(target, matrix):
    codes, scale, _, _ = Nearest().quantize(matrix, target)
    block = target.block(matrix.shape[1])
    step = np.broadcast_to(np.repeat(scale, block, axis=1)[:, : matrix.shape[1]], matrix.shape).astype(np.float64)
    chosen = np.abs(target.levels()[codes - target.low] * step - matrix)
    for move in (-1, 1):
        other = target.levels()[np.clip(codes + move, target.low, target.high) - target.low]
        # Where two are equally near, the rounding of weights / scale to float32 decides.
        assert (chosen <= np.abs(other * step - matrix) + np.abs(matrix) * 2.0**-22 + step * 2.0**-140).all()


@scaled
def test_zeros_and_constants(target):
    zeros = Nearest().quantize(np.zeros((2, 6), np.float32), target)
    assert not target.dequantize(*zeros).any()
    assert np.allclose(zeros.scale, 1, rtol=2.0**-15)
    for value in (3.0, -3.0):
        constant = Nearest().quantize(np.full((2, 6), value, np.float32), target)
        # A power of two as scale leaves a constant between two levels, or beyond the last.
        error = 2.0**-15 if target.scale_format in ("float32", "e4m3") else 0.13
        assert np.allclose(target.dequantize(*constant), value, rtol=error)


@scaled
@pytest.mark.parametrize(
    "row",
    [[LARGEST, 0], [-LARGEST, LARGEST], [1e30, 1, -1], [1e-30, 1], [TINY, -TINY], [1e-45, 0, 1e-40], [1e-37, 1e-38]],
)
def test_outliers_and_the_smallest_numbers_give_finite_weights(target, row):
    matrix = np.array([row, np.zeros(len(row))], np.float32)
    codes, scale, zero_point, _ = Nearest().quantize(matrix, target)
    weights = target.dequantize(codes, scale, zero_point)
    assert (np.isfinite(scale) & (scale >= TINY)).all()
    assert np.isfinite(weights).all()
    assert (np.abs(weights - matrix) <= np.abs(matrix).max()).all()
    np.testing.assert_array_equal(target.quantize(weights, scale, zero_point), codes)


@pytest.mark.parametrize("target", SCALED, ids=str)
def test_weights_that_are_not_finite_are_refused(target):
    with pytest.raises(ValueError, match="hold 1 NaN and 1 infinite values"):
        target.quantize(
            np.array([[np.nan, np.inf]], np.float32), np.ones((1, 1), np.float32), np.zeros((1, 1), np.int32)
        )


def test_mx_scales_are_those_of_the_specification():
    # Section 6.3: the power of two of the largest magnitude, less that of the element's largest number.
    matrix = np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)
    largest = np.abs(matrix.reshape(4, 2, 32)).max(axis=2)
    for target, emax in ((formats.MXFP4, 2), (formats.MXFP6_E2M3, 2), (formats.MXFP6_E3M2, 4), (formats.MXFP8_E4M3, 8)):
        scale = Nearest().quantize(matrix, target).scale
        np.testing.assert_array_equal(scale, 2.0 ** (np.floor(np.log2(largest)) - emax))
        np.testing.assert_array_equal(scale.astype(ml_dtypes.float8_e8m0fnu).astype(np.float32), scale)
    # MXINT8 elements are multiples of 2**-6, and ours are whole.
    scale = Nearest().quantize(matrix, formats.MXINT8).scale
    np.testing.assert_array_equal(scale, 2.0 ** (np.floor(np.log2(largest)) - 6))


def test_nvfp4_scales_are_e4m3_times_a_unit():
    matrix = (np.random.default_rng(0).normal(size=(8, 64)) * np.geomspace(1e-3, 1, 8)[:, None]).astype(np.float32)
    codes, scale, zero_point, _ = Nearest().quantize(matrix, formats.NVFP4)
    unit = scale.max() / np.float32(448)
    stored = scale / unit
    np.testing.assert_array_equal(stored.astype(ml_dtypes.float8_e4m3fn).astype(np.float32), stored)
    # The factors give the same float32 in any order.
    levels = formats.NVFP4.levels()[codes + 7]
    spread = np.repeat(stored, 16, axis=1)
    weights = formats.NVFP4.dequantize(codes, scale, zero_point)
    np.testing.assert_array_equal(levels * spread * unit, weights)
    np.testing.assert_array_equal(levels * unit * spread, weights)


# The settings.


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"exponent": 1, "mantissa": 3}, "exponents have 2 to 8 bits, mantissas 0 to 10"),
        ({"exponent": 9, "mantissa": 3}, "the nearest common ones are exponent=4, mantissa=3 (fp8)"),
        ({"exponent": 5, "mantissa": 11}, "exponents have 2 to 8 bits"),
        ({"exponent": 8, "mantissa": 8}, "exponents have 2 to 8 bits"),
        ({"exponent": 8, "mantissa": 7}, 'needs no scale; write scale="one", per="tensor"'),
        ({"exponent": 5, "mantissa": 10, "scale": "one"}, "Float(scale=\"one\", per='channel')"),
        ({"exponent": 4, "mantissa": 3, "scale": "fp8"}, 'choose "float32", "e8m0", "e4m3" or "one"'),
        ({"exponent": 4, "mantissa": 3, "per": "row"}, "Float(per='row'): choose"),
        ({"exponent": 4, "mantissa": 3, "per": "group"}, "a group size goes with"),
    ],
)
def test_settings_that_make_no_format_are_refused(given, message):
    with pytest.raises(PlanError, match=re.escape(message)):
        Float(**given)


def test_the_named_formats_take_as_many_bits_as_they_say():
    named = [getattr(formats, name) for name in formats.__all__ if name.isupper()]
    assert len(named) == 14
    assert all(isinstance(target, Format) for target in named)
    bits = {name: int(re.search(r"\d+", name.removeprefix("NV")).group()) for name in formats.__all__ if name.isupper()}
    assert bits == {name: getattr(formats, name).bits for name in bits}
