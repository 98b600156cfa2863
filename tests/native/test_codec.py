"""The codec through its bindings: an inverse, whatever the codes; an error or some matrix, whatever the bytes."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from whit import _core

PROFILES = ["small", "fast"]


@st.composite
def matrices(draw):
    """Codes of every width, from nearly all zero to the whole of int16."""
    shape = draw(st.tuples(st.integers(0, 24), st.integers(0, 40)))
    reach = draw(st.sampled_from([0, 1, 3, 15, 127, 32767, 2**23]))
    elements = st.integers(-reach, reach)
    fill = st.just(draw(elements))
    return draw(hnp.arrays(np.int32, shape, elements=elements, fill=fill))


@pytest.mark.parametrize("profile", PROFILES)
@given(codes=matrices())
def test_decode_undoes_encode(profile, codes):
    encoded = _core.encode(codes, profile)
    decoded = _core.decode(encoded, *codes.shape)
    assert decoded.dtype == np.int32
    np.testing.assert_array_equal(decoded, codes)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (1, 90000), (90000, 1), (64, 5000)])
def test_threads_change_nothing(profile, shape):
    codes = np.random.default_rng(0).laplace(0, 2, shape).round().astype(np.int32)
    encoded = _core.encode(codes, profile)
    np.testing.assert_array_equal(_core.encode(codes, profile, threads=4), encoded)
    np.testing.assert_array_equal(_core.decode(encoded, *shape, threads=4), codes)


@pytest.mark.parametrize("profile", PROFILES)
@given(codes=matrices(), data=st.data())
def test_damage_is_an_error_or_some_matrix(profile, codes, data):
    encoded = _core.encode(codes, profile)
    place = data.draw(st.integers(0, encoded.size - 1))
    if data.draw(st.booleans()):
        encoded = encoded[:place]
    else:
        encoded[place] ^= data.draw(st.integers(1, 255))
    with suppress(ValueError):
        assert _core.decode(np.ascontiguousarray(encoded), *codes.shape).shape == codes.shape


@pytest.mark.parametrize("profile", PROFILES)
def test_a_shape_that_the_bytes_cannot_hold_is_refused(profile):
    encoded = _core.encode(np.zeros((4, 4), np.int32), profile)
    with pytest.raises(ValueError, match="too few for the declared shape"):
        _core.decode(encoded, 2**40, 2**20)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_constant_matrix_takes_next_to_nothing(profile):
    assert _core.encode(np.full((512, 512), -7, np.int32), profile).size < 160


def test_model_bits_is_what_small_takes():
    codes = np.random.default_rng(0).laplace(0, 1, (64, 576)).round().astype(np.int32)
    assert _core.model_bits(codes) / 8 == pytest.approx(_core.encode(codes).size, rel=2e-3)


def test_codes_and_profiles_that_cannot_be_encoded_are_named():
    with pytest.raises(ValueError, match="A code is 8388609"):
        _core.encode(np.array([[2**23 + 1]], np.int32))
    with pytest.raises(ValueError, match="'small' or 'fast'"):
        _core.encode(np.zeros((1, 1), np.int32), "tiny")
