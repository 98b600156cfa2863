"""Optimal Brain Surgeon in the core, against what NumPy says."""

import numpy as np
import pytest

from whit import _core


def problem(rows=6, columns=40, groups=1, seed=0):
    random = np.random.default_rng(seed)
    weights = random.normal(size=(rows, columns)).astype(np.float32)
    inputs = random.normal(size=(groups, 4 * columns, columns)) + 2 * random.normal(size=(groups, 4 * columns, 1))
    hessian = np.ascontiguousarray(np.einsum("gsi,gsj->gij", inputs, inputs) / inputs.shape[1])
    return weights, hessian


def solve(weights, hessian, rate=0.0, damping=0.0, row_weight=None, **options):
    rows, columns = weights.shape
    scale, zero_point = np.full((rows, 1), 0.1, np.float32), np.zeros((rows, 1), np.int32)
    row_weight = np.ones(rows) if row_weight is None else row_weight
    return _core.optimal_brain(
        weights, hessian, row_weight, scale, zero_point, columns, -127, 127, rate, damping, **options
    )


def reference(weights, hessian):
    """The recursion as Hassibi and Stork write it: the inverse of what is left, shrunk column by column."""
    left, inverse = weights.astype(np.float64), np.linalg.inv(hessian)
    codes = np.zeros(weights.shape, np.int32)
    for j in range(weights.shape[1]):
        codes[:, j] = np.clip(np.rint(left[:, j] / np.float64(np.float32(0.1))), -127, 127)
        error = (left[:, j] - codes[:, j] * np.float64(np.float32(0.1))) / inverse[j, j]
        left -= error[:, None] * inverse[j]
        inverse = inverse - np.outer(inverse[:, j], inverse[j]) / inverse[j, j]
    return codes


def test_codes_are_those_of_the_recursion_on_the_inverse():
    weights, hessian = problem()
    codes, loss, _ = solve(weights, hessian)
    np.testing.assert_array_equal(codes, reference(weights, hessian[0]))
    error = weights - codes * np.float32(0.1)
    np.testing.assert_allclose(loss, np.einsum("ri,ij,rj->", error, hessian[0], error), rtol=1e-3)


def test_groups_of_rows_have_their_own_hessians():
    weights, hessian = problem(rows=6, groups=3)
    whole = solve(weights, hessian)[0]
    parts = [solve(weights[2 * g : 2 * g + 2], hessian[g : g + 1])[0] for g in range(3)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_a_row_worth_more_is_kept_better():
    weights, hessian = problem(rows=2, columns=200)
    weights[1] = weights[0]
    codes = solve(weights, hessian, rate=0.05, row_weight=np.array([100.0, 0.01]))[0]
    assert np.count_nonzero(codes[0]) > 2 * np.count_nonzero(codes[1])


def test_a_column_without_curvature_costs_nothing_but_its_bits():
    weights, hessian = problem()
    hessian[0, 3], hessian[0, :, 3] = 0, 0
    dear, free = (solve(weights, hessian, rate=rate, damping=1e-9)[0][:, 3] for rate in (1e-3, 0.0))
    # Early on the model may find the nearest code as cheap as 0; what it has learned by then decides the rest.
    assert np.count_nonzero(dear) <= 2 < np.count_nonzero(free)


def test_surviving_weights_solve_the_normal_equations():
    weights, hessian = problem()
    mask = (np.random.default_rng(1).random(weights.shape) < 0.5).astype(np.uint8)
    mask[2] = 0
    updated = _core.update_params(weights, mask, hessian, 0.0, threads=2)
    assert not updated[mask == 0].any()
    for row, kept in enumerate(mask.astype(bool)):
        best = np.linalg.solve(hessian[0][np.ix_(kept, kept)], hessian[0][kept] @ weights[row])
        np.testing.assert_allclose(updated[row][kept], best, rtol=1e-4, atol=1e-4)


def test_a_mask_that_keeps_all_changes_nothing():
    weights, hessian = problem()
    kept = _core.update_params(weights, np.ones(weights.shape, np.uint8), hessian, 0.01)
    np.testing.assert_array_equal(kept, weights)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hessian": np.full((1, 40, 40), np.nan)}, "NaN or infinite"),
        ({"hessian": np.eye(39)[None]}, "hessian has shape"),
        ({"weights": np.full((6, 40), np.nan, np.float32)}, "240 NaN"),
        ({"rate": np.inf}, "lambda is inf"),
        ({"damping": -1.0}, "damping is -1"),
    ],
)
def test_what_cannot_be_used_is_named(change, message):
    weights, hessian = problem()
    with pytest.raises(ValueError, match=message):
        solve(**({"weights": weights, "hessian": hessian} | change))


def test_empty_matrices_have_empty_codes():
    codes, loss, bits = solve(np.zeros((0, 4), np.float32), np.eye(4)[None])
    assert (codes.shape, loss, bits) == ((0, 4), 0, 0)
