"""The ``.whit`` container: a checked header, then arrays, with every byte accounted for. See ``spec/whit-format.md``.

Opening reads the header only; each array is read, checked and decoded when it is asked for, alone.
"""

import json
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from whit.data import Array
from whit.errors import FileError, OutputError
from whit.store.arrays import Entry, decode, encode, inflate
from whit.store.fields import reading, table, whole

__all__ = ["LARGEST_HEADER", "MAGIC", "MOST_VALUES", "VERSION", "Container", "open_container", "write_container"]

MAGIC = b"\x89whit\r\n\x1a"
VERSION = 1
LARGEST_HEADER = 1 << 24
MOST_VALUES = 1 << 20
"""Of ``,``, ``[`` and ``{`` in a header: bounds the memory that its JSON takes, many times that of the text."""
_PREFIX = struct.Struct("<8sIIQQ")


def write_container(content: Mapping[str, Any], arrays: Sequence[Array]) -> bytes:
    """A container as bytes: ``content`` is plain JSON, which refers to arrays by their place.

    The same content and arrays give the same bytes.

    Raises:
        OutputError: The content or an array is not one that a ``.whit`` can hold.
    """
    encoded = [encode(array) for array in arrays]
    header = {"content": content, "arrays": [entry.table() for entry, _ in encoded]}
    try:
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise OutputError(f"the facts in a .whit must be plain JSON without NaN and infinity: {error}") from error
    if len(text) > LARGEST_HEADER or _values(text) > MOST_VALUES:
        raise OutputError(f"a header of {len(text)} bytes and {_values(text)} values is more than a .whit can hold")
    stored = zlib.compress(text, 9)
    prefix = _PREFIX.pack(MAGIC, VERSION, zlib.crc32(stored), len(stored), len(text))
    return b"".join([prefix, stored, *(body for _, body in encoded)])


def _values(text: bytes) -> int:
    return sum(text.count(mark) for mark in (b",", b"[", b"{"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Container:
    """An open container.

    Attributes:
        path: Where it lies.
        content: The JSON that was written with it.
        entries: How each array is stored.
        starts: Where each array's bytes begin.
        size: Bytes of the whole file.
    """

    path: Path
    content: Mapping[str, Any]
    entries: tuple[Entry, ...]
    starts: tuple[int, ...]
    size: int

    def array(self, place: Any) -> Array:
        """Read one array, checked."""
        with reading(f"{self.path}, reference to one of {len(self.entries)} arrays"):
            place = whole(place, high=len(self.entries) - 1)
        entry, start = self.entries[place], self.starts[place]
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                stored = file.read(entry.length)
        except OSError as error:
            raise FileError(f"cannot read {self.path}: {error}") from error
        return decode(entry, stored, f"{self.path}, array {place} at byte {start}")


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
        _, version, checksum, stored_size, text_size = _PREFIX.unpack(prefix)
        if version != VERSION:
            raise FileError(f"{path} has format version {version}, this whit reads {VERSION}; install a later whit")
        if stored_size > size - _PREFIX.size:
            raise FileError(f"{path} is cut short: its header takes {stored_size} bytes, the file has {size} in all")
        if max(stored_size, text_size) > LARGEST_HEADER:
            raise FileError(f"{path}: declares a header of {text_size} bytes, more than the {LARGEST_HEADER} allowed")
        stored = file.read(stored_size)
    if zlib.crc32(stored) != checksum:
        raise FileError(f"{path}: the header's checksum is wrong, so it was changed; get the file again")
    header = _parse(inflate(stored, text_size, f"{path}, header"), path)
    return _container(header, path, size, start=_PREFIX.size + stored_size)


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
        return table(header, {"content", "arrays"})


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field stands twice in one table")
    return found


def _container(header: dict[str, Any], path: Path, size: int, start: int) -> Container:
    if not isinstance(header["content"], dict) or not isinstance(header["arrays"], list):
        raise FileError(f"{path}: the header's content is not a table, or its arrays are not a list")
    entries: list[Entry] = []
    starts: list[int] = []
    for place, value in enumerate(cast(list[Any], header["arrays"])):
        with reading(f"{path}, array {place}"):
            entries.append(Entry.of(value))
        starts.append(start)
        start += entries[-1].length
    if start != size:
        what = "is cut short" if start > size else "has bytes that its header does not account for"
        raise FileError(f"{path} {what}: the header accounts for {start} bytes, the file has {size}")
    content = cast(dict[str, Any], header["content"])
    return Container(path=path, content=content, entries=tuple(entries), starts=tuple(starts), size=size)
