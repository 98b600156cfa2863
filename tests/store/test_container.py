"""The container: a header and arrays in one file."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from whit import _core
from whit.errors import OutputError
from whit.store.container import MAGIC, VERSION, open_container, write_container

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
ARRAYS = st.lists(
    hnp.arrays(st.sampled_from([np.int32, np.float32]), hnp.array_shapes(min_dims=0, min_side=0)), max_size=4
)
on_disk = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def alone(arrays):
    """Arrays that are stored alone."""
    return [("", array) for array in arrays]


def opened(tmp_path, content, arrays):
    path = tmp_path / "file.whit"
    path.write_bytes(write_container(content, arrays))
    return open_container(path)


@on_disk
@given(st.dictionaries(st.text(), JSON, max_size=4), ARRAYS, st.data())
def test_what_was_written_is_read(tmp_path, content, arrays, data):
    roles = [data.draw(st.sampled_from(["", "scale", "bias"])) for _ in arrays]
    container = opened(tmp_path, content, list(zip(roles, arrays, strict=True)))
    assert container.content == content
    assert len(container.pieces) == len(arrays)
    for place, array in reversed(list(enumerate(arrays))):  # in any order, each alone
        found = container.array(place)
        assert found.dtype == array.dtype
        assert found.shape == array.shape
        assert found.tobytes() == array.tobytes()


@settings(deadline=None)
@given(st.dictionaries(st.text(), JSON, max_size=4), ARRAYS)
def test_the_same_content_gives_the_same_bytes(content, arrays):
    copies = [np.array(array) for array in arrays]
    assert write_container(content, alone(arrays)) == write_container(content, alone(copies))


def test_every_byte_belongs_to_the_prefix_the_header_or_an_array(tmp_path):
    container = opened(tmp_path, {"a": 1}, alone([np.arange(5.0), np.arange(3)]))
    whole = container.path.read_bytes()
    magic, version, checksum, stored_size, text_size, count = struct.unpack_from("<8sIIIII", whole)
    end = 28 + stored_size + 4 * count
    assert (magic, version, count) == (MAGIC, VERSION, 2)
    assert checksum == zlib.crc32(whole[28:end])
    assert len(_core.decode_bytes(np.frombuffer(whole[28 : end - 8], np.uint8), text_size)) == text_size
    assert container.starts == (end, end + container.entries[0].length)
    assert container.starts[1] + container.entries[1].length == len(whole) == container.size
    assert struct.unpack_from("<II", whole, end - 8) == tuple(entry.crc32 for entry in container.entries)


def test_opening_reads_the_header_only(tmp_path):
    path = tmp_path / "file.whit"
    whole = bytearray(write_container({}, alone([np.arange(5.0)])))
    whole[-1] ^= 1
    path.write_bytes(whole)
    assert len(open_container(path).entries) == 1


def test_small_arrays_of_one_role_and_dtype_are_stored_as_one(tmp_path):
    small, large = np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros(1025, np.float32)
    arrays = [("a", small), ("", small), ("b", small), ("a", large), ("a", small[0, 0]), ("a", small.astype("f8"))]
    container = opened(tmp_path, {}, arrays)
    assert [piece.first for piece in container.pieces] == [0, None, None, None, 6, None]
    assert [entry.shape for entry in container.entries] == [(2, 3), (2, 3), (1025,), (2, 3), (7,)]
    for place, (_, array) in enumerate(arrays):
        assert container.array(place).tobytes() == array.tobytes()
        assert container.array(place).shape == array.shape
    shared = container.entries[-1].length
    assert shared <= container.length(0) + container.length(4) <= shared + 1


def test_an_array_of_a_pool_is_a_copy(tmp_path):
    container = opened(tmp_path, {}, [("a", np.ones(3)), ("a", np.ones(2))])
    container.array(0)[:] = 7
    assert container.array(0).tolist() == [1, 1, 1]


def test_the_profile_says_how_codes_are_coded():
    # Rows of different width, which the adaptive model of "small" learns and the tables of "fast" do not.
    widths = np.geomspace(0.2, 5, 64)[:, None]
    codes = np.random.default_rng(0).laplace(0, widths, (64, 288)).round().astype(np.int32)
    small, fast = (write_container({}, alone([codes]), profile) for profile in ("small", "fast"))
    assert len(small) < len(fast) < codes.size


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, "\ud800"])
def test_content_that_is_not_json_is_refused(value):
    with pytest.raises(OutputError, match="must be plain JSON without NaN and infinity"):
        write_container({"a": value}, [])


def test_a_header_that_no_reader_takes_is_not_written():
    with pytest.raises(OutputError, match=r"is more than a \.whit can hold"):
        write_container({"a": "x" * 2**24}, [])
    with pytest.raises(OutputError, match=r"is more than a \.whit can hold"):
        write_container({"a": [0] * 2**20}, [])
