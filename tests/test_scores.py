"""What weights and channels are worth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from whit import (
    LAMP,
    BatchNormScale,
    Fisher,
    GeometricMedian,
    Gradient,
    Hessian,
    Magnitude,
    Movement,
    PlanError,
    Random,
    Taylor,
    Wanda,
)
from whit.moments import Moments
from whit.scores import Known, Score

LARGEST = np.finfo(np.float32).max
EVERY = [
    *(Magnitude(norm=1), Magnitude(norm=2), Gradient(), Taylor(), Fisher(), Movement(), Wanda(), Hessian()),
    *(LAMP(), Random(), BatchNormScale(), GeometricMedian()),
]

weights = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=1, max_dims=4), elements={"allow_nan": False, "allow_infinity": False}
)


def moments(second, sensitivity):
    nothing = np.zeros(second.shape[:2])
    return Moments(second=second, cross=second, mean=nothing, original=nothing, sensitivity=sensitivity)


def known(values, seed=0, scale=1.0):
    """A parameter of which everything is known."""
    values = np.asarray(values, np.float32)
    random = np.random.default_rng(seed)
    drawn = [(scale * random.normal(size=values.shape)).astype(np.float32) for _ in range(4)]
    columns = values[0].size if values.ndim else 1
    read = random.normal(size=(4 * columns, columns))
    return Known(
        name="w",
        weights=values,
        gradient=drawn[0],
        fisher=np.abs(drawn[1]),
        inputs=np.abs(drawn[2]),
        start=drawn[3],
        moments=moments((read.T @ read)[None], np.ones(len(values))),
    )


@pytest.mark.parametrize("score", EVERY, ids=lambda score: type(score).__name__)
@given(values=weights, scale=st.sampled_from([0.0, 1e-30, 1.0, 1e30]))
def test_every_weight_has_a_number_whatever_it_is(score, values, scale):
    if isinstance(score, Hessian):
        values = values.reshape(len(values), -1)
    found = score.weights(known(values, scale=scale))
    assert found.dtype == np.float32
    assert found.shape == values.shape
    assert np.isfinite(found).all()


@pytest.mark.parametrize("score", EVERY, ids=lambda score: type(score).__name__)
@given(
    slices=st.lists(
        hnp.arrays(np.float32, (4, 3), elements=st.floats(-(2.0**99), 2.0**99, width=32)), min_size=1, max_size=3
    )
)
def test_every_unit_has_a_number_that_is_not_negative(score, slices):
    if not isinstance(score, Movement | GeometricMedian):
        slices = [np.abs(part) for part in slices]  # as their own ``weights`` gives them
    found = score.units(slices)
    assert found.dtype == np.float32
    assert found.shape == (4,)
    assert (found >= 0).all()
    assert np.isfinite(found).all()


@given(weights)
def test_a_weight_is_worth_its_magnitude_in_either_norm(values):
    for norm in (1, 2):
        np.testing.assert_array_equal(Magnitude(norm=norm).weights(known(values)), np.abs(values))


def test_a_unit_is_worth_the_norm_of_all_that_goes_with_it():
    # Two units; each takes two weights of one parameter and one of another.
    slices = [np.array([[3, 4], [0, 0]], np.float32), np.array([[12], [5]], np.float32)]
    assert Magnitude(norm=2).units(slices).tolist() == [13, 5]
    assert Magnitude(norm=1).units(slices).tolist() == [19, 5]
    assert Magnitude(norm=2).units(slices).dtype == np.float32


@pytest.mark.parametrize("norm", [1, 2])
def test_the_largest_weights_are_worth_the_most_a_float32_can_say(norm):
    found = Magnitude(norm=norm).units([np.full((1, 4), LARGEST), np.full((1, 2), LARGEST)])
    assert found.tolist() == [LARGEST]


@pytest.mark.parametrize("norm", [1, 2])
def test_the_smallest_weights_are_worth_more_than_none(norm):
    found = Magnitude(norm=norm).units([np.array([[1e-45], [0]], np.float32)])
    assert found[0] > found[1] == 0


def test_taylor_and_fisher_foretell_the_loss_of_a_quadratic():
    # loss(w) = g (w - w0) + h (w - w0)^2 / 2 grows by -g w0 + h w0^2 / 2 when w becomes zero.
    values, gradient, curvature = (np.array(x, np.float32) for x in ([2, -1], [0.5, 3], [1, 4]))
    one = Known(name="w", weights=values, gradient=gradient, fisher=curvature)
    assert Taylor().weights(one).tolist() == [1, 3]
    assert Fisher().weights(one).tolist() == [2, 2]
    assert Taylor().units([np.array([[1, 3]], np.float32)]).tolist() == [10]  # the sum of squares


@given(st.integers(0, 100), st.integers(2, 6))
def test_the_hessian_foretells_what_is_lost_once_the_others_have_made_up_for_a_weight(seed, columns):
    random = np.random.default_rng(seed)
    read = random.normal(size=(3 * columns, columns))
    second = read.T @ read
    row = random.normal(size=(1, columns)).astype(np.float32)
    one = Known(name="w", weights=row, moments=moments(second[None], np.array([2.0])))
    found = Hessian(damping=1e-9).weights(one)[0]
    for place in range(columns):
        rest = np.delete(np.arange(columns), place)
        # The least of e^T H e with e[place] = -w[place].
        gone = -float(row[0, place])
        best = np.linalg.solve(second[np.ix_(rest, rest)], -gone * second[rest, place])
        error = np.insert(best, place, gone)
        np.testing.assert_allclose(found[place], 2 * error @ second @ error, rtol=1e-3)


def test_rows_of_a_group_share_its_hessian():
    second = np.stack([np.eye(2), 4 * np.eye(2)])
    one = Known(name="w", weights=np.ones((4, 2), np.float32), moments=moments(second, np.ones(4)))
    np.testing.assert_allclose(
        Hessian(damping=1e-9).weights(one), np.repeat([[1.0], [4.0]], 2, 0).repeat(2, 1), rtol=1e-6
    )


@given(weights)
def test_lamp_ranks_within_a_layer_as_magnitude_does_and_leaves_each_its_largest(values):
    found = LAMP().weights(known(values)).reshape(-1).astype(np.float64)
    order = np.argsort(np.square(values.reshape(-1).astype(np.float64)), kind="stable")
    assert (np.diff(found[order]) >= -1e-7).all()
    assert found.max() == (1.0 if values.any() else 0.0)


def test_the_unit_nearest_to_all_others_goes_first():
    # On a line at 0, 1 and 5; the distances of the middle one sum up to 1 + 4.
    slices = [np.array([[0, 0], [0.6, 0], [3, 0]], np.float32), np.array([[0], [0.8], [4]], np.float32)]
    np.testing.assert_allclose(GeometricMedian().units(slices), [6, 5, 9], rtol=1e-6)


def test_what_shrank_in_training_goes_before_what_grew():
    one = Known(name="w", weights=np.array([3, 1, -1], np.float32), start=np.array([4, 1, 0], np.float32))
    assert Movement().weights(one).tolist() == [-3.5, 0, 0.5]
    assert Movement().units([np.array([[-3], [1]], np.float32)]).tolist() == [0, 4]


def test_chance_has_a_seed_and_differs_from_parameter_to_parameter():
    one, other = (Known(name=name, weights=np.zeros((3, 3), np.float32)) for name in ("a", "b"))
    assert (Random(seed=1).weights(one) == Random(seed=1).weights(one)).all()
    assert (Random(seed=1).weights(one) != Random(seed=2).weights(one)).all()
    assert (Random(seed=1).weights(one) != Random(seed=1).weights(other)).all()


def test_a_share_of_the_diagonal_is_positive():
    with pytest.raises(PlanError, match=r"Hessian\(damping=0\): a share of the diagonal is a positive number"):
        Hessian(damping=0)


def test_a_score_of_ones_own_has_one_method():
    class Ones(Score):
        def weights(self, known):
            return np.ones_like(known.weights)

    assert Ones().weights(Known(name="w", weights=np.zeros((3, 2), np.float32))).tolist() == [[1, 1]] * 3
    assert Ones().units([np.ones((3, 2), np.float32)]).tolist() == [2, 2, 2]
