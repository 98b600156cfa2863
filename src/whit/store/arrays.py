"""Arrays as bytes: of the ways to store one, that which takes the fewest.

An entry says how to read the bytes. How many there can be follows from it, so that a size which does not fit the others
is found before anything is made.
"""

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, cast, get_args

import numpy as np

from whit import _core
from whit.data import Array
from whit.errors import FileError, OutputError
from whit.store.fields import MOST_AXES, MOST_BYTES, shape, whole

__all__ = ["Entry", "Packed", "Profile", "check_profile", "decode", "encode", "expand"]

Profile = Literal["small", "fast"]
"""How integers are coded: in the fewest bytes, or so that they are read several times faster."""
_INTEGERS = ("bool", "int8", "uint8", "int16", "uint16", "int32", "int64")
_DTYPES = (*_INTEGERS, "float16", "float32", "float64")
_MOST_BITS = 16
_MOST_CODED = 1 << 22
_MOST_MODELLED = 1 << 20
"""The byte model is slow: what has more bytes is stored as it is."""
_MOST_VALUES_FROM_ONE = 1 << 14
_MOST_BYTES_FROM_ONE = 1 << 11
"""What a reader believes that one stored byte can hold; a writer that gets more into it stores the values otherwise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Packed:
    """Integers in fields of ``bits`` bits, of which 0 stands for ``low``."""

    bits: int
    low: int


Way = Packed | Literal["plain", "codes", "floats", "bytes"]
"""As they are; packed; or through the coder of integers, that of float32 or that of any bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """How an array is stored.

    Attributes:
        dtype: Of the array, one of ten.
        shape: Of the array.
        length: Bytes that are stored.
        crc32: Of the bytes that are stored.
        way: How the values became bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    length: int
    crc32: int
    way: Way = "plain"

    @property
    def count(self) -> int:
        """How many values the array has."""
        return prod(self.shape)

    @property
    def size(self) -> int:
        """Bytes of the values as they are."""
        return self.count * np.dtype(self.dtype).itemsize

    @classmethod
    def of(cls, row: Any, crc32: int) -> "Entry":
        """The entry that a row of the header describes, checked by itself.

        Raises:
            ValueError: No array is stored like this.
        """
        if not isinstance(row, list) or len(cast(list[Any], row)) not in (3, 4, 5):
            raise ValueError("an entry is a list of a dtype, a shape, a length and how the values are stored")
        dtype, sizes, length, *how = cast(list[Any], row)
        if dtype not in _DTYPES:
            raise ValueError(f"a .whit holds no arrays of dtype {str(dtype)[:40]!r}")
        way = _way(how, dtype)
        entry = cls(dtype=dtype, shape=shape(sizes), length=whole(length), crc32=crc32, way=way)
        whole(entry.size)
        if not entry.fits():
            raise ValueError(f"{length} stored bytes cannot hold {entry.count} values of {dtype}")
        return entry

    def fits(self) -> bool:
        """Whether the stored bytes can hold the values."""
        match self.way:
            case "plain":
                return self.length == self.size
            case Packed(bits=bits):
                return self.length == (self.count * bits + 7) // 8
            case "bytes":
                return self.size <= _MOST_BYTES_FROM_ONE * self.length
            case "codes" | "floats":
                return self.count <= _MOST_VALUES_FROM_ONE * self.length

    def row(self) -> list[Any]:
        """The entry as plain JSON; ``Entry.of(entry.row(), entry.crc32) == entry``."""
        way = self.way
        how = [way.bits, way.low] if isinstance(way, Packed) else [] if way == "plain" else [way]
        return [self.dtype, list(self.shape), self.length, *how]


def _way(how: list[Any], dtype: str) -> Way:
    """What the end of a row says, checked against the dtype."""
    match how:
        case [] if dtype != "bool":
            return "plain"
        case ["codes"] if dtype in _INTEGERS:
            return "codes"
        case ["floats"] if dtype == "float32":
            return "floats"
        case ["bytes"] if dtype != "bool":
            return "bytes"
        case [bits, low] if dtype in _INTEGERS:
            least, most = _limits(dtype)
            widest = 1 if dtype == "bool" else min(_MOST_BITS, 8 * np.dtype(dtype).itemsize - 1)
            packed = Packed(bits=whole(bits, 1, widest), low=whole(low, least, most))
            whole(low, least, most - (1 << packed.bits) + 1)
            return packed
        case _:
            raise ValueError(f"{dtype} is not stored as {str(how)[:40]}")


def check_profile(profile: str) -> None:
    """Raise ``OutputError`` unless there is such a profile; to be asked before anything long."""
    if profile not in get_args(Profile):
        raise OutputError(f"profile={profile!r}: there is no such profile; choose {' or '.join(get_args(Profile))}")


def encode(array: Array, profile: Profile = "small") -> tuple[Entry, bytes]:
    """An array's entry and bytes; ``decode(*encode(array))`` equals it in bits, shape and dtype.

    Raises:
        OutputError: The array has a dtype or a number of axes that a ``.whit`` cannot hold.
    """
    dtype = array.dtype.name
    if dtype not in _DTYPES:
        raise OutputError(f"arrays of dtype {array.dtype} cannot be stored; a .whit holds {', '.join(_DTYPES)}")
    if array.ndim > MOST_AXES or array.nbytes > MOST_BYTES:
        raise OutputError(f"an array of {array.ndim} axes cannot be stored; a .whit holds at most {MOST_AXES}")
    found = [
        (Entry(dtype=dtype, shape=array.shape, length=len(stored), crc32=zlib.crc32(stored), way=way), stored)
        for way, stored in _ways(np.ascontiguousarray(array).reshape(array.shape), profile)
    ]
    return min((one for one in found if one[0].fits()), key=lambda one: one[0].length)


def _ways(array: Array, profile: Profile) -> Iterator[tuple[Way, bytes]]:
    """Ways to store an array, with its bytes; of equally short ones the first is the quickest to read."""
    dtype = array.dtype.name
    raw = array.astype(array.dtype.newbyteorder("<")).tobytes()
    packed = _packing(array) if dtype in _INTEGERS else None
    if dtype != "bool":
        yield "plain", raw
    if dtype in _INTEGERS:
        if packed:
            codes = array.astype(np.int32).reshape(-1)
            yield packed, _core.pack_bits(codes, packed.bits, packed.low).tobytes()
        if array.size and -_MOST_CODED < array.min() <= array.max() < _MOST_CODED:
            matrix = array.astype(np.int32).reshape(_matrix(array.shape))
            yield "codes", _core.encode(matrix, profile, os.cpu_count() or 1).tobytes()
    if dtype == "float32" and array.size:
        yield "floats", _core.encode_floats(array.astype(np.float32).reshape(-1)).tobytes()
    if (dtype == "uint8" or (packed is None and dtype != "float32")) and 0 < len(raw) <= _MOST_MODELLED:
        yield "bytes", _core.encode_bytes(np.frombuffer(raw, np.uint8)).tobytes()


def _matrix(sizes: tuple[int, ...]) -> tuple[int, int]:
    """The matrix as which integers are coded: the first axis by all others, or a single row."""
    return (sizes[0], prod(sizes[1:])) if len(sizes) > 1 else (1, prod(sizes))


def _packing(array: Array) -> Packed | None:
    """How integers are packed, if that takes fewer bits than they have."""
    if array.dtype == np.bool_:
        return Packed(bits=1, low=0)
    if not array.size:
        return None
    low, high = int(array.min()), int(array.max())
    bits = max(1, (high - low).bit_length())
    least, most = _limits(array.dtype.name)
    if bits > _MOST_BITS or bits >= 8 * array.dtype.itemsize or low < least or high > most:
        return None
    # Whatever the bits say, the value is one of the dtype.
    return Packed(bits=bits, low=min(low, most - (1 << bits) + 1))


def _limits(dtype: str) -> tuple[int, int]:
    """The smallest and the largest value that can be packed."""
    if dtype == "bool":
        return 0, 1
    info, widest = np.iinfo(dtype), np.iinfo(np.int32)
    return max(int(info.min), int(widest.min)), min(int(info.max), int(widest.max))


def decode(entry: Entry, stored: bytes, where: str) -> Array:
    """The array that an entry and its bytes describe.

    Raises:
        FileError: The bytes were changed or do not fit the entry; the message names ``where``.
    """
    if len(stored) != entry.length or zlib.crc32(stored) != entry.crc32:
        raise FileError(f"{where}: the checksum is wrong, so its bytes were changed; get the file again")
    try:
        flat = _values(entry, np.frombuffer(stored, np.uint8))
    except ValueError as error:
        raise FileError(f"{where}: {error}") from error
    except MemoryError as error:
        raise FileError(f"{where}: {entry.count} values of {entry.dtype} do not fit into memory") from error
    return flat.astype(entry.dtype).reshape(entry.shape)


def _values(entry: Entry, stored: Any) -> Array:
    """The values in C order, of the entry's dtype or of another that holds them."""
    dtype = np.dtype(entry.dtype).newbyteorder("<")
    match entry.way:
        case "plain":
            return stored.view(dtype) if stored.size else np.zeros(0, dtype)
        case Packed(bits=bits, low=low):
            return _core.unpack_bits(stored, entry.count, bits, low)
        case "floats":
            return _core.decode_floats(stored, entry.count)
        case "bytes":
            return _core.decode_bytes(stored, entry.size).view(dtype)
        case "codes":
            codes = _core.decode(stored, *_matrix(entry.shape), os.cpu_count() or 1)
            low, high = _limits(entry.dtype)
            if codes.size and not low <= codes.min() <= codes.max() <= high:
                raise ValueError(f"holds values from {codes.min()} to {codes.max()}, which are not {entry.dtype}")
            return codes.reshape(-1)


def expand(stored: bytes, size: int, where: str) -> bytes:
    """Bytes through the byte model, to exactly the ``size`` that was declared and no further."""
    if size > _MOST_BYTES_FROM_ONE * len(stored):
        raise FileError(f"{where}: declares {size} bytes, more than {len(stored)} coded bytes can hold")
    try:
        return _core.decode_bytes(np.frombuffer(stored, np.uint8), size).tobytes()
    except ValueError as error:
        raise FileError(f"{where}: {error}") from error
