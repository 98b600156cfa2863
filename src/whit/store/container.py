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
from whit.errors import FileError
from whit.store.arrays import decode, encode, inflate

__all__ = ["MAGIC", "VERSION", "Container", "open_container", "write_container"]

MAGIC = b"\x89whit\r\n\x1a"
VERSION = 1
_PREFIX = struct.Struct("<8sIIQQ")
_LARGEST_HEADER = 1 << 28


def write_container(content: Mapping[str, Any], arrays: Sequence[Array]) -> bytes:
    """A container as bytes: ``content`` is plain JSON, which refers to arrays by their place.

    The same content and arrays give the same bytes.
    """
    entries, bodies = zip(*[encode(array) for array in arrays], strict=True) if arrays else ((), ())
    header = {"content": content, "arrays": list(entries)}
    text = json.dumps(header, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode("ascii")
    stored = zlib.compress(text, 9)
    return b"".join([_PREFIX.pack(MAGIC, VERSION, zlib.crc32(stored), len(stored), len(text)), stored, *bodies])


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
    entries: tuple[dict[str, Any], ...]
    starts: tuple[int, ...]
    size: int

    def array(self, place: int) -> Array:
        """Read one array, checked."""
        if not isinstance(place, int) or not 0 <= place < len(self.entries):
            raise FileError(f"{self.path}: refers to array {place!r} of {len(self.entries)}")
        entry = self.entries[place]
        with self.path.open("rb") as file:
            file.seek(self.starts[place])
            stored = file.read(entry["length"])
        if len(stored) != entry["length"]:
            raise FileError(f"{self.path}: was cut short after it was opened")
        return decode(entry, stored, f"{self.path}, array {place} at byte {self.starts[place]}")


def open_container(path: str | Path) -> Container:
    """Open a ``.whit`` file and read its header.

    Raises:
        FileError: It is not a ``.whit`` file, is cut short, was changed, or comes from a later version.
    """
    path = Path(path)
    if not path.is_file():
        raise FileError(f"there is no file {path}")
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
        stored = file.read(stored_size)
    if zlib.crc32(stored) != checksum:
        raise FileError(f"{path}: the header's checksum is wrong, so it was changed; get the file again")
    if text_size > _LARGEST_HEADER:
        raise FileError(f"{path}: declares a header of {text_size} bytes, more than the {_LARGEST_HEADER} allowed")
    header = _parse(inflate(stored, text_size, f"{path}, header"), path)
    return _container(header, path, size, start=_PREFIX.size + stored_size)


def _parse(text: bytes, path: Path) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path}: the header is not JSON ({error})") from error
    if not isinstance(header, dict) or header.keys() != {"content", "arrays"}:
        raise FileError(f"{path}: the header does not have just content and arrays")
    header = cast(dict[str, Any], header)
    if not isinstance(header["content"], dict) or not isinstance(header["arrays"], list):
        raise FileError(f"{path}: the header's content is not a table, or its arrays are not a list")
    return header


def _container(header: dict[str, Any], path: Path, size: int, start: int) -> Container:
    starts: list[int] = []
    for place, entry in enumerate(header["arrays"]):
        length = entry.get("length") if isinstance(entry, dict) else None
        if not isinstance(length, int) or isinstance(length, bool) or length < 0:
            raise FileError(f"{path}: array {place} declares no length")
        starts.append(start)
        start += length
    if start != size:
        what = "is cut short" if start > size else "has bytes that its header does not account for"
        raise FileError(f"{path} {what}: the header accounts for {start} bytes, the file has {size}")
    entries = tuple(cast(list[dict[str, Any]], header["arrays"]))
    return Container(path=path, content=header["content"], entries=entries, starts=tuple(starts), size=size)
