"""Arrays to bytes and back."""

import zlib
from dataclasses import replace
from math import ceil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from whit import _core
from whit.errors import FileError, OutputError
from whit.store.arrays import Entry, Packed, decode, encode

INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "int64")
FLOATS = ("float16", "float32", "float64")
DTYPES = ("bool", *INTEGERS, *FLOATS)


def round_trip(array):
    """An array through its bytes and through its entry as JSON has it."""
    entry, stored = encode(array)
    assert Entry.of(entry.row(), entry.crc32) == entry
    assert len(stored) == entry.length
    return decode(Entry.of(entry.row(), entry.crc32), stored, "here")


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
    # A span of 2**bits - 1 above the low value needs just that width; random bits leave nothing to code.
    values = np.random.default_rng(0).integers(0, 2**bits, 4096)
    values[:2] = 0, 2**bits - 1
    entry, _ = encode(values.astype(np.int32) - 100)
    assert entry.way == Packed(bits=bits, low=-100)
    assert entry.length == ceil(4096 * bits / 8)


def test_integers_that_span_more_than_16_bits_are_stored_as_they_are():
    values = np.random.default_rng(0).integers(-(2**31), 2**31, 64).astype(np.int32)
    entry, stored = encode(values)
    assert entry.way == "plain"
    assert stored == values.astype("<i4").tobytes()


def test_floats_cost_no_more_than_the_bits_they_have():
    # 8 significant bits: 7 in the mantissa, and some 2 for an exponent that moves within two octaves.
    values = np.random.default_rng(0).uniform(1, 4, 1000).astype(np.float32)
    rounded = (values.view(np.uint32) & 0xFFFF0000).view(np.float32)
    entry, _ = encode(rounded)
    assert entry.way == "floats"
    assert entry.length < 1000 * 8.2 / 8
    assert encode(values)[0].length < 1000 * 24.2 / 8


def test_what_repeats_costs_little_and_what_does_not_costs_no_more_than_it_has():
    for dtype in ("float32", "float64", "float16", "int64", "uint8"):
        repeated, _ = encode(np.tile(np.array([1, 0, 2, 200], dtype), 2500))
        assert repeated.length < repeated.size / 5, dtype
    assert encode(np.zeros(1_000_000, np.float32))[0].length < 500
    assert encode(np.full(1_000_000, -1.0, np.float32))[0].length <= 4_000_000
    random, stored = encode(np.random.default_rng(0).integers(0, 256, 512).astype(np.uint8).view(np.float64))
    assert random.length == random.size == len(stored) == 512


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
    assert entry.way == "codes"
    assert entry.length < 0.7 * entry.count * 4 / 8
    assert_same_bits(decode(entry, stored, "here"), likely(shape))


def test_masks_are_coded_too():
    mask = np.random.default_rng(0).random((64, 32, 3, 3)) < 0.02
    entry, _ = encode(mask)
    assert entry.way == "codes"
    assert_same_bits(round_trip(mask), mask)


CODED = {
    "small": lambda: encode(likely(), "small"),
    "fast": lambda: encode(likely(), "fast"),
    "floats": lambda: encode(np.random.default_rng(0).normal(size=500).astype(np.float32)),
    "bytes": lambda: encode(np.frombuffer(b"one two three " * 40, np.uint8)),
}


@pytest.mark.parametrize("coded", CODED)
def test_flipped_bits_of_coded_values_are_seen(coded):
    entry, stored = CODED[coded]()
    for place in (0, 1, 2, len(stored) // 2, len(stored) - 1):
        changed = bytearray(stored)
        changed[place] ^= 1
        with pytest.raises(FileError, match="here: the checksum is wrong"):
            decode(entry, bytes(changed), "here")


@pytest.mark.parametrize("coded", CODED)
def test_forged_coded_values_are_an_error_or_an_array(coded):
    entry, stored = CODED[coded]()
    assert entry.way in ("codes", "floats", "bytes")
    rng = np.random.default_rng(1)
    for place in [*range(min(40, len(stored))), *rng.integers(0, len(stored), 100)]:
        changed = bytearray(stored)
        changed[place] ^= 1 << rng.integers(8)
        forged = replace(entry, crc32=zlib.crc32(changed))
        try:
            found = decode(forged, bytes(changed), "here")
        except FileError:
            continue
        assert (found.shape, found.dtype.name) == (entry.shape, entry.dtype)


def test_coded_values_outside_their_dtype_are_refused():
    entry, stored = encode(np.tile(np.array([[-200, 300]], np.int32), (50, 1)))
    with pytest.raises(FileError, match="holds values from -200 to 300, which are not int8"):
        decode(replace(entry, dtype="int8"), stored, "here")


@settings(deadline=None)
@given(hnp.arrays(np.uint32, st.integers(0, 60)))
def test_any_bits_of_floats_survive_the_coder_of_floats(bits):
    values = bits.view(np.float32)
    found = _core.decode_floats(_core.encode_floats(values), values.size)
    assert found.tobytes() == values.tobytes()


@settings(deadline=None)
@given(st.binary(max_size=300) | st.binary(max_size=6).map(lambda part: part * 40))
def test_any_bytes_survive_the_coder_of_bytes(content):
    coded = _core.encode_bytes(np.frombuffer(content, np.uint8))
    assert _core.decode_bytes(coded, len(content)).tobytes() == content if content else coded.size == 0


def test_text_takes_fewer_bytes_than_deflated():
    text = (Path(__file__).parents[2] / "spec" / "whit-format.md").read_bytes()
    assert _core.encode_bytes(np.frombuffer(text, np.uint8)).size < 0.85 * len(zlib.compress(text, 9))
