"""What weights and channels are worth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp

from whit import Magnitude
from whit.scores import Score

LARGEST = np.finfo(np.float32).max

weights = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=1, max_dims=4), elements={"allow_nan": False, "allow_infinity": False}
)


@given(weights)
def test_a_weight_is_worth_its_magnitude_in_either_norm(values):
    for norm in (1, 2):
        found = Magnitude(norm=norm).weights(values)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, np.abs(values))


def test_a_unit_is_worth_the_norm_of_all_that_goes_with_it():
    # Two units; each takes two weights of one parameter and one of another.
    slices = [np.array([[3, -4], [0, 0]], np.float32), np.array([[12], [-5]], np.float32)]
    assert Magnitude(norm=2).units(slices).tolist() == [13, 5]
    assert Magnitude(norm=1).units(slices).tolist() == [19, 5]
    assert Magnitude(norm=2).units(slices).dtype == np.float32


@pytest.mark.parametrize("norm", [1, 2])
def test_the_largest_weights_are_worth_the_most_a_float32_can_say(norm):
    found = Magnitude(norm=norm).units([np.full((1, 4), LARGEST), np.full((1, 2), -LARGEST)])
    assert found.tolist() == [LARGEST]


@pytest.mark.parametrize("norm", [1, 2])
def test_the_smallest_weights_are_worth_more_than_none(norm):
    found = Magnitude(norm=norm).units([np.array([[1e-45], [0]], np.float32)])
    assert found[0] > found[1] == 0


def test_a_score_of_ones_own_has_two_methods():
    class Ones(Score):
        def weights(self, weights):
            return np.ones_like(weights)

        def units(self, slices):
            return np.ones(len(slices[0]), np.float32)

    assert Ones().units([np.zeros((3, 2), np.float32)]).tolist() == [1, 1, 1]
