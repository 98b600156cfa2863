"""Headers that somebody wrote to do harm, their checksums right: refused, in little memory, by name."""

import copy
import json
import operator
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from whit import FileError, _core, runtime
from whit.store.arrays import encode
from whit.store.container import LARGEST_HEADER, MOST_VALUES

HOSTILE = (
    None, True, -1, 0, 3, 1.5, 2**40, 2**64, 10**400, 1e-320, 1e300, float("nan"), "", "a" * 1000, [], {}, [-1, -2],
    [2**33] * 3, {"kind": "int"},
)  # fmt: skip
MEGABYTE = 1 << 20


def coded(text):
    """Bytes through the byte model."""
    return _core.encode_bytes(np.frombuffer(text, np.uint8)).tobytes()


def refused(forger, most=8 * MEGABYTE):
    """The message with which a file is refused: a FileError that names the path, for little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(FileError) as caught:
            forger.read_all()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert str(forger.path) in message
    assert len(message) < 2000
    assert peak < most
    return message


def read_or_refused(forger):
    """Whether a file is refused; nothing but a FileError that names the path may come out of it."""
    try:
        forger.read_all()
    except FileError as error:
        return str(forger.path) in str(error) or pytest.fail(f"no path in: {error}")
    return False


def places(value, path=()):
    """The path to everything in a JSON value."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def changed(header, path, change):
    """A copy in which ``change`` was done to the table or list that holds a place, given the place's key."""
    copied = copy.deepcopy(header)
    owner = copied
    for key in path[:-1]:
        owner = owner[key]
    change(owner, path[-1])
    return copied


# Anything anywhere.


def test_whatever_stands_in_place_of_anything_is_a_file_error_or_reads(forger, whole):
    header, checksums, bodies, _ = whole
    for turn, path in enumerate(places(header)):
        for value in HOSTILE[turn % 2 :: 2]:
            replaced = changed(header, path, lambda owner, key, value=value: operator.setitem(owner, key, value))
            forger.write_table(replaced, checksums, bodies)
            read_or_refused(forger)


def test_whatever_is_missing_is_a_file_error(forger, whole):
    header, checksums, bodies, _ = whole
    # Fields of a number format have defaults, and sizes may be missing. A decision that has no arrays is missed by
    # nobody: the checksum is what guards it.
    optional = {("content", "about", "plan"), ("content", "decisions", 0)}
    optional |= {("content", "decisions", place) for place, table in enumerate(header["content"]["decisions"])
                 if table["kind"] == "rounded_activation"}  # fmt: skip
    for path in places(header):
        if path in optional or path[-2:][0] in ("target", "groups") or "sizes" in path:
            continue
        forger.write_table(changed(header, path, lambda owner, key: owner.pop(key)), checksums, bodies)
        assert read_or_refused(forger), path


def test_whatever_is_surplus_is_a_file_error(forger, whole):
    header, checksums, bodies, _ = whole
    for path in [(), *places(header)]:
        surplus = (*path, "surplus")
        owner = header
        for key in path:
            owner = owner[key]
        if isinstance(owner, dict) and path[-1:] not in (("about",), ("groups",)):
            forger.write_table(changed(header, surplus, lambda owner, key: owner.update({key: 1})), checksums, bodies)
            assert read_or_refused(forger), path


def test_whatever_stands_twice_is_a_file_error(forger, whole):
    header, checksums, bodies, _ = whole
    for path in places(header):
        if isinstance(path[-1], int):
            twice = changed(header, path, lambda owner, key: owner.insert(key, owner[key]))
            forger.write_table(twice, checksums, bodies)
            assert read_or_refused(forger), path


JSON = st.recursive(
    st.sampled_from(HOSTILE) | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(st.data())
def test_a_header_changed_in_several_places_is_a_file_error_or_reads(forger, whole, data):
    header, checksums, bodies, _ = whole
    header = copy.deepcopy(header)
    for _ in range(data.draw(st.integers(1, 4))):
        found = list(places(header))
        if not found:
            break
        *path, key = data.draw(st.sampled_from(found))
        owner = header
        for step in path:
            owner = owner[step]
        match data.draw(st.sampled_from(["replace", "replace", "move", "delete"])):
            case "replace":
                owner[key] = copy.deepcopy(data.draw(JSON))
            case "move":
                owner[key] = copy.deepcopy(_at(header, data.draw(st.sampled_from(found))))
            case "delete":
                del owner[key]
    forger.write_table(header, checksums, bodies)
    read_or_refused(forger)


def _at(header, path):
    for key in path:
        header = header[key]
    return header


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60), st.binary(max_size=20))
def test_any_bytes_as_header_are_a_file_error(forger, text, bodies):
    forger.write_header(text, bodies=bodies)
    assert read_or_refused(forger)


# The prefix and the text of the header.


@pytest.mark.parametrize("size", [2**16, 2**22, 2**24, 2**32 - 1])
def test_a_header_that_declares_more_than_it_holds_takes_no_memory(forger, size):
    forger.write_header(b'{"content":{},"arrays":[],"pools":[]}', size=size)
    assert "header" in refused(forger, most=MEGABYTE)


def test_a_header_that_inflates_beyond_its_size_takes_no_memory(forger):
    forger.write_header(b" " * MEGABYTE, size=1000)
    assert "go on behind what they declare" in refused(forger, most=MEGABYTE // 8)


def test_a_header_beyond_the_limit_takes_no_memory(forger):
    forger.write_header(b" " * (LARGEST_HEADER + 1))
    assert f"more than the {LARGEST_HEADER} allowed" in refused(forger, most=MEGABYTE)


@pytest.mark.parametrize("item", [b"[]", b"{}", b"0", b'{"a":[]}'])
def test_a_header_of_many_small_values_takes_no_more_memory_than_its_text(forger, item):
    # 4 MB of "[]," would become 100 MB of Python lists.
    items = b",".join([item] * (LARGEST_HEADER // (len(item) + 1)))
    forger.write_header(b"[" + items[: LARGEST_HEADER - 2] + b"]")
    assert f"more than the {MOST_VALUES} allowed" in refused(forger, most=3 * LARGEST_HEADER)


def test_the_largest_header_that_is_parsed_stays_in_bounds(forger):
    # MOST_VALUES lists of 56 bytes, and the list that holds them.
    inner = b",".join([b"[]"] * (MOST_VALUES // 2 - 10))
    forger.write_header(b'{"content":{"a":[' + inner + b']},"arrays":[],"pools":[]}')
    refused(forger, most=20 * MEGABYTE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"\xef\xbb\xbf{}", "is not JSON"),
        ('{"content":{},"arrays":[],"pools":[]}'.encode("utf-16"), "is not JSON"),
        (b'{"content":{},"arrays":[]} {}', "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"a":' * 100_000, "is not JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "is not JSON"),
        (b"1" * 5000, "is not JSON"),
        (b'{"content":{"a":NaN},"arrays":[]}', "is not JSON"),
        (b'{"content":{"a":-Infinity},"arrays":[]}', "is not JSON"),
        (b'{"content":{"a":1e999},"arrays":[]}', "is not JSON"),
        (b'{"content":{"a":"\\ud800"},"arrays":[]}', "is not JSON"),
        (b'{"content":{},"arrays":[],"arrays":[]}', "a field stands twice in one table"),
        (b'{"content":{"a":{"b":1,"b":1}},"arrays":[]}', "a field stands twice in one table"),
        (b"[]", "is not a table"),
        (b"null", "is not a table"),
        (b"{}", "['arrays', 'content', 'pools'] are needed"),
        (b'{"content":{},"arrays":[],"pools":[],"more":1}', "has the fields ['arrays', 'content', 'more', 'pools']"),
        (b'{"content":[],"arrays":[],"pools":[]}', "content is not a table"),
        (b'{"content":{},"arrays":{},"pools":[]}', "arrays or pools are not a list"),
        (b'{"content":{},"arrays":[],"pools":{}}', "arrays or pools are not a list"),
        (b'{"content":{},"arrays":[],"pools":[]}', "['about', 'decisions'] are needed"),
        (b'{"content":{"about":[],"decisions":[]},"arrays":[],"pools":[]}', "facts about itself are not a table"),
        (b'{"content":{"about":{},"decisions":{}},"arrays":[],"pools":[]}', "decisions are not a list"),
        (b'{"content":{"about":{},"decisions":[7]},"arrays":[],"pools":[]}', "decision 0"),
        (b'{"content":{"about":{},"decisions":[],"network":[]},"arrays":[],"pools":[]}', "[] is not a table"),
        (b'{"content":{"about":{},"decisions":[],"network":{"weights":[]}},"arrays":[],"pools":[]}', "and no array"),
    ],
)  # fmt: skip
def test_the_header_is_one_plain_json_table(forger, text, message):
    forger.write_header(text)
    assert message in refused(forger)


@pytest.mark.parametrize(
    ("stored", "size", "message"),
    [
        (b"", 2, "more than 0 coded bytes can hold"),
        (coded(b"{}") + b"!!!!!", 2, "go on behind what they declare"),
        (b"\0" * 40, 2**16, "is not JSON"),
    ],
)
def test_the_header_is_coded_bytes_and_nothing_else(forger, stored, size, message):
    forger.write_stored(stored, size)
    assert message in refused(forger)


def test_there_is_a_checksum_for_each_array(forger, whole):
    header, checksums, bodies, _ = whole
    for wrong in (checksums[:-1], (*checksums, 0)):
        forger.write_table(header, wrong, bodies)
        assert f"lists {len(checksums)} arrays and {len(wrong)} checksums" in refused(forger)


# Entries of arrays.


def with_entry(forger, entry, body=b"", checksum=None):
    """A file of one array whose row is given."""
    header = {"content": {"about": {}, "decisions": [{"kind": "assigned", "parameter": "w"}]}, "arrays": [entry]}
    forger.write_table(header | {"pools": []}, [zlib.crc32(body) if checksum is None else checksum], body)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (["object", [3], 12], "holds no arrays of dtype 'object'"),
        (["complex64", [3], 12], "holds no arrays of dtype 'complex64'"),
        ([">f4", [3], 12], "holds no arrays of dtype '>f4'"),
        ([["float32"], [3], 12], "holds no arrays of dtype"),
        (["float32", 3, 12], "3 is not a shape"),
        (["float32", [-3], 12], "-3 is not a whole number from 0"),
        (["float32", [3.0], 12], "3.0 is not a whole number from 0"),
        (["float32", [True] * 3, 12], "True is not a whole number from 0"),
        (["float32", [2**48 + 1], 12], "is not a whole number from 0"),
        (["float32", [2**32, 2**32], 12], "more than 281474976710656 values"),
        (["float32", [2**40, 2**40, 0], 12], "more than 281474976710656 values"),
        (["float32", [1] * 33, 12], "is not a shape of at most 32 axes"),
        (["float32", [2**40], 12], "12 stored bytes cannot hold 1099511627776 values"),
        (["float32", [2], 12], "12 stored bytes cannot hold 2 values of float32"),
        (["float32", [4], 12], "12 stored bytes cannot hold 4 values of float32"),
        (["float32", [3], -1], "-1 is not a whole number from 0"),
        (["float32", [3], 12.0], "12.0 is not a whole number"),
        (["float32", [3], True], "True is not a whole number"),
        (["float32", [3], 12, 8], "float32 is not stored as [8]"),
        (["float32", [3], 12, 8, 0], "float32 is not stored as [8, 0]"),
        (["float32", [3], 12, "codes"], "float32 is not stored as ['codes']"),
        (["float32", [3], 12, "zip"], "float32 is not stored as ['zip']"),
        (["float32", [3], 12, "floats", 1], "float32 is not stored as"),
        (["float64", [3], 12, "floats"], "float64 is not stored as ['floats']"),
        (["int32", [3], 12, "floats"], "int32 is not stored as ['floats']"),
        (["float32", [12 * 2**14 + 1], 12, "floats"], "12 stored bytes cannot hold 196609 values"),
        (["int32", [12 * 2**14 + 1], 12, "codes"], "12 stored bytes cannot hold 196609 values"),
        (["uint8", [12 * 2**11 + 1], 12, "bytes"], "12 stored bytes cannot hold 24577 values"),
        (["int64", [12 * 2**8 + 1], 12, "bytes"], "12 stored bytes cannot hold 3073 values"),
        (["int32", [3], 12, None, 0], "None is not a whole number from 1 to 16"),
        (["int32", [3], 12, True, 0], "True is not a whole number from 1 to 16"),
        (["int32", [3], 12, 17, 0], "17 is not a whole number from 1 to 16"),
        (["int32", [3], 12, 4, 0.5], "0.5 is not a whole number"),
        (["int32", [3], 12, 4, 0], "12 stored bytes cannot hold 3 values"),
        (["int8", [3], 12, 8, 0], "8 is not a whole number from 1 to 7"),
        (["int8", [24], 12, 4, 113], "113 is not a whole number from -128 to 112"),
        (["uint8", [24], 12, 4, -1], "-1 is not a whole number from 0 to 255"),
        (["int64", [6], 12, 16, 2**31 - 2], "is not a whole number from -2147483648"),
        (["bool", [12], 12], "bool is not stored as []"),
        (["bool", [12], 12, "bytes"], "bool is not stored as ['bytes']"),
        (["bool", [48], 12, 2, 0], "2 is not a whole number from 1 to 1"),
        (["bool", [96], 12, 1, 1], "1 is not a whole number from 0 to 0"),
    ],
)  # fmt: skip
def test_an_entry_is_checked_before_anything_is_made(forger, entry, message):
    with_entry(forger, entry, b"\x00" * 12)
    found = refused(forger, most=MEGABYTE)
    assert message in found
    assert "array 0" in found


def test_a_changed_checksum_is_found(forger):
    with_entry(forger, ["float32", [3], 12], b"\x00" * 12, checksum=5)
    assert "array 0 at byte" in refused(forger)


@pytest.mark.parametrize(
    ("dtype", "values", "way"),
    [
        ("float32", np.random.default_rng(0).normal(size=4000), "floats"),
        ("int32", np.random.default_rng(0).poisson(1, 4000), "codes"),
        ("bool", np.random.default_rng(0).random(4000) < 0.1, "codes"),
        ("uint8", np.tile(np.random.default_rng(0).integers(0, 256, 100), 40), "bytes"),
    ],
)
def test_coded_arrays_hold_exactly_what_they_declare(forger, dtype, values, way):
    entry, stored = encode(values.astype(dtype))
    assert entry.way == way
    for count, body in ((4000, stored + b"12345"), (1, stored)):
        with_entry(forger, [dtype, [count], len(body), way], body)
        assert "array 0 at byte" in refused(forger, most=MEGABYTE)


def test_codes_are_of_their_dtype(forger):
    _, stored = encode(np.array([[300, -300]] * 50, np.int32))
    with_entry(forger, ["int8", [50, 2], len(stored), "codes"], stored)
    assert "which are not int8" in refused(forger)


def test_an_array_beyond_memory_is_a_file_error(forger, monkeypatch):
    def full(*_):
        raise MemoryError

    monkeypatch.setattr(_core, "decode_floats", full)
    with_entry(forger, ["float32", [16384 * 12], 12, "floats"], b"\x00" * 12)
    assert "196608 values of float32 do not fit into memory" in refused(forger)


def test_left_over_bits_of_packed_values_are_zero(forger):
    with_entry(forger, ["int8", [1], 1, 3, 0], b"\xff")
    assert "left-over bits" in refused(forger)


@pytest.mark.parametrize(
    ("rows", "pools", "message"),
    [
        ([[0, [2]], [0, [1]]], [["int8", [4], 4]], "a pool of shape (4,) is shared by arrays of 3 values"),
        ([[0, [2]], [0, [3]]], [["int8", [4], 4]], "a pool of shape (4,) is shared by arrays of 5 values"),
        ([[0, [2]], [0, [2]]], [["int8", [2, 2], 4]], "a pool of shape (2, 2)"),
        ([[0, [2]], [1, [2]]], [["int8", [4], 4]], "1 is not a whole number from 0 to 0"),
        ([[0, [2]], [-1, [2]]], [["int8", [4], 4]], "-1 is not a whole number from 0 to 0"),
        ([[0, [2]], [0, 2]], [["int8", [4], 4]], "2 is not a shape"),
        ([[0, [2]], ["0", [2]]], [["int8", [4], 4]], "'0' is not a whole number"),
        ([[0, [2**48]], [0, [2**48]]], [["int8", [4], 4]], "a pool of shape (4,)"),
        ([], [["int8", [4], 4]], "a pool of shape (4,) is shared by arrays of 0 values"),
        ([[0, [4]]], [[0, [4]]], "an entry is a list of a dtype"),
    ],
)
def test_the_arrays_of_a_pool_fill_it(forger, rows, pools, message):
    decisions = [{"kind": "assigned", "parameter": f"w{place}"} for place, _ in enumerate(rows)]
    header = {"content": {"about": {}, "decisions": decisions}, "arrays": rows, "pools": pools}
    forger.write_table(header, [zlib.crc32(b"abcd")], b"abcd")
    assert message in refused(forger)


@pytest.mark.parametrize("entry", [None, 1, "array", [], ["int8"], True, {"dtype": "int8"}])
def test_an_entry_is_a_list(forger, entry):
    with_entry(forger, entry)
    assert "array 0: is not what a .whit holds (an entry is a list" in refused(forger)


# Decisions.


def decide(forger, decisions, *arrays):
    """A file with these decisions and arrays."""
    encoded = [encode(np.asarray(array)) for array in arrays]
    header = {
        "content": {"about": {}, "decisions": decisions},
        "arrays": [entry.row() for entry, _ in encoded],
        "pools": [],
    }
    forger.write_table(header, [entry.crc32 for entry, _ in encoded], b"".join(body for _, body in encoded))


def kept(*axes):
    return [{"kind": "kept", "group": "g", "axes": list(axes), "groups": {}}]


def left_out():
    return {"kind": "left_out", "branch": "a", "identity": [], "zeros": ["b"]}


def factored(**changed):
    return {"kind": "factored", "layer": "a", "form": "channel", "ranks": [2, 3]} | changed


def scaled(*made):
    return [{"kind": "scaled", "group": "g", "made": list(made), "read": []}]


@pytest.mark.parametrize(
    ("decisions", "arrays", "message"),
    [
        ([{"kind": "dropped"}], [], "there is no decision of kind 'dropped'"),
        ([{"kind": ["kept"]}], [], "unhashable"),
        ([{}], [], "KeyError: 'kind'"),
        (["kept"], [], "TypeError"),
        ([left_out() | {"zeros": "a"}], [], "a is no list of names"),
        ([left_out() | {"identity": [1]}], [], "1 is not a name"),
        ([left_out(), {"kind": "masked", "parameter": "w"}, left_out()], [[True]], "not in replay order"),
        ([factored(layer=1)], [], "1 is not a name"),
        ([factored(form="round")], [], "factors have the form matrix, spatial, channel, not 'round'"),
        ([factored(form=["matrix"])], [], "unhashable"),
        ([factored(ranks=[2])], [], "factors in the form channel have 2 ranks, not 1"),
        ([factored(ranks=[2, 0])], [], "0"),
        ([factored(ranks=2)], [], "TypeError"),
        ([factored(), factored()], [], "a layer is factored twice"),
        ([{"kind": "plain", "layer": 1}], [], "1 is not a name"),
        ([{"kind": "plain", "layer": "a", "same": 1}], [], "by the size of what it reads or not, and '1' is neither"),
        ([{"kind": "plain", "layer": "a"}, {"kind": "plain", "layer": "a", "same": True}], [], "a plain one twice"),
        ([{"kind": "folded", "batch_norm": 1, "into": "a"}], [], "1 is not a name"),
        ([{"kind": "folded", "batch_norm": "b"}], [], "['batch_norm', 'into', 'kind'] are needed"),
        (scaled(), [], "it needs an array more than the file has"),
        (scaled(["w", 0, 0, 1]), [[0.5]], "an array of float64 stands where int32 is needed"),
        (scaled(["w", 0, 0, 1]), [np.int32([[0]])], "factors of channels are -128 to 128 quarters, in one row"),
        (scaled(["w", 0, 0, 1]), [np.int32([129])], "factors of channels are -128 to 128 quarters, in one row"),
        (scaled(["w", 0, 0, 1]), [np.int32([-(2**31)])], "factors of channels are -128 to 128 quarters, in one row"),
        (scaled(["w", 0, 0]), [np.int32([1])], "not enough values to unpack"),
        (scaled(["w", -1, 0, 1]), [np.int32([1])], "-1 is not a whole number"),
        (scaled(["w", 0, 0, 0]), [np.int32([1])], "0 is not a whole number from 1"),
        (scaled([1, 0, 0, 1]), [np.int32([1])], "1 is not a name"),
        ([scaled()[0] | {"read": 1}], [np.int32([1])], "TypeError"),
        ([scaled()[0] | {"inputs": {"x": -1}}], [np.int32([1])], "-1 is not a whole number"),
        ([scaled()[0] | {"inputs": [["x", 0]]}], [np.int32([1])], "AttributeError"),
        (kept(["w", 0]), [], "it needs an array more than the file has"),
        (kept(["w", 0, "x"]), [[0]], "too many values to unpack"),
        (kept(["w"]), [[0]], "not enough values to unpack"),
        (kept(["w", -1]), [[0]], "-1 is not a whole number"),
        (kept(["w", "0"]), [[0]], "'0' is not a whole number"),
        (kept(["w", 0], ["w", 0]), [[0], [1]], "axis 0 of w is cut twice"),
        (kept(["w", 0]), [[[0]]], "kept indices do not rise from 0"),
        (kept(["w", 0]), [[-1, 0]], "kept indices do not rise from 0"),
        (kept(["w", 0]), [[1, 1]], "kept indices do not rise from 0"),
        (kept(["w", 0]), [[2, 1]], "kept indices do not rise from 0"),
        (kept(["w", 0]), [[5, -(2**63)]], "kept indices do not rise from 0"),
        ([kept()[0] | {"groups": {"w": 0}}], [], "0 is not a whole number from 1"),
        ([kept()[0] | {"groups": [["w", 1]]}], [], "AttributeError"),
        ([kept()[0] | {"sizes": {"m": [[0, 1]]}}], [], "0 is not a whole number from 1"),
        ([kept()[0] | {"sizes": {"m": [[3, 1], [3, 2]]}}], [], "the size 3 of 'm' is changed twice"),
        ([kept()[0] | {"sizes": {"m": [[1]]}}], [], "not enough values to unpack"),
        ([kept()[0] | {"sizes": [["m", []]]}], [], "AttributeError"),
        (kept(["w", 0]), [[0.5]], "an array of float64 stands where int64 is needed"),
        (kept(["w", 0], ["v", 0]), [[0]], "it needs an array more than the file has"),
        ([{"kind": "masked", "parameter": "w"}], [[0, 1]], "int64 stands where bool is needed"),
        ([{"kind": "masked", "parameter": "w", "from": "codes"}], [], "the mask of w needs its codes"),
        ([{"kind": "masked", "parameter": "w", "from": "zeros"}], [[True]], "the mask of w needs its codes"),
        ([{"kind": "masked", "parameter": "w", "from": "values"}], [[True]], "masks come from 'codes' or 'zeros'"),
        ([{"kind": "masked", "parameter": "w", "from": None}], [[True]], "masks come from 'codes' or 'zeros'"),
        ([{"kind": "masked", "parameter": "w", "from": ["codes"]}], [[True]], "masks come from 'codes' or 'zeros'"),
        ([{"kind": "assigned", "parameter": ["w"]}], [[0]], "is not a name"),
        ([], [[0], [1]], "the arrays 0, 1 belong to no decision"),
    ],
)  # fmt: skip
def test_a_decision_is_what_its_kind_says(forger, decisions, arrays, message):
    decide(forger, decisions, *arrays)
    assert message in refused(forger)


ASSIGNED = {"kind": "assigned", "parameter": "w"}
MASKED = {"kind": "masked", "parameter": "w"}


@pytest.mark.parametrize(
    ("decisions", "arrays", "message"),
    [
        ([ASSIGNED, ASSIGNED], [[0], [1]], "two of a kind are about one tensor"),
        ([{"kind": "folded", "batch_norm": "a", "into": "b"}] * 2, [], "a batch normalisation is folded twice"),
        ([ASSIGNED, MASKED], [[0], [True]], "not in replay order"),
        ([ASSIGNED, {"kind": "folded", "batch_norm": "a", "into": "b"}], [[0]], "not in replay order"),
        ([MASKED, ASSIGNED], [[True], [0, 1]], "w has the shape (1,) in one and (2,) in another"),
        ([MASKED, *kept(["w", 7])], [[True], [0]], "axis 7 is out of bounds"),
    ],
)
def test_decisions_fit_each_other(forger, decisions, arrays, message):
    decide(forger, decisions, *arrays)
    assert message in refused(forger)


CODEBOOK = {"kind": "codebook", "k": 16, "per": "channel"}
FP4 = {"kind": "float", "exponent": 2, "mantissa": 1}


def round_(forger, *, codes=((1, -2, 3), (0, 0, 7)), scale=((1.0,), (2.0,)), zero_points=((0,), (0,)), **fields):
    """A file with one rounded weight."""
    table = {"kind": "rounded", "parameter": "w", "target": {"kind": "int", "bits": 4}, "shape": [2, 3], "axis": 0}
    table |= {"zero_point": True} | fields
    arrays = (np.asarray(codes, np.int32), np.asarray(scale, np.float32), np.asarray(zero_points, np.int32))
    decide(forger, [table], *arrays)


@pytest.mark.parametrize(
    ("codebook", "message"),
    [
        ([[1.0, 2.0]], "a codebook of shape (1, 2) does not fit"),
        ([], "a codebook of shape (0,) does not fit"),
        ([1.0, 2.0, 3.0, 4.0, 5.0], "a codebook of shape (5,) does not fit"),
        ([1.0, np.nan], "are not finite, or do not rise"),
        ([1.0, np.inf], "are not finite, or do not rise"),
        ([2.0, 1.0], "are not finite, or do not rise"),
        ([1.0, 1.0], "are not finite, or do not rise"),
        ([1.0, 2.0], "the code 2 is not one of 2 values"),
    ],
)
def test_a_codebook_fits_its_codes(forger, codebook, message):
    table = {"kind": "rounded", "parameter": "w", "target": {"kind": "codebook", "k": 4}, "shape": [1, 3], "axis": 0}
    arrays = (np.array([[0, 1, 2]], np.int32), np.ones((1, 1), np.float32), np.zeros((1, 1), np.int32))
    decide(forger, [table | {"zero_point": True}], *arrays, np.array(codebook, np.float32))
    assert message in refused(forger)


@pytest.mark.parametrize(
    ("kind", "codes"), [("e8m0", [-127]), ("e8m0", [128]), ("e4m3", [0]), ("e4m3", [127]), ("e4m3", [-1])]
)
def test_scales_in_fewer_bits_fit_their_format(forger, kind, codes):
    table = {"kind": "rounded", "parameter": "w", "target": FP4 | {"scale": kind}, "shape": [1, 3], "axis": 0}
    arrays = (np.zeros((1, 3), np.int32), np.array([codes], np.int32), np.zeros((1, 1), np.int32))
    unit = {"unit": 1.0} if kind == "e4m3" else {}
    decide(forger, [table | {"zero_point": True} | unit], *arrays)
    assert f"scales of {kind} are" in refused(forger)


def test_weights_beyond_float32_are_infinite_as_those_of_integers_are(forger):
    from whit.store import read

    table = {"kind": "rounded", "parameter": "w", "target": FP4 | {"scale": "e8m0"}, "shape": [1, 2], "axis": 0}
    decide(forger, [table], np.array([[7, -1]], np.int32), np.array([[127]], np.int32))
    # 6 and -0.5 times 2**127.
    assert read(forger.path).ledger().rounded()["w"].values().tolist() == [[np.inf, -(2.0**126)]]


@pytest.mark.parametrize("unit", [-1.0, 0, 1e39, "1"])
def test_the_unit_of_scales_is_a_positive_number(forger, unit):
    table = {"kind": "rounded", "parameter": "w", "target": FP4 | {"scale": "e4m3"}, "shape": [1, 3], "axis": 0}
    arrays = (np.zeros((1, 3), np.int32), np.ones((1, 1), np.int32), np.zeros((1, 1), np.int32))
    decide(forger, [table | {"zero_point": True, "unit": unit}], *arrays)
    assert "is not a positive float32" in refused(forger)


def test_a_rounded_weight_is_read_to_begin_with(forger):
    from whit.store import read

    round_(forger)
    assert read(forger.path).ledger().rounded()["w"].values().tolist() == [[1, -2, 3], [0, 0, 14]]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"codes": [1, 2, 3]}, "not enough values to unpack"),
        ({"codes": [[1, 2, 8], [0, 0, 0]]}, "codes from 0 to 8 leave the grid"),
        ({"codes": [[-8, 2, 1], [0, 0, 0]]}, "codes from -8 to 2 leave the grid"),
        ({"scale": [[1.0, 1.0], [1.0, 1.0]]}, "scales have shape (2, 2)"),
        ({"scale": [[1.0], [0.0]]}, "a scale is not finite and positive"),
        ({"scale": [[1.0], [-1.0]]}, "a scale is not finite and positive"),
        ({"scale": [[1.0], [np.inf]]}, "a scale is not finite and positive"),
        ({"scale": [[1.0], [np.nan]]}, "a scale is not finite and positive"),
        ({"zero_points": [[0]]}, "zero points (1, 1); (2, 1) is needed"),
        ({"zero_points": [[0], [100]]}, "zero points from 0 to 100 leave the grid"),
        ({"zero_point": False}, "zero_point is true, or is left away"),
        ({"zero_point": 1}, "zero_point is true, or is left away"),
        ({"shape": [3, 2]}, "codes of shape (2, 3) do not fill a weight of shape (3, 2)"),
        ({"shape": [2, 4]}, "do not fill a weight of shape (2, 4)"),
        ({"shape": [2, -1, -3]}, "-1 is not a whole number"),
        ({"shape": [2, 2**32, 2**32, 3]}, "more than 281474976710656 values"),
        ({"shape": "23"}, "is not a shape"),
        ({"shape": []}, "do not fill a weight of shape ()"),
        ({"axis": 2}, "do not fill a weight of shape (2, 3)"),
        ({"axis": -2}, "-2 is not a whole number"),
        ({"axis": False}, "False is not a whole number"),
        ({"target": {"kind": "int", "bits": 17}}, "integers have 1 to 16 bits"),
        ({"target": {"kind": "int", "bits": 4.0}}, "expected int, not float"),
        ({"target": {"kind": "int", "bits": 10**30}}, "integers have 1 to 16 bits"),
        ({"target": {"kind": "int", "bits": 4, "per": "group", "group_size": 10**30}}, "None"),
        ({"target": {"kind": "int", "bits": 4, "per": "group", "group_size": 2}}, "(2, 2) is needed"),
        ({"target": {"kind": "int", "bits": 4, "per": []}}, "choose one of tensor, channel, group"),
        ({"target": {"kind": "prune", "amount": 0.5}}, "is not a number format"),
        ({"target": {"kind": "os:system"}}, "is not a number format"),
        ({"target": {"kind": "antigravity:Int"}}, "is not a number format"),
        ({"target": {"kind": "whit.ledger:Axis"}}, "is not a number format"),
        ({"target": {"kind": ":"}}, "is not a number format"),
        ({"target": 8}, "8 is not a number format"),
        ({"target": {"kind": "int", "bits": 1}, "codes": [[1, -1, 0]] * 2}, "codes from -1 to 1 leave the grid"),
        ({"target": FP4, "codes": [[8, 0, 0]] * 2}, "codes from 0 to 8 leave the grid"),
        ({"target": FP4, "zero_points": [[0], [1]]}, "zero points from 0 to 1 leave the grid"),
        ({"target": FP4 | {"scale": "one", "per": "tensor"}, "scale": [[2.0]], "zero_points": [[0]]}, "is 1"),
        ({"target": FP4 | {"scale": "e8m0"}}, "an array of float32 stands where int32 is needed"),
        ({"target": FP4 | {"scale": "e4m3"}}, "a unit goes with scales of e4m3"),
        ({"target": FP4 | {"scale": "e4m3"}, "unit": 1.0}, "an array of float32 stands where int32 is needed"),
        ({"unit": 1.0}, "a unit goes with scales of e4m3"),
        ({"codebook": True}, "has the fields"),
        ({"target": CODEBOOK, "codes": [[0, 1, 2]] * 2}, "it needs an array more than the file has"),
        ({"target": {"kind": "codebook", "k": 1}}, "a codebook has 2 to 256 values"),
    ],
)  # fmt: skip
def test_a_rounded_weight_fits_its_format(forger, fields, message):
    round_(forger, **fields)
    if message == "None":  # larger groups than rows are one group a row: a valid file but for its missing network
        message = "holds no graph"
    assert message in refused(forger)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scale": 0}, "0 is not a positive float32"),
        ({"scale": 1e-60}, "is not a positive float32"),
        ({"scale": 1e300}, "is not a positive float32"),
        ({"scale": 3.402824e38}, "is not a positive float32"),
        ({"scale": float(2**128)}, "is not a positive float32"),
        ({"scale": "1"}, "'1' is not a positive float32"),
        ({"scale": True}, "True is not a positive float32"),
        ({"scale": 10**400}, "is not a positive float32"),
        ({"zero_point": 256}, "256 is not a whole number from 0 to 255"),
        ({"zero_point": 0.5}, "0.5 is not a whole number from 0 to 255"),
        (
            {"target": {"kind": "int", "bits": 8, "symmetric": False}},
            "activations are integers of 2 bits or more with one scale",
        ),
        ({"target": {"kind": "float", "exponent": 4, "mantissa": 3, "per": "tensor"}}, "activations are integers"),
        ({"target": {"kind": "int", "bits": 1, "per": "tensor"}}, "activations are integers"),
    ],
)
def test_a_rounded_activation_fits_its_format(forger, fields, message):
    target = {"kind": "int", "bits": 8, "symmetric": False, "per": "tensor"}
    table = {"kind": "rounded_activation", "tensor": "x", "target": target, "scale": 0.5, "zero_point": 0}
    decide(forger, [table | fields])
    assert message in refused(forger)


BIASED = (
    {"kind": "rounded", "parameter": "w", "target": {"kind": "int", "bits": 8}, "shape": [2, 1], "axis": 0,
     "zero_point": True},
    {"kind": "rounded_activation", "tensor": "x", "target": {"kind": "int", "bits": 8, "per": "tensor"}, "scale": 0.5,
     "zero_point": 0},
    {"kind": "rounded_bias", "parameter": "b", "weight": "w", "tensor": "x"},
)  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "codes", "message"),
    [
        ({"weight": "x"}, [1, 2], "the bias b needs the rounded x and x before it"),
        ({"tensor": "w"}, [1, 2], "the bias b needs the rounded w and w before it"),
        ({"weight": ["w"]}, [1, 2], "['w'] is not a name"),
        ({"scale": 1}, [1, 2], "has the fields"),
        ({}, [1, 2, 3], "codes of shape (3,) are no bias of w, 2 channels"),
        ({}, [[1, 2]], "codes of shape (1, 2) are no bias of w, 2 channels"),
        ({}, 7, "codes of shape () are no bias of w, 2 channels"),
        ({}, [2**31 - 1, -(2**31)], "the bias b is no float32"),
    ],
)
def test_a_rounded_bias_fits_its_layer(forger, fields, codes, message):
    scale = np.array([[1.0], [np.finfo(np.float32).max]], np.float32)
    arrays = (np.ones((2, 1), np.int32), scale, np.zeros((2, 1), np.int32), np.array(codes, np.int32))
    decide(forger, [*BIASED[:2], BIASED[2] | fields], *arrays)
    assert message in refused(forger)


def test_a_bias_comes_after_what_it_refers_to(forger):
    arrays = (np.ones((2, 1), np.int32), np.ones((2, 1), np.float32), np.zeros((2, 1), np.int32), np.zeros(2, np.int32))
    decide(forger, [BIASED[0], BIASED[2], BIASED[1]], *arrays)
    assert "the bias b needs the rounded w and x before it" in refused(forger)
    grouped = BIASED[0] | {"target": {"kind": "int", "bits": 8, "per": "group", "group_size": 1}}
    decide(forger, [grouped, *BIASED[1:]], *arrays)
    assert "w has a scale a group, so its bias b has no scale of its own" in refused(forger)


def mask_(forger, masked, mask=None, codes=((1, 0, 3), (0, 0, 7))):
    """A file with one rounded weight and a mask that is told by its codes."""
    rounded = {"kind": "rounded", "parameter": "w", "target": {"kind": "int", "bits": 4}, "shape": [2, 3], "axis": 0}
    arrays = (np.asarray(codes, np.int32), np.ones((2, 1), np.float32))
    decide(forger, [masked, rounded], *([] if mask is None else [np.asarray(mask)]), *arrays)


def test_a_mask_is_told_by_codes(forger):
    from whit.store import read

    mask_(forger, MASKED | {"from": "codes"})
    assert read(forger.path).ledger().masks()["w"].mask.tolist() == [[True, False, True], [False, False, True]]
    mask_(forger, MASKED | {"from": "zeros"}, [True, False, False])
    assert read(forger.path).ledger().masks()["w"].mask.tolist() == [[True, True, True], [False, False, True]]


def test_a_mask_is_told_by_a_codebook(forger):
    from whit.store import read

    codebook = {"kind": "codebook", "k": 4}
    rounded = {"kind": "rounded", "parameter": "w", "target": codebook, "shape": [1, 3], "axis": 0}
    arrays = (np.array([[0, 1, 2]], np.int32), np.ones((1, 1), np.float32), np.array([-1, 0, 1], np.float32))
    decide(forger, [MASKED | {"from": "codes"}, rounded], *arrays)
    assert read(forger.path).ledger().masks()["w"].mask.tolist() == [[True, False, True]]


@pytest.mark.parametrize("mask", [[True, False], [True] * 4, [[True, False, True]], True, []])
def test_a_mask_has_a_value_for_each_weight_that_is_zero(forger, mask):
    mask_(forger, MASKED | {"from": "zeros"}, np.asarray(mask, bool))
    assert "do not fit 3 weights that are zero" in refused(forger)


# The network.


@pytest.mark.parametrize(
    ("place", "kind", "message"),
    [
        (0, 1, "do not fit into ONNX type 1"),
        (0, 3, "do not fit into ONNX type 3"),
        (0, 17, "do not fit into ONNX type 17"),
        (0, 21, "do not fit into ONNX type 21"),
        (0, "uint8", "'uint8' is not a whole number"),
        (0, True, "True is not a whole number"),
        (0, 2.0, "2.0 is not a whole number"),
        (0, -1, "-1 is not a whole number"),
        (2, 22, "do not fit into ONNX type 22"),
        (2, 17, "do not fit into ONNX type 17"),
        (3, 3, "do not fit into ONNX type 3"),
        (5, 22, "roundedbias values cannot be of ONNX type 22"),
        (6, 7, "roundedbias values cannot be of ONNX type 7"),
        (7, 6, "assigned values cannot be of ONNX type 6"),
        (7, [1], "[1] is not a whole number"),
    ],
)
def test_a_weight_of_the_network_comes_from_the_ledger(forger, whole, place, kind, message):
    header, checksums, bodies, _ = whole
    header = copy.deepcopy(header)
    header["content"]["network"]["weights"][place] = kind
    forger.write_table(header, checksums, bodies)
    found = refused(forger)
    assert message in found
    assert " in the network" in found


@pytest.mark.parametrize("weights", [None, {}, [], [2, 22, 6, 1], [2, 22, 6, 1, 1, 1, 1, 1, 1], "22611000"])
def test_each_source_of_values_has_a_place_in_the_network(forger, whole, weights):
    header, checksums, bodies, _ = whole
    header = copy.deepcopy(header)
    header["content"]["network"]["weights"] = weights
    forger.write_table(header, checksums, bodies)
    assert "weights are not a list of 8, one for each source of values" in refused(forger)


def test_a_weight_of_the_network_stands_once(forger):
    decisions = [{"kind": "assigned", "parameter": "b:scale"}, *BIASED]
    arrays = (
        np.ones(2, np.float32),
        np.ones((2, 1), np.int32),
        np.ones((2, 1), np.float32),
        np.zeros((2, 1), np.int32),
        np.zeros(2, np.int32),
        np.zeros(8, np.uint8),
    )
    encoded = [encode(array) for array in (*arrays[1:5], arrays[0], arrays[5])]
    content = {"about": {}, "decisions": [*decisions[1:], decisions[0]], "network": {"weights": [3, 6, 1]}}
    header = {"content": content, "arrays": [entry.row() for entry, _ in encoded], "pools": []}
    forger.write_table(header, [entry.crc32 for entry, _ in encoded], b"".join(body for _, body in encoded))
    assert "b:scale stands twice" in refused(forger)


@pytest.mark.parametrize("graph", [np.zeros(3, np.float32), np.zeros((3, 1), np.uint8), np.zeros((), np.uint8)])
def test_the_graph_is_an_array_of_bytes(forger, graph):
    network(forger, graph)
    assert "not of bytes" in refused(forger)


def test_the_graph_is_an_array_of_its_own(forger, whole):
    header, checksums, bodies, _ = whole
    header = copy.deepcopy(header)
    header["content"]["decisions"].append({"kind": "assigned", "parameter": "more"})
    header["content"]["network"]["weights"].append(0)
    forger.write_table(header, checksums, bodies)
    assert "it needs an array more than the file has" in refused(forger)


def network(forger, graph):
    """A file that holds nothing but a graph."""
    entry, body = encode(graph)
    content = {"about": {}, "decisions": [], "network": {"weights": []}}
    forger.write_table({"content": content, "arrays": [entry.row()], "pools": []}, [entry.crc32], body)


@pytest.mark.parametrize("graph", [b"", b"\xff" * 50, b"\x3a\xff\xff\xff\xff\x0f", json.dumps({"a": 1}).encode()])
def test_a_graph_that_is_no_onnx_model_is_a_file_error(forger, graph):
    network(forger, np.frombuffer(graph, np.uint8))
    with pytest.raises(FileError, match=f"{forger.path}: ONNX Runtime cannot load its network"):
        runtime.load(forger.path)


@pytest.mark.parametrize("location", ["secret.bin", "/etc/hostname", "*/_ORT_MEM_ADDR_/*"])
def test_a_graph_reads_nothing_outside_the_file(forger, location, tmp_path, monkeypatch):
    from onnx import TensorProto, helper

    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.bin").write_bytes(b"\0" * 16)
    weight = TensorProto(name="w", data_type=1, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        weight.external_data.add(key=key, value=value)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, (4,)) for name in "xy")
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    network(forger, np.frombuffer(model.SerializeToString(), np.uint8))
    with pytest.raises(FileError, match="ONNX Runtime cannot load its network"):
        runtime.load(forger.path)
