"""Penalties: by how much they shrink what."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from whit import L1, L2, Finetune, GroupLasso, GrowingPenalty, Plan, PlanError, Quantize

EVERY = [L1(strength=0.3), L2(strength=0.3), GroupLasso(strength=0.3), GrowingPenalty(strength=3.0, amount=0.5)]


@pytest.mark.parametrize("penalty", EVERY, ids=repr)
@given(hnp.arrays(np.float64, st.integers(1, 9), elements=st.floats(0, 1e30)), st.floats(0, 10), st.floats(0, 1))
def test_nothing_grows_or_turns(penalty, sizes, pace, done):
    factors = penalty.factors(sizes, pace, done)
    assert factors.shape == sizes.shape
    assert ((factors >= 0) & (factors <= 1)).all()


@given(st.floats(0.01, 10), st.floats(0.01, 1))
def test_a_penalty_minimises_itself_beside_the_distance_moved(size, by):
    # The proximal operator: argmin over x of penalty(x) + (x - size)^2 / (2 pace), with pace 1.
    grid = np.linspace(0, size, 10001)
    for penalty, value in ((L1(strength=by), by * grid), (L2(strength=by), by / 2 * grid**2)):
        best = grid[np.argmin(value + (grid - size) ** 2 / 2)]
        found = size * penalty.factors(np.array([size]), 1.0, 0.0)[0]
        assert found == pytest.approx(best, abs=2 * size / 10000)


def test_a_growing_penalty_begins_with_nothing_and_takes_the_smallest():
    penalty = GrowingPenalty(strength=2.0, amount=0.5, unit="weight")
    sizes = np.array([3.0, 1.0, 4.0, 2.0])
    assert penalty.factors(sizes, 0.5, 0.0).tolist() == [1, 1, 1, 1]
    assert penalty.factors(sizes, 0.5, 1.0).tolist() == [1, 0.5, 1, 0.5]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: L1(strength=0), r"L1\(strength=0\): it is a positive number"),
        (lambda: GrowingPenalty(strength=1, amount=1), "the share lies in"),
        (lambda: GrowingPenalty(strength=1, amount=0.5, unit="filter"), "choose one of weight, channel"),
        (lambda: Plan(Quantize(), Finetune(epochs=1, penalty=L1(strength=1))), "codes cannot shrink little by little"),
    ],
)
def test_penalties_that_cannot_work_are_refused(make, message):
    with pytest.raises(PlanError, match=message):
        make()
