"""The container: a header and arrays in one file."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

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


def opened(tmp_path, content, arrays):
    path = tmp_path / "file.whit"
    path.write_bytes(write_container(content, arrays))
    return open_container(path)


@on_disk
@given(st.dictionaries(st.text(), JSON, max_size=4), ARRAYS)
def test_what_was_written_is_read(tmp_path, content, arrays):
    container = opened(tmp_path, content, arrays)
    assert container.content == content
    assert len(container.entries) == len(arrays)
    for place, array in reversed(list(enumerate(arrays))):  # in any order, each alone
        found = container.array(place)
        assert found.dtype == array.dtype
        assert found.shape == array.shape
        assert found.tobytes() == array.tobytes()


@settings(deadline=None)
@given(st.dictionaries(st.text(), JSON, max_size=4), ARRAYS)
def test_the_same_content_gives_the_same_bytes(content, arrays):
    assert write_container(content, arrays) == write_container(content, [np.array(array) for array in arrays])


def test_every_byte_belongs_to_the_prefix_the_header_or_an_array(tmp_path):
    container = opened(tmp_path, {"a": 1}, [np.arange(5.0), np.arange(3)])
    whole = container.path.read_bytes()
    magic, version, checksum, stored_size, text_size = struct.unpack_from("<8sIIQQ", whole)
    header = whole[32 : 32 + stored_size]
    assert (magic, version) == (MAGIC, VERSION)
    assert checksum == zlib.crc32(header)
    assert len(zlib.decompress(header)) == text_size
    assert container.starts == (32 + stored_size, 32 + stored_size + container.entries[0].length)
    assert container.starts[1] + container.entries[1].length == len(whole) == container.size


def test_opening_reads_the_header_only(tmp_path):
    path = tmp_path / "file.whit"
    whole = bytearray(write_container({}, [np.arange(5.0)]))
    whole[-1] ^= 1
    path.write_bytes(whole)
    assert len(open_container(path).entries) == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, "\ud800"])
def test_content_that_is_not_json_is_refused(value):
    with pytest.raises(OutputError, match="must be plain JSON without NaN and infinity"):
        write_container({"a": value}, [])


def test_a_header_that_no_reader_takes_is_not_written():
    with pytest.raises(OutputError, match=r"is more than a \.whit can hold"):
        write_container({"a": "x" * 2**24}, [])
    with pytest.raises(OutputError, match=r"is more than a \.whit can hold"):
        write_container({"a": [0] * 2**20}, [])
