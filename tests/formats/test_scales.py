"""Scales in fewer bits: rounded, packed, and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from whit.formats import pack_scales, unpack_scales
from whit.formats.scales import fitting_scales

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=6)
LARGEST = hnp.arrays(np.float32, SHAPES, elements=st.floats(0, float(np.finfo(np.float32).max), width=32))
LEVELS = st.sampled_from([(6.0, 0.5), (448.0, 2.0**-9), (57344.0, 2.0**-16), (127.0, 1.0), (1.0, 1.0)])
packed = pytest.mark.parametrize("kind", ["e8m0", "e4m3"])


@packed
@given(LARGEST, LEVELS)
def test_fitting_scales_are_packed_and_unpacked_unchanged(kind, largest, level):
    scale = fitting_scales(largest, *level, kind)
    codes, unit = pack_scales(scale, kind)
    np.testing.assert_array_equal(unpack_scales(codes, unit, kind), scale)
    assert (codes.dtype, codes.shape) == (np.int32, scale.shape)


@given(hnp.arrays(np.int32, SHAPES, elements=st.integers(-126, 127)))
def test_every_power_of_two_is_a_scale(codes):
    scale = unpack_scales(codes, 1.0, "e8m0")
    np.testing.assert_array_equal(pack_scales(scale, "e8m0")[0], codes)


@pytest.mark.parametrize("kind", ["float32", "e8m0", "e4m3"])
@given(LARGEST, LEVELS)
def test_no_level_is_infinite_and_no_step_denormal(kind, largest, level):
    scale = fitting_scales(largest, *level, kind)
    with np.errstate(over="raise"):
        assert np.isfinite(scale * np.float32(level[0])).all()
    assert (scale * np.float32(level[1]) >= np.finfo(np.float32).tiny).all()


@packed
def test_other_scales_are_refused(kind):
    with pytest.raises(ValueError, match=f"are not all {kind}"):
        pack_scales(np.array([[1.0, 0.3]], np.float32), kind)


def test_a_tensor_of_zeros_has_scales_of_about_one():
    zeros = np.zeros((2, 3), np.float32)
    assert (fitting_scales(zeros, 6.0, 0.5, "e8m0") == 1).all()
    assert np.allclose(fitting_scales(zeros, 6.0, 0.5, "e4m3"), 1, rtol=2.0**-15)
