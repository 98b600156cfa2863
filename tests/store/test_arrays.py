"""Arrays to bytes and back."""

import zlib
from dataclasses import replace
from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from whit.errors import FileError, OutputError
from whit.store.arrays import Entry, decode, encode

INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "int64")
FLOATS = ("float16", "float32", "float64")
DTYPES = ("bool", *INTEGERS, *FLOATS)


def round_trip(array):
    """An array through its bytes and through its entry as JSON has it."""
    entry, stored = encode(array)
    assert Entry.of(entry.table()) == entry
    assert len(stored) == entry.length
    return decode(Entry.of(entry.table()), stored, "here")


def assert_same_bits(found, expected):
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()  # NaN, -0.0 and infinity included


@st.composite
def arrays(draw):
    """Arrays of every dtype and of 0 to 8 axes, empty ones too, dense or in a narrow band of values."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=8, min_side=0, max_side=3))
    if dtype in INTEGERS and draw(st.booleans()):
        info = np.iinfo(dtype)
        low = draw(st.integers(info.min, info.max))
        band = st.integers(low, min(low + draw(st.integers(0, 2**18)), info.max))
        return draw(hnp.arrays(dtype, shape, elements=band))
    return draw(hnp.arrays(dtype, shape))


@settings(deadline=None)
@given(arrays())
def test_decode_is_the_inverse_of_encode(array):
    assert_same_bits(round_trip(array), array)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,) * 8, (2, 1, 3, 1, 2, 1, 1, 2), (0,), (3, 0, 2), (1000,)])
def test_every_dtype_keeps_every_shape_when_constant(dtype, shape):
    for value in (0, 1):
        array = np.full(shape, value, dtype)
        assert_same_bits(round_trip(array), array)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_the_ends_of_every_integer_dtype_are_kept(dtype):
    info = np.iinfo(dtype)
    for values in ([info.min], [info.max], [info.max - 1, info.max], [info.min, info.max], [info.max - 2, info.max]):
        array = np.array(values, dtype)
        assert_same_bits(round_trip(array), array)


@pytest.mark.parametrize("value", [2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**62])
def test_wide_integers_around_the_packed_range_are_kept(value):
    array = np.array([value, value - 3], np.int64)
    assert_same_bits(round_trip(array), array)


def test_float_bits_survive():
    array = np.array([0.0, -0.0, np.nan, -np.nan, np.inf, -np.inf, 1e-45, 3.4028235e38], np.float32)
    assert_same_bits(round_trip(array), array)


@pytest.mark.parametrize("bits", range(1, 17))
def test_integers_take_as_many_bits_as_their_span(bits):
    # A span of 2**bits - 1 above the low value needs just that width; random bits leave nothing to deflate.
    values = np.random.default_rng(0).integers(0, 2**bits, 4096)
    values[:2] = 0, 2**bits - 1
    entry, _ = encode(values.astype(np.int32) - 100)
    assert (entry.bits, entry.low) == (bits, -100)
    assert entry.size == ceil(4096 * bits / 8)
    assert entry.length == entry.size


def test_integers_that_span_more_than_16_bits_are_stored_as_they_are():
    entry, stored = encode(np.array([0, 65536, -5, 77], np.int32))
    assert entry.bits is None
    assert stored == np.array([0, 65536, -5, 77], "<i4").tobytes()


def test_what_repeats_is_deflated_and_what_does_not_is_not():
    repeated, _ = encode(np.zeros(10_000, np.float32))
    assert repeated.length < repeated.size == 40_000
    random, stored = encode(np.random.default_rng(0).normal(size=64))
    assert random.length == random.size == len(stored) == 64 * 8


def test_byte_order_and_layout_of_the_input_do_not_matter():
    plain = np.arange(24, dtype=np.float64).reshape(4, 6) / 7
    expected = encode(plain)
    for array in (plain.astype(">f8"), np.asfortranarray(plain), np.repeat(plain, 2, axis=1)[:, ::2]):
        assert encode(array) == expected


def test_equal_arrays_give_equal_bytes():
    make = lambda: np.random.default_rng(5).integers(-7, 8, (64, 27)).astype(np.int32)  # noqa: E731
    assert encode(make()) == encode(make())


def test_what_was_decoded_can_be_written_to():
    for array in (np.zeros(3, np.float32), np.zeros(3, np.int32), np.zeros(3, bool), np.zeros(0, np.float64)):
        assert round_trip(array).flags.writeable


def test_the_checksum_is_of_the_stored_bytes():
    entry, stored = encode(np.arange(300, dtype=np.uint8))
    assert entry.crc32 == zlib.crc32(stored)


@pytest.mark.parametrize("dtype", ["complex64", "uint32", "uint64", "U3", "object", "datetime64[s]"])
def test_other_dtypes_are_refused_by_name(dtype):
    with pytest.raises(OutputError, match=r"cannot be stored; a \.whit holds bool, int8"):
        encode(np.zeros(2, dtype))


def test_too_many_axes_are_refused():
    with pytest.raises(OutputError, match=r"33 axes cannot be stored; a \.whit holds at most 32"):
        encode(np.zeros((1,) * 33))


def likely(shape=(64, 288)):
    return np.random.default_rng(0).laplace(0, 1, shape).round().astype(np.int32)


@pytest.mark.parametrize("profile", ["small", "fast"])
@pytest.mark.parametrize("shape", [(64, 288), (64, 32, 3, 3), (2, 9000)])
def test_codes_are_coded_where_that_is_smallest(profile, shape):
    entry, stored = encode(likely(shape), profile)
    assert entry.coded
    assert entry.length < 0.7 * entry.size
    assert_same_bits(decode(Entry.of(entry.table()), stored, "here"), likely(shape))


def test_masks_are_coded_too():
    mask = np.random.default_rng(0).random((64, 32, 3, 3)) < 0.02
    entry, _ = encode(mask)
    assert entry.coded
    assert_same_bits(round_trip(mask), mask)


@pytest.mark.parametrize("profile", ["small", "fast"])
def test_flipped_bits_of_coded_values_are_seen(profile):
    entry, stored = encode(likely(), profile)
    for place in (0, 1, 2, 20, len(stored) // 2, len(stored) - 1):
        changed = bytearray(stored)
        changed[place] ^= 1
        with pytest.raises(FileError, match="here: the checksum is wrong"):
            decode(entry, bytes(changed), "here")


@pytest.mark.parametrize("profile", ["small", "fast"])
def test_forged_coded_values_are_an_error_or_in_the_declared_range(profile):
    entry, stored = encode(likely(), profile)
    rng = np.random.default_rng(1)
    for place in [*range(40), *rng.integers(0, len(stored), 100)]:
        changed = bytearray(stored)
        changed[place] ^= 1 << rng.integers(8)
        forged = replace(entry, crc32=zlib.crc32(changed))
        try:
            found = decode(forged, bytes(changed), "here")
        except FileError:
            continue
        assert found.shape == entry.shape
        assert entry.low <= found.min() <= found.max() < entry.low + 2**entry.bits


def test_coded_values_outside_the_declared_range_are_refused():
    entry, stored = encode(likely())
    with pytest.raises(FileError, match="holds values outside 0 to 1"):
        decode(replace(entry, bits=1, low=0), stored, "here")
