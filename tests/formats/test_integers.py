"""Grids of integers: which numbers they represent, and how exactly."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from whit import PlanError
from whit.formats import Int, nibbles

TARGETS = [
    Int(bits=bits, symmetric=symmetric, per=per, group_size=4 if per == "group" else None, reduce_range=reduced)
    for bits in (*range(1, 9), 11, 16)
    for symmetric in (True, False)
    for per in ("tensor", "channel", "group")
    for reduced in (False, True)
    if (bits > 2 or not reduced) and (bits > 1 or not symmetric)
]
LARGEST = np.finfo(np.float32).max
TINY = np.finfo(np.float32).tiny
"""The smallest float32 that is not denormal: no scale is smaller."""

finite = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=True)
matrices = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=11), elements=finite)


def rounded(target, matrix):
    """Scale for every weight, codes, zero points and the weights that the codes stand for."""
    blocks = target.blocked(matrix)
    scale, zero_point = target.grid(blocks.min(axis=2), blocks.max(axis=2))
    codes = target.quantize(matrix, scale, zero_point)
    return scale, codes, zero_point, target.dequantize(codes, scale, zero_point)


def spread(target, per_block, matrix):
    """A value of each block at each of its weights."""
    block = target.block(matrix.shape[1])
    return np.broadcast_to(np.repeat(per_block, block, axis=1)[:, : matrix.shape[1]], matrix.shape)


# The codes.


@pytest.mark.parametrize("bits", range(2, 17))
def test_codes_are_symmetric_without_the_lowest_or_unsigned(bits):
    signed, unsigned = Int(bits=bits), Int(bits=bits, symmetric=False)
    assert (signed.low, signed.high) == (1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1)
    assert (unsigned.low, unsigned.high) == (0, 2**bits - 1)


@pytest.mark.parametrize("bits", range(3, 17))
def test_a_reduced_range_gives_up_half_of_the_codes(bits):
    # Two products of 255 and 64 fit into the 16 bits of a CPU without VNNI: 2 * 255 * 64 < 2**15.
    signed, unsigned = Int(bits=bits, reduce_range=True), Int(bits=bits, symmetric=False, reduce_range=True)
    assert (signed.low, signed.high) == (-(2 ** (bits - 2)), 2 ** (bits - 2))
    assert (unsigned.low, unsigned.high) == (0, 2 ** (bits - 1) - 1)


# The grid.


@settings(deadline=None)
@given(matrices, st.sampled_from(TARGETS))
def test_every_weight_is_within_half_a_step(matrix, target):
    scale, codes, _, weights = rounded(target, matrix)
    assert target.low <= codes.min()
    assert codes.max() <= target.high
    step = spread(target, scale, matrix).astype(np.float64)
    # weights / scale is rounded to float32 before it is rounded to a code: at most 2**bits steps of 2**-24 each.
    slack = 2.0**-14 if target.bits <= 8 else 2.0 ** (target.bits - 22)
    assert (np.abs(weights.astype(np.float64) - matrix) <= step * (0.5 + slack)).all()


@settings(deadline=None)
@given(matrices, st.sampled_from(TARGETS))
def test_zero_is_exact(matrix, target):
    matrix[0, :] = 0
    _, _, _, weights = rounded(target, matrix)
    assert not weights[matrix == 0].any()


@settings(deadline=None)
@given(matrices, st.sampled_from(TARGETS))
def test_weights_on_their_grid_stay_where_they_are(matrix, target):
    scale, codes, zero_point, weights = rounded(target, matrix)
    np.testing.assert_array_equal(target.quantize(weights, scale, zero_point), codes)


@settings(deadline=None)
@given(matrices, st.sampled_from([target for target in TARGETS if target.symmetric]))
def test_symmetric_grids_keep_signs_and_mirror(matrix, target):
    scale, codes, zero_point, _ = rounded(target, matrix)
    assert not zero_point.any()
    np.testing.assert_array_equal(target.quantize(-matrix, scale, zero_point), -codes)


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_scales_are_laid_out_as_the_format_says(target):
    matrix = np.random.default_rng(0).normal(size=(3, 10)).astype(np.float32)
    scale, codes, zero_point, _ = rounded(target, matrix)
    # Ten weights in groups of four: the last group has two.
    expected = {"tensor": (1, 1), "channel": (3, 1), "group": (3, 3)}[target.per]
    assert scale.shape == zero_point.shape == expected
    assert (scale.dtype, codes.dtype, zero_point.dtype) == (np.float32, np.int32, np.int32)


def test_scales_cover_just_the_weights_that_share_them():
    matrix = np.array([[1, -2, 4, 8, -16], [0.5, 0.25, 0, 0, 3]], np.float32)
    largest = {
        Int(bits=8, per="tensor"): [[16]],
        Int(bits=8): [[16], [3]],
        Int(bits=8, per="group", group_size=2): [[2, 8, 16], [0.5, 0, 3]],
        Int(bits=8, per="group", group_size=100): [[16], [3]],
    }
    for target, covered in largest.items():
        scale = rounded(target, matrix)[0]
        expected = np.array(covered, np.float32) / np.float32(127)
        np.testing.assert_array_equal(scale, np.where(expected == 0, 1, expected))


def test_an_asymmetric_grid_covers_both_ends_and_zero():
    target = Int(bits=8, symmetric=False, per="tensor")
    scale, zero_point = target.grid(np.float32(-1), np.float32(4))
    # 255 steps from -1 to 4; zero lies 51 of them above -1.
    assert (scale, zero_point) == (np.float32(4 / 255) + np.float32(1 / 255), 51)
    # All values on one side of zero: the grid still begins at zero.
    assert target.grid(np.float32(2), np.float32(5.1))[1] == 0
    assert target.grid(np.float32(-5.1), np.float32(-2))[1] == 255


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_rows_of_zeros_have_the_scale_1(target):
    scale, codes, zero_point, weights = rounded(target, np.zeros((2, 6), np.float32))
    assert (scale == 1).all()
    for zeros in (codes, zero_point, weights):
        assert not zeros.any()


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("value", [3.0, -3.0])
def test_a_constant_is_nearly_exact(target, value):
    _, _, _, weights = rounded(target, np.full((2, 6), value, np.float32))
    assert np.allclose(weights, value, rtol=2.0**-20)


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("value", [1e-45, 1e-40, TINY, 3e-38])
def test_scales_are_never_denormal(target, value):
    matrix = np.array([[value, -value, 0, value]], np.float32)
    scale, _, _, weights = rounded(target, matrix)
    assert (scale >= TINY).all()
    assert (np.abs(weights - matrix) <= scale.max() / 2).all()


@pytest.mark.parametrize("target", [target for target in TARGETS if target.bits > 1], ids=str)
@pytest.mark.parametrize(
    "row", [[LARGEST, 0], [-LARGEST, 0], [LARGEST, -LARGEST], [LARGEST, -LARGEST / 3], [-LARGEST, LARGEST / 200]]
)
def test_the_largest_float32_overflows_nowhere(target, row):
    matrix = np.array([row], np.float32)
    scale, _, _, weights = rounded(target, matrix)
    assert np.isfinite(scale).all()
    assert np.isfinite(weights).all()
    # Where the grid would reach beyond float32 its steps are made smaller, so that one end is a step short.
    error = np.abs(weights.astype(np.float64) - matrix)
    assert (error <= float(scale.max()) * (1 + 2.0 ** max(-14, target.bits - 22))).all()


def test_weights_that_are_not_finite_are_refused():
    target = Int(bits=8)
    with pytest.raises(ValueError, match="hold 1 NaN and 1 infinite values"):
        target.quantize(
            np.array([[np.nan, np.inf]], np.float32), np.ones((1, 1), np.float32), np.zeros((1, 1), np.int32)
        )


# The settings.


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"bits": 0}, "Int(bits=0): integers have 1 to 16 bits; choose one of these"),
        ({"bits": 17}, "Int(bits=17): integers have 1 to 16 bits; choose one of these"),
        ({"bits": 8, "per": "row"}, 'Int(per=\'row\'): choose "tensor", "channel" or "group"'),
        ({"bits": 8, "per": "group"}, "Int(per='group', group_size=None): a group size goes with"),
        ({"bits": 8, "group_size": 32}, "Int(per='channel', group_size=32): a group size goes with"),
        ({"bits": 8, "per": "group", "group_size": 0}, "Int(group_size=0): a group holds at least one weight"),
        ({"bits": 2, "reduce_range": True}, "would leave a single bit; use bits=3 or more"),
        ({"bits": 8, "scale": "e5m2"}, 'Int(scale=\'e5m2\'): choose "float32", "e8m0" or "e4m3"'),
        ({"bits": 8, "scale": "e8m0", "symmetric": False}, "such scales go with the whole symmetric range"),
        ({"bits": 8, "scale": "e4m3", "reduce_range": True}, "such scales go with the whole symmetric range"),
    ],
)
def test_settings_that_make_no_format_are_refused(given, message):
    with pytest.raises(PlanError, match=re.escape(message)):
        Int(**given)


# Nibbles.


@given(hnp.arrays(np.int32, st.integers(0, 9), elements=st.integers(-8, 15)))
def test_nibbles_go_two_to_a_byte_the_first_in_the_low_half(codes):
    packed = np.frombuffer(nibbles(codes), np.uint8)
    assert packed.size == -(-codes.size // 2)
    unpacked = np.stack([packed & 15, packed >> 4], axis=1).reshape(-1)
    np.testing.assert_array_equal(unpacked[: codes.size], codes & 15)
    assert not unpacked[codes.size :].any()


def test_nibbles_are_those_of_onnx():
    helper = pytest.importorskip("onnx").helper
    from onnx import TensorProto, numpy_helper

    codes = np.array([[-8, 7, 0], [-1, 1, -7]], np.int32)
    tensor = helper.make_tensor("codes", TensorProto.INT4, codes.shape, nibbles(codes), raw=True)
    np.testing.assert_array_equal(numpy_helper.to_array(tensor).astype(np.int32), codes)
