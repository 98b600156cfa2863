"""Decisions: recorded, replaced, cut."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from whit import Int, Ledger, Nearest
from whit.ledger import (
    Assigned,
    Axis,
    Folded,
    Kept,
    Masked,
    Rounded,
    RoundedActivation,
    RoundedBias,
    matrix,
)

STEP = Int(bits=8, symmetric=False, per="tensor")


def masked(name, *mask):
    return Masked(parameter=name, mask=np.array(mask))


def assigned(name, *values):
    return Assigned(parameter=name, values=np.array(values))


def rounded(name, weights, target=Int(bits=8), axis=0):  # noqa: B008 (frozen)
    weights = np.asarray(weights, np.float32)
    return Rounded.of(name, target, weights.shape, Nearest().quantize(matrix(weights, axis), target), axis)


def activation(name, scale=1.0):
    return RoundedActivation(tensor=name, target=STEP, scale=np.float32(scale), zero_point=np.int32(0))


def kept(*axes, group="g"):
    return Kept(group=group, axes={Axis(name, axis): np.array(indices) for name, axis, indices in axes})


def kinds(ledger):
    return [type(decision).__name__ for decision in ledger]


# Recording.


def test_a_ledger_begins_empty_and_recording_gives_a_new_one():
    empty = Ledger()
    recorded = empty.record(masked("w", True))
    assert list(empty) == []
    assert list(recorded) == [recorded.masks()["w"]]


def test_replay_goes_from_structure_over_masks_and_codes_to_plain_values():
    ledger = Ledger().record(
        assigned("c", 1.0), bias_of([1.0], [[1.0]], 1.0), activation("x"), rounded("w", [[1.0]]), masked("w", [True]),
        Folded(batch_norm="n", into="w"), kept(("v", 0, [0])),
    )  # fmt: skip
    assert kinds(ledger) == ["Folded", "Kept", "Masked", "Rounded", "RoundedActivation", "RoundedBias", "Assigned"]


def test_structure_stays_in_the_order_in_which_it_was_decided():
    decisions = [kept(("w", 0, [0, 1]), group=name) for name in "ba"] + [Folded(batch_norm="n", into="w")]
    assert list(Ledger().record(*decisions)) == decisions


def test_recording_one_by_one_is_recording_together():
    decisions = [masked("w", True, False), kept(("w", 0, [1])), assigned("w", 2.0), activation("x")]
    together, single = Ledger().record(*decisions), Ledger()
    for decision in decisions:
        single = single.record(decision)
    assert kinds(single) == kinds(together)
    assert single.masks()["w"].mask.tolist() == together.masks()["w"].mask.tolist() == [False]


# Replacing.


@pytest.mark.parametrize(
    ("old", "new", "view"),
    [
        (rounded("w", [[1.0]]), rounded("w", [[2.0]]), lambda ledger: ledger.rounded()["w"]),
        (activation("w", 1.0), activation("w", 2.0), lambda ledger: ledger.activations()["w"]),
    ],
)
def test_a_later_decision_of_a_kind_on_a_tensor_replaces_the_earlier(old, new, view):
    ledger = Ledger().record(old).record(new)
    assert list(ledger) == [new]
    assert view(ledger) is new


def test_what_is_masked_stays_masked_by_later_masks():
    ledger = Ledger().record(masked("w", True, False, True)).record(masked("w", False, True, True))
    assert [decision.mask.tolist() for decision in ledger] == [[False, False, True]]


def test_a_later_value_replaces_the_earlier():
    ledger = Ledger().record(assigned("w", 1.0), assigned("w", 2.0))
    assert ledger.assigned()["w"].tolist() == [2.0]


def test_decisions_of_other_kinds_and_tensors_stand_side_by_side():
    ledger = Ledger().record(
        masked("w", [True]), rounded("w", [[1.0]]), activation("w"), assigned("w", 1.0), masked("v", True)
    )
    assert len(list(ledger)) == 5
    views = (ledger.masks(), ledger.rounded(), ledger.activations(), ledger.assigned())
    assert [sorted(view) for view in views] == [["v", "w"], ["w"], ["w"], ["w"]]


# Cutting.


@settings(deadline=None)
@given(st.data(), hnp.arrays(np.int64, hnp.array_shapes(min_dims=1, max_dims=4)))
def test_masks_and_values_are_cut_as_the_parameter_is(data, values):
    axis = data.draw(st.integers(0, values.ndim - 1))
    keep = np.flatnonzero(data.draw(hnp.arrays(np.bool_, values.shape[axis])))
    cut = kept(("w", axis, keep))
    ledger = Ledger().record(Masked(parameter="w", mask=values > 0), Assigned(parameter="w", values=values), cut)
    expected = values[(slice(None),) * axis + (keep,)]
    np.testing.assert_array_equal(ledger.assigned()["w"], expected)
    np.testing.assert_array_equal(ledger.masks()["w"].mask, expected > 0)


def test_every_axis_of_a_decision_is_cut():
    ledger = Ledger().record(masked("w", [True, False], [False, False]), kept(("w", 0, [0]), ("w", 1, [1])))
    assert ledger.masks()["w"].mask.tolist() == [[False]]


def test_a_cut_drops_codes_because_they_are_chosen_again():
    ledger = Ledger().record(rounded("w", [[1.0], [2.0]]), rounded("v", [[1.0]]), kept(("w", 0, [0])))
    assert sorted(ledger.rounded()) == ["v"]


def test_a_cut_leaves_alone_what_it_does_not_name_and_what_comes_later():
    ledger = Ledger().record(masked("v", True, False), kept(("w", 0, [0])), masked("w", True, True))
    assert ledger.masks()["v"].mask.tolist() == [True, False]
    assert ledger.masks()["w"].mask.tolist() == [True, True]


# Weights as matrices.


@settings(deadline=None)
@given(st.data(), hnp.arrays(np.float32, hnp.array_shapes(min_dims=1, max_dims=4), elements=st.integers(-9, 9)))
def test_shaped_is_the_inverse_of_matrix(data, weights):
    axis = data.draw(st.integers(0, weights.ndim - 1))
    decision = rounded("w", weights, axis=axis)
    assert decision.codes.shape == (weights.shape[axis], weights.size // weights.shape[axis])
    np.testing.assert_array_equal(decision.shaped(matrix(weights, axis)), weights)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_values_are_the_weights_up_to_half_a_step(axis):
    weights = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    decision = rounded("w", weights, axis=axis)
    assert decision.values().shape == weights.shape
    assert np.abs(decision.values() - weights).max() <= decision.scale.max() * 0.5001


def test_a_matrix_has_one_row_an_output_channel():
    weights = np.arange(6).reshape(2, 3)
    assert matrix(weights).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert matrix(weights, axis=1).tolist() == [[0, 3], [1, 4], [2, 5]]
    assert matrix(weights).dtype == np.float32


# Biases of layers that run in integers.


def bias_of(values, weights, step, target=Int(bits=8)):  # noqa: B008 (frozen)
    return RoundedBias.of("b", np.asarray(values, np.float32), rounded("w", weights, target), activation("x", step))


def test_a_bias_has_the_scale_of_the_products_it_is_added_to():
    decision = bias_of([1.3, -1.3], [[127.0], [63.5]], step=0.5)
    assert (decision.parameter, decision.weight, decision.tensor) == ("b", "w", "x")
    assert decision.scale.tolist() == [0.5, 0.25]
    assert decision.codes.tolist() == [3, -5]
    assert decision.values().tolist() == [1.5, -1.25]
    per_tensor = bias_of([1.3, -1.3], [[127.0], [63.5]], step=0.5, target=Int(bits=8, per="tensor"))
    assert per_tensor.scale.tolist() == [0.5]
    assert per_tensor.codes.tolist() == [3, -3]


def test_a_bias_is_within_half_a_step():
    generator = np.random.default_rng(0)
    bias, weights = generator.normal(size=50).astype(np.float32), generator.normal(size=(50, 3))
    decision = bias_of(bias, weights, step=0.1)
    assert (np.abs(decision.values() - bias) <= decision.scale * 0.5001).all()


def test_a_bias_beyond_32_bits_is_the_largest_there_is():
    decision = bias_of([1e30, -1e30, 0], [[1e-20]] * 3, step=1e-10)
    assert decision.codes.tolist() == [2**31 - 1, -(2**31), 0]


def test_the_scale_of_a_bias_is_positive_and_finite_whatever_it_is_made_of():
    limits = np.finfo(np.float32)
    for weight, step, expected in ((1e-35, 1e-30, limits.tiny), (1e38, 1e30, limits.max)):
        assert bias_of([0.0], [[weight]], step).scale.tolist() == [expected]


def test_what_the_ledger_gives_are_codes_biases_and_values():
    ledger = Ledger().record(
        rounded("w", [[1.0]]), activation("x"), masked("m", True), assigned("v", 1.0), bias_of([1.0], [[1.0]], 1.0)
    )
    assert ledger.given() == {"w", "b", "v"}
    assert list(ledger.biases()) == ["b"]
