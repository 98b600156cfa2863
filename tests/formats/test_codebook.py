"""Learned values: k-means on a line."""

import re
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from whit import PlanError
from whit.formats import Codebook, k_means
from whit.quantizers import Nearest

TARGETS = [
    Codebook(k=2),
    Codebook(k=4),
    Codebook(k=16),
    Codebook(k=256),
    Codebook(k=4, per="channel"),
    Codebook(k=16, per="group", group_size=3),
]
finite = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=True)
matrices = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=11), elements=finite)
rows = hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(-100, 100, width=32))


def loss(values, centers):
    return float(np.square(values[:, None].astype(np.float64) - centers).min(axis=1).sum())


def best_loss(values, k):
    """Of all ways to cut sorted values into k runs."""
    values = np.sort(values).astype(np.float64)
    least = np.inf
    for cuts in combinations(range(1, len(values)), k - 1):
        parts = np.split(values, cuts)
        least = min(least, sum(float(np.square(part - part.mean()).sum()) for part in parts))
    return least


@given(rows, st.integers(2, 20))
def test_centers_rise_and_are_at_most_k(values, k):
    centers = k_means(values, k)
    assert centers.dtype == np.float32
    assert 1 <= centers.size <= k
    assert (np.diff(centers) > 0).all()
    assert values.min() <= centers[0]
    assert centers[-1] <= values.max()


@given(rows, st.integers(2, 20))
def test_few_distinct_values_are_all_kept(values, k):
    distinct = np.unique(values)
    if distinct.size <= k:
        np.testing.assert_array_equal(k_means(values, k), distinct)


@given(rows, st.integers(2, 20))
def test_a_zero_is_a_center(values, k):
    values[0] = 0
    assert (k_means(values, k) == 0).any()


@given(rows, st.integers(2, 8))
def test_the_order_of_values_does_not_matter(values, k):
    np.testing.assert_array_equal(k_means(values, k), k_means(np.sort(values)[::-1], k))


@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("seed", range(5))
def test_clusters_are_nearly_the_best_there_are(k, seed):
    values = np.random.default_rng(seed).normal(size=14).astype(np.float32)
    assert loss(values, k_means(values, k)) <= 1.3 * best_loss(values, k)


def test_clear_clusters_are_found():
    rng = np.random.default_rng(0)
    means = np.array([-7.0, -1.0, 0.5, 3.0, 40.0])
    values = (means[:, None] + 0.01 * rng.normal(size=(5, 100))).astype(np.float32)
    np.testing.assert_allclose(k_means(values, 5), values.mean(axis=1), rtol=1e-5)


def test_importance_counts_as_repetition():
    values, times = np.array([1.0, 2.0, 10.0, 11.0, 30.0], np.float32), np.array([1, 5, 2, 7, 1])
    weighted = k_means(values, 3, importance=times.astype(np.float64))
    np.testing.assert_allclose(weighted, k_means(np.repeat(values, times), 3), rtol=1e-6)


def test_channels_of_very_different_scales_share_a_codebook():
    matrix = np.array([[8e7, 1, 0, 0, 0.5], [1, -2, 0, 0.25, 0], [1e-20, 2e-20, 0, 0, 1e-21]], np.float32)
    target = Codebook(k=4, per="channel")
    codes, scale, zero_point, codebook = Nearest().quantize(matrix, target)
    weights = target.dequantize(codes, scale, zero_point, codebook)
    assert (np.abs(weights - matrix) <= np.abs(matrix).max(axis=1, keepdims=True) / 2).all()


@pytest.mark.parametrize("outlier", [1e30, np.finfo(np.float32).max, 1e-45])
def test_outliers_give_finite_centers(outlier):
    values = np.append(np.random.default_rng(0).normal(size=100), [outlier, -outlier]).astype(np.float32)
    assert np.isfinite(k_means(values, 8)).all()


# The format.


@settings(deadline=None)
@given(matrices, st.sampled_from(TARGETS))
def test_weights_on_their_values_stay_where_they_are(matrix, target):
    codes, scale, zero_point, codebook = Nearest().quantize(matrix, target)
    weights = target.dequantize(codes, scale, zero_point, codebook)
    np.testing.assert_array_equal(target.quantize(weights, scale, zero_point, codebook), codes)
    assert target.are_codes(codes)
    assert codes.max() < codebook.size <= target.k
    assert np.isfinite(weights).all()
    assert not weights[matrix == 0].any()


@settings(deadline=None)
@given(matrices)
def test_no_value_is_nearer_than_the_chosen_one(matrix):
    codes, _, _, codebook = Nearest().quantize(matrix, Codebook(k=4))
    chosen = np.abs(codebook[codes].astype(np.float64) - matrix)
    assert (chosen <= np.abs(codebook[:, None, None].astype(np.float64) - matrix).min(axis=0)).all()


def test_a_codebook_a_channel_is_shared_in_units_of_each_channel():
    base = np.array([-1.0, -0.25, 0.5, 1.0])
    matrix = (base * np.array([[1.0], [8.0], [0.01]])).astype(np.float32)
    target = Codebook(k=4, per="channel")
    codes, scale, zero_point, codebook = Nearest().quantize(matrix, target)
    np.testing.assert_array_equal(codebook, base)
    np.testing.assert_array_equal(scale, np.array([[1], [8], [0.01]], np.float32))
    np.testing.assert_allclose(target.dequantize(codes, scale, zero_point, codebook), matrix, rtol=1e-6)


def test_a_codebook_has_less_error_than_a_grid_of_as_many_levels():
    from whit import Int

    matrix = np.random.default_rng(0).laplace(size=(8, 500)).astype(np.float32)
    errors = []
    for target in (Codebook(k=15), Int(bits=4, per="tensor")):
        found = Nearest(clip="mse").quantize(matrix, target)
        errors.append(float(np.square(target.dequantize(*found) - matrix).mean()))
    assert errors[0] < 0.7 * errors[1]


def test_codes_without_their_codebook_are_refused():
    with pytest.raises(ValueError, match="without their codebook"):
        Codebook(k=4).dequantize(np.zeros((1, 1), np.int32), np.ones((1, 1), np.float32), np.zeros((1, 1), np.int32))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"k": 1}, "Codebook(k=1): a codebook has 2 to 256 values"),
        ({"k": 257}, "for more take Int(bits=16) or FP16"),
        ({"k": 4, "per": "row"}, "Codebook(per='row'): choose"),
        ({"k": 4, "group_size": 3}, "a group size goes with"),
    ],
)
def test_settings_that_make_no_format_are_refused(given, message):
    with pytest.raises(PlanError, match=re.escape(message)):
        Codebook(**given)
