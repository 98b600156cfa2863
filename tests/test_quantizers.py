"""How codes are chosen."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from whit import Int, Nearest
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


def test_a_quantizer_of_ones_own_has_one_method():
    class Zero(Quantizer):
        def quantize(self, matrix, target):
            shape = (len(matrix), 1)
            return Codes(np.zeros(matrix.shape, np.int32), np.ones(shape, np.float32), np.zeros(shape, np.int32))

    assert not Zero().quantize(np.ones((2, 2), np.float32), Int(bits=8)).codes.any()
