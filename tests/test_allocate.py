"""One amount spread over layers: which weights and units stay."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from whit.allocate import keep_one_, keep_units, keep_weights, least

scores = hnp.arrays(np.float32, st.integers(1, 30), elements=st.floats(0, 100, width=32))
several = st.dictionaries(st.sampled_from("abcd"), scores, min_size=1)
amounts = st.floats(0, 1, exclude_max=True)


def singles(values):
    return {name: np.array(row, np.float32) for name, row in values.items()}


def same(amount, names):
    return dict.fromkeys(names, amount)


# Single weights.


@settings(deadline=None)
@given(several, amounts, st.booleans())
def test_masks_remove_the_share_and_nothing_that_is_worth_more_than_what_stays(values, amount, together):
    masks = keep_weights(values, same(amount, values), together=together)
    pools = [list(values)] if together else [[name] for name in values]
    for names in pools:
        kept = np.concatenate([values[name][masks[name]] for name in names])
        gone = np.concatenate([values[name][~masks[name]] for name in names])
        assert gone.size == round(amount * (kept.size + gone.size))
        if kept.size and gone.size:
            assert gone.max() <= kept.min()


def test_masks_have_the_shapes_of_their_parameters():
    values = {"a": np.arange(6, dtype=np.float32).reshape(1, 2, 3), "b": np.float32([[9.0]])}
    masks = keep_weights(values, same(0.5, values), together=True)
    assert masks["a"].tolist() == [[[False, False, False], [False, True, True]]]  # four of seven go, rounded to even
    assert masks["b"].tolist() == [[True]]
    assert all(mask.dtype == np.bool_ for mask in masks.values())


def test_of_equal_scores_the_first_goes():
    values = singles({"a": [1, 1], "b": [1, 1]})
    masks = keep_weights(values, same(0.5, values), together=True)
    assert [masks[name].tolist() for name in "ab"] == [[False, False], [True, True]]


def test_only_equal_amounts_are_ranked_together():
    values = singles({"a": [1, 2], "b": [3, 4], "c": [5, 6]})
    masks = keep_weights(values, {"a": 0.5, "b": 0.5, "c": 0.25}, together=True)
    assert [masks[name].tolist() for name in "abc"] == [[False, False], [True, True], [True, True]]


def test_alone_every_parameter_gives_its_own_share():
    values = singles({"a": [1, 2, 3, 4], "b": [5, 6, 7, 8]})
    masks = keep_weights(values, {"a": 0.75, "b": 0.25}, together=False)
    assert masks["a"].tolist() == [False, False, False, True]
    assert masks["b"].tolist() == [False, True, True, True]


# Units.


@settings(deadline=None)
@given(several, amounts, st.integers(1, 8), st.booleans())
def test_units_are_kept_in_multiples_best_first_and_never_none(values, amount, multiple, together):
    kept, _ = keep_units(values, same(amount, values), same(multiple, values), together=together)
    for name, units in kept.items():
        size = values[name].size
        assert (np.diff(units) > 0).all()
        assert units.size == size or (units.size > 0 and units.size % multiple == 0)
        gone = np.setdiff1d(np.arange(size), units)
        if gone.size:
            assert values[name][gone].max() <= values[name][units].min()


@settings(deadline=None)
@given(several, amounts)
def test_alone_a_group_loses_its_share_rounded_down(values, amount):
    kept, _ = keep_units(values, same(amount, values), same(1, values), together=False)
    for name, units in kept.items():
        # 1e-9: 0.7 of 10 units is 7 and not the 6 that 7.000000000000001 or 6.999999999999999 might give.
        assert units.size == max(1, values[name].size - int(amount * values[name].size + 1e-9))


@pytest.mark.parametrize(
    ("amount", "multiple", "count"),
    [(0.0, 1, 10), (0.7, 1, 3), (0.7, 4, 4), (0.5, 8, 8), (0.5, 16, 10), (0.99, 1, 1), (0.25, 1, 8)],
)
def test_how_many_of_ten_units_stay(amount, multiple, count):
    values = singles({"a": range(10)})
    kept, _ = keep_units(values, {"a": amount}, {"a": multiple}, together=False)
    assert kept["a"].tolist() == list(range(10 - count, 10))


def test_together_scores_are_relative_to_their_group():
    # b is a hundred times a: the lowest half, relative to the mean, is one unit of each.
    values = singles({"a": [1, 3], "b": [300, 100]})
    kept, _ = keep_units(values, same(0.5, values), same(1, values), together=True)
    assert [kept[name].tolist() for name in "ab"] == [[1], [0]]


def test_together_a_group_may_lose_more_than_its_share_but_not_everything():
    values = singles({"even": [1, 1, 1, 1], "peaked": [100, 0, 0, 0]})
    kept, _ = keep_units(values, same(0.75, values), same(1, values), together=True)
    assert kept["even"].size == 1  # three zeros and three ones go
    assert kept["peaked"].tolist() == [0]


def test_a_group_of_zeros_is_worth_nothing_and_keeps_one():
    values = singles({"zero": [0, 0, 0], "one": [1, 1, 1]})
    kept, emptied = keep_units(values, same(0.5, values), same(1, values), together=True)
    assert emptied == ["zero"]
    assert kept["zero"].tolist() == [2]
    assert kept["one"].tolist() == [0, 1, 2]


@settings(deadline=None)
@given(several, amounts)
def test_a_mask_that_keeps_nothing_keeps_the_best(values, amount):
    masks = keep_weights(values, same(amount, values), together=True)
    before = {name: mask.copy() for name, mask in masks.items()}
    assert keep_one_(masks, values) == [name for name in values if not before[name].any()]
    for name, mask in masks.items():
        if before[name].any():
            assert np.array_equal(mask, before[name])
        else:
            assert mask.sum() == 1
            assert values[name][mask] == values[name].max()


@pytest.mark.parametrize(
    ("threshold", "low", "found"), [(0.3, 0.0, 0.3125), (1.0, 0.0, 1.0), (0.0, 0.0, 0.0), (0.3, 0.75, 0.75)]
)
def test_the_least_share_that_fits_is_found_to_a_sixteenth(threshold, low, found):
    assert least(lambda share: share >= threshold, tries=4, low=low) == found


@pytest.mark.parametrize("together", [False, True])
def test_nothing_to_spread_over_is_nothing(together):
    assert keep_weights({}, {}, together=together) == {}
    assert keep_units({}, {}, {}, together=together) == ({}, [])
