"""The ``.whit`` container: a checked header, then arrays, with every byte accounted for. See ``spec/whit-format.md``.

Opening reads the header only; each array is read, checked and decoded when it is asked for, alone. Small arrays of one
role lie together in a pool, which is stored as one array.
"""

import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from whit import _core
from whit.data import Array
from whit.errors import FileError, OutputError
from whit.store.arrays import Entry, Profile, check_profile, decode, encode, expand
from whit.store.fields import reading, shape, table, whole

__all__ = [
    "LARGEST_HEADER",
    "MAGIC",
    "MOST_VALUES",
    "VERSION",
    "Container",
    "Piece",
    "open_container",
    "write_container",
]

MAGIC = b"\x89whit\r\n\x1a"
VERSION = 1
LARGEST_HEADER = 1 << 22
MOST_VALUES = 1 << 18
"""Of ``,``, ``[`` and ``{`` in a header: bounds the memory that its JSON takes, many times that of the text."""
_PREFIX = struct.Struct("<8sIIIII")
_LARGEST_POOLED = 1024
"""Values of an array that may lie in a pool: to read it the whole pool is decoded."""


def write_container(
    content: Mapping[str, Any], arrays: Sequence[tuple[str, Array]], profile: Profile = "small"
) -> bytes:
    """A container as bytes.

    The same content and arrays give the same bytes.

    Args:
        content: Plain JSON.
        arrays: In the order in which they are read, each with its role; small ones of one role and dtype are pooled,
            unless the role is empty.
        profile: How integers are coded.

    Raises:
        OutputError: There is no such profile, or the content or an array is not one that a ``.whit`` can hold.
    """
    check_profile(profile)
    pools = _pools(arrays)
    places = {place: pool for pool, members in enumerate(pools) for place in members}
    own = {place: encode(array, profile) for place, (_, array) in enumerate(arrays) if place not in places}
    shared = [encode(np.concatenate([arrays[place][1].reshape(-1) for place in members]), profile) for members in pools]
    rows = [
        own[place][0].row() if place in own else [places[place], list(array.shape)]
        for place, (_, array) in enumerate(arrays)
    ]
    text = _text({"content": content, "arrays": rows, "pools": [entry.row() for entry, _ in shared]})
    coded = _core.encode_bytes(np.frombuffer(text, np.uint8)).tobytes()
    stored = [*own.values(), *shared]
    header = coded + b"".join(struct.pack("<I", entry.crc32) for entry, _ in stored)
    prefix = _PREFIX.pack(MAGIC, VERSION, zlib.crc32(header), len(coded), len(text), len(stored))
    return b"".join([prefix, header, *(body for _, body in stored)])


def _pools(arrays: Sequence[tuple[str, Array]]) -> list[list[int]]:
    """The places of small arrays that have a role and a dtype in common."""
    found: dict[tuple[str, str], list[int]] = {}
    for place, (role, array) in enumerate(arrays):
        if role and array.size <= _LARGEST_POOLED:
            found.setdefault((role, array.dtype.name), []).append(place)
    return [members for members in found.values() if len(members) > 1]


def _text(header: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise OutputError(f"the facts in a .whit must be plain JSON without NaN and infinity: {error}") from error
    if len(text) > LARGEST_HEADER or _values(text) > MOST_VALUES:
        raise OutputError(f"a header of {len(text)} bytes and {_values(text)} values is more than a .whit can hold")
    return text


def _values(text: bytes) -> int:
    return sum(text.count(mark) for mark in (b",", b"[", b"{"))


class Piece(NamedTuple):
    """Where an array lies: in what is stored as one, alone or from a value on in a pool."""

    stored: int
    shape: tuple[int, ...]
    first: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Container:
    """An open container.

    Attributes:
        path: Where it lies.
        content: The JSON that was written with it.
        pieces: Where each array lies, in the order in which they are read.
        entries: How arrays and pools are stored.
        starts: Where the bytes of each begin.
        size: Bytes of the whole file.
    """

    path: Path
    content: Mapping[str, Any]
    pieces: tuple[Piece, ...]
    entries: tuple[Entry, ...]
    starts: tuple[int, ...]
    size: int
    _pools: dict[int, Array] = field(default_factory=dict[int, Array], repr=False, compare=False)

    def array(self, place: int) -> Array:
        """Read one array, checked; a pool stays in memory once it was read."""
        stored, sizes, first = self.pieces[place]
        if first is None:
            return self._read(stored)
        if stored not in self._pools:
            self._pools[stored] = self._read(stored)
        return self._pools[stored][first : first + prod(sizes)].reshape(sizes).copy()

    def entry(self, place: int) -> Entry:
        """How an array is stored, alone or in its pool."""
        return self.entries[self.pieces[place].stored]

    def length(self, place: int) -> int:
        """Bytes that an array takes; in a pool its share, rounded up."""
        entry = self.entry(place)
        return -(-entry.length * prod(self.pieces[place].shape) // max(entry.count, 1))

    def _read(self, stored: int) -> Array:
        entry, start = self.entries[stored], self.starts[stored]
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                body = file.read(entry.length)
        except OSError as error:
            raise FileError(f"cannot read {self.path}: {error}") from error
        return decode(entry, body, f"{self.path}, array {stored} at byte {start}")


def open_container(path: str | Path) -> Container:
    """Open a ``.whit`` file and read its header.

    Raises:
        FileError: It is not a ``.whit`` file, is cut short, was changed, or comes from a later version.
    """
    path = Path(path)
    if not path.is_file():
        raise FileError(f"there is no file {path}")
    try:
        return _open(path)
    except OSError as error:
        raise FileError(f"cannot read {path}: {error}") from error


def _open(path: Path) -> Container:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        prefix = file.read(_PREFIX.size)
        if prefix[: len(MAGIC)] != MAGIC[: len(prefix)] or not prefix:
            raise FileError(f"{path} is not a .whit file: it begins with {prefix[:8]!r}, not with {MAGIC!r}")
        if len(prefix) < _PREFIX.size:
            raise FileError(f"{path} is cut short: {size} bytes, where a .whit has at least {_PREFIX.size}")
        _, version, checksum, stored_size, text_size, count = _PREFIX.unpack(prefix)
        if version != VERSION:
            raise FileError(f"{path} has format version {version}, this whit reads {VERSION}; install a later whit")
        if stored_size + 4 * count > size - _PREFIX.size:
            raise FileError(f"{path} is cut short: its header takes {stored_size} bytes, the file has {size} in all")
        if max(stored_size, text_size) > LARGEST_HEADER:
            raise FileError(f"{path}: declares a header of {text_size} bytes, more than the {LARGEST_HEADER} allowed")
        stored = file.read(stored_size + 4 * count)
    if zlib.crc32(stored) != checksum:
        raise FileError(f"{path}: the header's checksum is wrong, so it was changed; get the file again")
    header = _parse(expand(stored[:stored_size], text_size, f"{path}, header"), path)
    checksums = struct.unpack(f"<{count}I", stored[stored_size:])
    return _container(header, checksums, path, size, start=_PREFIX.size + len(stored))


def _parse(text: bytes, path: Path) -> dict[str, Any]:
    if (values := _values(text)) > MOST_VALUES:
        raise FileError(f"{path}: its header has {values} values, more than the {MOST_VALUES} allowed")
    try:
        header = json.loads(text.decode(), object_pairs_hook=_unique)
        # What has no JSON or no UTF-8 of its own: NaN, numbers beyond float64, halves of surrogate pairs.
        json.dumps(header, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path}: the header is not JSON ({error})") from error
    with reading(f"{path}, header"):
        header = table(header, {"content", "arrays", "pools"})
        if not isinstance(header["content"], dict):
            raise ValueError("its content is not a table")
        if not isinstance(header["arrays"], list) or not isinstance(header["pools"], list):
            raise ValueError("its arrays or pools are not a list")
        return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field stands twice in one table")
    return found


def _container(header: dict[str, Any], checksums: tuple[int, ...], path: Path, size: int, start: int) -> Container:
    """The container whose pieces, entries and checksums account for every byte."""
    rows, shared = cast(list[Any], header["arrays"]), cast(list[Any], header["pools"])
    own = [row for row in rows if not _is_pooled(row)]
    if len(own) + len(shared) != len(checksums):
        raise FileError(f"{path}: its header lists {len(own) + len(shared)} arrays and {len(checksums)} checksums")
    entries: list[Entry] = []
    starts: list[int] = []
    for place, (row, checksum) in enumerate(zip([*own, *shared], checksums, strict=True)):
        with reading(f"{path}, array {place}"):
            entries.append(Entry.of(row, checksum))
        starts.append(start)
        start += entries[-1].length
    if start != size:
        what = "is cut short" if start > size else "has bytes that its header does not account for"
        raise FileError(f"{path} {what}: the header accounts for {start} bytes, the file has {size}")
    with reading(f"{path}, pools"):
        pieces = tuple(_pieces(rows, entries, len(own)))
    content = cast(dict[str, Any], header["content"])
    return Container(path=path, content=content, pieces=pieces, entries=tuple(entries), starts=tuple(starts), size=size)


def _is_pooled(row: Any) -> bool:
    return isinstance(row, list) and len(cast(list[Any], row)) == 2


def _pieces(rows: list[Any], entries: list[Entry], own: int) -> Iterator[Piece]:
    """Where each array lies; the arrays of a pool follow each other in it and fill it."""
    alone = iter(range(own))
    filled = [0] * (len(entries) - own)
    for row in rows:
        if not _is_pooled(row):
            stored = next(alone)
            yield Piece(stored, entries[stored].shape)
            continue
        pool, sizes = whole(row[0], high=len(filled) - 1), shape(row[1])
        yield Piece(own + pool, sizes, filled[pool])
        filled[pool] += prod(sizes)
    for entry, count in zip(entries[own:], filled, strict=True):
        if entry.shape != (count,):
            raise ValueError(f"a pool of shape {entry.shape} is shared by arrays of {count} values")
