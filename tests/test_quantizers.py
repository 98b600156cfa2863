"""How codes are chosen."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from whit import HalfQuadratic, Int, Nearest, PlanError, formats
from whit.formats import Codes
from whit.quantizers import Quantizer

TARGETS = [
    Int(bits=bits, symmetric=symmetric, per=per, group_size=3 if per == "group" else None)
    for bits in (2, 4, 8)
    for symmetric in (True, False)
    for per in ("tensor", "channel", "group")
]
matrices = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.floats(-1e6, 1e6, width=32)
)


@settings(deadline=None)
@given(matrices, st.sampled_from(TARGETS))
def test_no_code_is_nearer_than_the_chosen_one(matrix, target):
    codes, scale, zero_point, _ = Nearest().quantize(matrix, target)
    block = target.block(matrix.shape[1])
    columns = np.arange(matrix.shape[1]) // block
    step = np.broadcast_to(scale, (matrix.shape[0], scale.shape[1]))[:, columns].astype(np.float64)
    zero = np.broadcast_to(zero_point, (matrix.shape[0], scale.shape[1]))[:, columns]
    every = (np.arange(target.low, target.high + 1)[:, None, None] - zero) * step
    nearest = np.abs(every - matrix).min(axis=0)
    chosen = np.abs((codes - zero) * step - matrix)
    assert (chosen <= nearest + step * 2.0**-14).all()  # where two are equally near, float32 decides


@settings(deadline=None)
@given(matrices, st.sampled_from(TARGETS))
def test_equal_weights_give_equal_codes(matrix, target):
    for one, other in zip(Nearest().quantize(matrix, target), Nearest().quantize(matrix.copy(), target), strict=True):
        np.testing.assert_array_equal(one, other)


def test_nearest_pinned():
    # The largest weight of a row gets the largest code: a step of 0.1 and of 1; halves go to the even code.
    matrix = np.array([[0.7, -0.32, 0.04, 0.0], [3.5, 2.5, -7.0, 0.4]], np.float32)
    codes, scale, zero_point, _ = Nearest().quantize(matrix, Int(bits=4))
    assert codes.tolist() == [[7, -3, 0, 0], [4, 2, -7, 0]]
    np.testing.assert_array_equal(scale, np.array([[0.7], [7.0]], np.float32) / np.float32(7))
    assert zero_point.tolist() == [[0], [0]]


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_codes_fit_what_the_ledger_and_the_file_ask_for(target):
    matrix = np.random.default_rng(0).normal(size=(4, 7)).astype(np.float32)
    codes, scale, zero_point, _ = Nearest().quantize(matrix, target)
    assert isinstance(Nearest().quantize(matrix, target), Codes)
    assert (codes.shape, codes.dtype) == ((4, 7), np.int32)
    expected = {"tensor": (1, 1), "channel": (4, 1), "group": (4, 3)}[target.per]
    assert scale.shape == zero_point.shape == expected
    assert (scale.dtype, zero_point.dtype) == (np.float32, np.int32)


# Where the grid ends.


def error(matrix, target, codes):
    return np.square(target.dequantize(*codes).astype(np.float64) - matrix)


CLIPPED = [
    *TARGETS,
    Int(bits=2, per="tensor"),
    formats.FP8_E4M3,
    formats.FP4_E2M1,
    replace(formats.MXFP4, group_size=3),
    replace(formats.MXINT8, group_size=3),
]


@settings(deadline=None, max_examples=50)
@given(matrices, st.sampled_from(CLIPPED))
def test_clipping_never_has_more_squared_error_than_covering_all(matrix, target):
    clipped = error(matrix, target, Nearest(clip="mse").quantize(matrix, target))
    covered = error(matrix, target, Nearest().quantize(matrix, target))
    for found, most in zip(target.blocked(clipped), target.blocked(covered), strict=True):
        assert (found.sum(axis=1) <= most.sum(axis=1) * (1 + 1e-9)).all()


@pytest.mark.parametrize("target", [*CLIPPED, formats.NVFP4], ids=str)
def test_clipping_pays_off_where_steps_are_coarse(target):
    matrix = np.random.default_rng(0).laplace(size=(16, 96)).astype(np.float32)
    clipped = error(matrix, target, Nearest(clip="mse").quantize(matrix, target)).mean()
    covered = error(matrix, target, Nearest().quantize(matrix, target)).mean()
    assert clipped < covered if target.high < 16 else clipped <= covered * (1 + 1e-9)


@pytest.mark.parametrize("target", CLIPPED, ids=str)
@pytest.mark.parametrize("row", [[1e30, 1, -1], [3.4e38, -3.4e38, 1], [5, 5, 5], [0, 0, 0], [1e-45, 0, 0]])
def test_outliers_and_constants_give_finite_weights(target, row):
    matrix = np.array([row, [0.5, -1, 2]], np.float32)
    codes = Nearest(clip="mse").quantize(matrix, target)
    assert np.isfinite(target.dequantize(*codes)).all()
    assert (codes.scale > 0).all()


def test_ternary_weights_are_at_least_as_near_as_those_of_ternary_weight_networks():
    # Li et al. 2016: what lies beyond 0.7 of the mean magnitude is the mean of what lies beyond it, the rest is zero.
    rng = np.random.default_rng(0)
    for matrix in (rng.normal(size=(32, 200)), rng.laplace(size=(32, 200)), rng.uniform(-1, 1, (32, 200))):
        weights = matrix.astype(np.float32)
        large = np.abs(weights) > 0.7 * np.abs(weights).mean(axis=1, keepdims=True)
        level = (np.abs(weights) * large).sum(axis=1) / large.sum(axis=1)
        theirs = np.square(np.sign(weights) * large * level[:, None] - weights).sum()
        ours = error(weights, Int(bits=2), Nearest(clip="mse").quantize(weights, Int(bits=2))).sum()
        assert ours <= theirs * 1.005


@pytest.mark.parametrize("clip", ["max", "mse"])
def test_binary_weights_are_signs_times_the_mean_magnitude(clip):
    matrix = np.array([[1, -2, 3, -4, 0], [0.5, 0.5, -0.5, 0.5, 2]], np.float32)
    grids = {
        Int(bits=1): [[2.0], [0.8]],
        Int(bits=1, per="tensor"): [[1.4]],
        Int(bits=1, per="group", group_size=3): [[2.0, 2.0], [0.5, 1.25]],  # the last group has two
    }
    for target, scale in grids.items():
        found = Nearest(clip=clip).quantize(matrix, target)
        np.testing.assert_allclose(found.scale, scale, rtol=1e-6)
        np.testing.assert_array_equal(found.codes, np.where(matrix < 0, -1, 1))
        assert not found.zero_point.any()


def test_a_clip_is_max_or_mse():
    with pytest.raises(PlanError, match=r"Nearest\(clip='percentile'\): choose \"max\" or \"mse\""):
        Nearest(clip="percentile")


def test_a_quantizer_of_ones_own_has_one_method():
    class Zero(Quantizer):
        def quantize(self, matrix, target):
            shape = (len(matrix), 1)
            return Codes(np.zeros(matrix.shape, np.int32), np.ones(shape, np.float32), np.zeros(shape, np.int32))

    assert not Zero().quantize(np.ones((2, 2), np.float32), Int(bits=8)).codes.any()


# Outliers forgiven.

GRIDS = [target for target in TARGETS if target.has_zero]


@settings(deadline=None, max_examples=50)
@given(matrices, st.sampled_from(GRIDS), st.sampled_from([0.3, 0.7]))
def test_a_norm_below_1_is_never_larger_than_where_the_squared_error_is_least(matrix, target, norm):
    found, start = (
        target.blocked(np.sqrt(error(matrix, target, method.quantize(matrix, target))) ** norm).sum(axis=2)
        for method in (HalfQuadratic(norm=norm), Nearest(clip="mse"))
    )
    assert (found <= start * (1 + 1e-6)).all()


@pytest.mark.parametrize("target", GRIDS, ids=str)
def test_weights_with_outliers_have_a_smaller_error_in_that_norm(target):
    matrix = np.random.default_rng(0).standard_t(3, (16, 96)).astype(np.float32)
    found, start = (
        (np.sqrt(error(matrix, target, method.quantize(matrix, target))) ** 0.7).sum()
        for method in (HalfQuadratic(), Nearest(clip="mse"))
    )
    coarse = (
        target.bits < 8 and target.per != "group"
    )  # else clipping pays too little, or three weights have no outliers
    assert found < 0.99 * start if coarse else found <= start


@pytest.mark.parametrize("target", GRIDS, ids=str)
@pytest.mark.parametrize("row", [[1e30, 1, -1], [3.4e38, -3.4e38, 1], [5, 5, 5], [0, 0, 0], [1e-45, 0, 0]])
def test_fitting_outliers_and_constants_gives_finite_weights(target, row):
    matrix = np.array([row, [0.5, -1, 2]], np.float32)
    codes = HalfQuadratic().quantize(matrix, target)
    assert np.isfinite(target.dequantize(*codes)).all()
    assert target.are_codes(codes.codes)


@pytest.mark.parametrize("norm", [0, 1, 2, float("nan")])
def test_a_norm_that_forgives_nothing_is_refused(norm):
    with pytest.raises(PlanError, match=r"the norm lies between 0 and 1; for the squared error take Nearest"):
        HalfQuadratic(norm=norm)
    with pytest.raises(PlanError, match=r"HalfQuadratic\(iterations=0\): fit at least once"):
        HalfQuadratic(iterations=0)
