"""A file that was changed or cut by accident: found, named, never read as something else."""

import pytest

from whit import FileError, runtime
from whit.store import read


def refused(forger):
    """The message with which a file is refused; it names the path."""
    with pytest.raises(FileError) as caught:
        forger.read_all()
    assert str(forger.path) in str(caught.value)
    return str(caught.value)


def test_the_file_is_whole_to_begin_with(forger, whole):
    forger.write(whole[3])
    about, ledger, onnx = forger.read_all()
    assert about == {"plan": "[[step]]"}
    assert len(list(ledger)) == 12
    assert onnx.startswith(b"\x3a\x02ab" * 8)


def test_every_changed_byte_is_found(forger, whole):
    for place in range(len(whole[3])):
        changed = bytearray(whole[3])
        changed[place] ^= 1 << place % 8 if place % 3 else 0xFF
        forger.write(changed)
        refused(forger)


def test_every_cut_is_found(forger, whole):
    for length in range(len(whole[3])):
        forger.write(whole[3][:length])
        assert "not a .whit" in refused(forger) or "cut short" in refused(forger)


@pytest.mark.parametrize("surplus", [b"\0", b"\n", b"PK\x05\x06" + b"\0" * 18])
def test_bytes_behind_the_end_are_found(forger, whole, surplus):
    forger.write(whole[3] + surplus)
    assert "has bytes that its header does not account for" in refused(forger)


def test_two_files_in_one_are_found(forger, whole):
    forger.write(whole[3] * 2)
    assert "has bytes that its header does not account for" in refused(forger)


def test_swapped_arrays_are_found(forger, whole):
    header, checksums, bodies, _ = whole
    first, second = header["pools"][:2]
    swapped = [*checksums[:-2], checksums[-1], checksums[-2]]
    assert first != second
    forger.write_table(header, swapped, bodies)
    assert "checksum is wrong" in refused(forger)


@pytest.mark.parametrize("content", [b"", b"\x89", b"PK\x03\x04" + b"\0" * 60, b"\x08\x0a" * 40, b"\x80\x04K\x01."])
def test_other_files_are_not_mistaken_for_one(forger, content):
    forger.write(content)
    message = refused(forger)
    assert "is not a .whit file: it begins with" in message or "is cut short" in message


def test_a_later_version_says_what_to_do(forger, whole):
    forger.write_header(b"{}", version=2)
    assert "has format version 2, this whit reads 1; install a later whit" in refused(forger)


def test_a_missing_file_and_a_folder_are_named(forger, tmp_path):
    for path in (forger.path, tmp_path):
        with pytest.raises(FileError, match=f"there is no file {path}"):
            read(path)
        with pytest.raises(FileError, match=f"there is no file {path}"):
            runtime.load(path)


def test_a_file_cut_after_it_was_opened_is_found(forger, whole):
    forger.write(whole[3])
    stored = read(forger.path)
    forger.write(whole[3][:-20])
    with pytest.raises(FileError, match="checksum is wrong"):
        stored.onnx()
    forger.path.unlink()
    with pytest.raises(FileError, match=f"cannot read {forger.path}"):
        stored.ledger()
