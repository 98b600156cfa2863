"""Patterns and blocks: which weights go together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whit import NM, Block, Magnitude, PlanError
from whit.allocate import erk


@given(st.integers(1, 4), st.integers(0, 4), st.sampled_from([(4, 8), (3, 10, 2), (2, 3, 3, 3)]), st.integers(0, 99))
def test_of_every_m_inputs_n_stay_the_highest_and_what_is_left_over_stays(n, more, shape, seed):
    unit = NM(n=n, m=n + more)
    scores = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    mask = unit.keep(scores, 0)
    assert mask.shape == shape
    along, kept = (np.moveaxis(x, 1, -1) for x in (scores, mask))
    whole = shape[1] // unit.m * unit.m
    groups = kept[..., :whole].reshape(-1, unit.m)
    assert (groups.sum(axis=1) == n).all()
    assert kept[..., whole:].all()
    values = along[..., :whole].reshape(-1, unit.m)
    lowest_kept = np.where(groups, values, np.inf).min(axis=1, initial=np.inf)
    assert (np.where(groups, -np.inf, values).max(axis=1, initial=-np.inf) <= lowest_kept).all()


def test_inputs_lie_before_the_outputs_where_these_are_last():
    scores = np.array([[4, 1], [1, 2], [3, 3], [2, 4]], np.float32)  # four inputs, two outputs
    assert NM(n=2, m=4).keep(scores, 1).T.tolist() == [[True, False, True, False], [False, False, True, True]]


def test_a_block_is_worth_what_its_weights_are_and_goes_whole():
    unit = Block(rows=2, columns=2)
    scores = np.array([[1, 2, 5], [3, 4, 6]], np.float32)
    worth = unit.worth(Magnitude(norm=1), scores)
    assert worth.tolist() == [[10, 11]]
    assert unit.spread(worth > 10, (2, 3)).tolist() == [[False, False, True]] * 2


def test_a_block_of_masked_weights_goes_before_any_other():
    scores = np.array([[-np.inf, -np.inf, 0, 0, -np.inf, 1]], np.float32)
    assert Block(columns=2).worth(Magnitude(norm=1), scores).tolist() == [[-np.inf, 0, 1]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NM(n=0, m=4), r"NM\(n=0, m=4\): of m neighbours at least one and at most all stay"),
        (lambda: NM(n=5, m=4), "at most all stay"),
        (lambda: Block(rows=0), "a block holds at least one weight"),
    ],
)
def test_units_that_hold_nothing_are_refused(make, message):
    with pytest.raises(PlanError, match=message):
        make()


shapes = st.dictionaries(st.text("abc", min_size=1), st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=1)


@given(shapes, st.floats(0, 0.99))
def test_erk_removes_the_share_of_the_whole_and_no_more_of_small_layers(shapes, amount):
    found = erk(shapes, dict.fromkeys(shapes, amount))
    sizes = {name: rows * columns for name, (rows, columns) in shapes.items()}
    removed = sum(found[name] * sizes[name] for name in shapes)
    assert removed == pytest.approx(amount * sum(sizes.values()), abs=1e-6 * sum(sizes.values()))
    assert all(0 <= one <= 1 for one in found.values())
    density = {name: (1 - found[name]) * sizes[name] / sum(shapes[name]) for name in shapes}
    free = [density[name] for name in shapes if found[name] > 1e-9]
    assert free == pytest.approx([free[0]] * len(free)) if free else True
