"""Arrays as bytes: integers coded, or in as few bits as their span needs, the rest as they are, deflated if that helps.

An entry says how to read the bytes. How many there are before deflation follows from it, so that a size which does not
fit the others is found before anything is made.
"""

import os
import zlib
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np

from whit import _core
from whit.data import Array
from whit.errors import FileError, OutputError
from whit.store.fields import MOST_AXES, MOST_BYTES, shape, table, whole

__all__ = ["Entry", "Profile", "decode", "encode", "inflate"]

Profile = Literal["small", "fast"]
"""How integers of two or more axes are coded: in the fewest bytes, or so that they are read several times faster."""
_INTEGERS = ("bool", "int8", "uint8", "int16", "uint16", "int32", "int64")
_DTYPES = (*_INTEGERS, "float16", "float32", "float64")
_MOST_BITS = 16
_MOST_CODED = 1 << 22
_MOST_FROM_ONE = 1032
"""DEFLATE cannot make more than 1032 bytes of one, so a file that declares more lies."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """How an array is stored.

    Attributes:
        dtype: Of the array, one of ten.
        shape: Of the array.
        length: Bytes that are stored; without ``coded`` they are deflated where that is less than ``size``.
        crc32: Of the bytes that are stored.
        bits: Width of a packed value; None where values are stored as they are.
        low: What a packed value of 0 stands for.
        coded: Whether the values, all of which could be packed, went through the codec instead.
    """

    dtype: str
    shape: tuple[int, ...]
    length: int
    crc32: int
    bits: int | None = None
    low: int = 0
    coded: bool = False

    @property
    def count(self) -> int:
        """How many values the array has."""
        return prod(self.shape)

    @property
    def size(self) -> int:
        """Bytes before deflation, or of the same values packed if they are coded."""
        return _size(self.dtype, self.count, self.bits)

    @classmethod
    def of(cls, value: Any) -> "Entry":
        """The entry that a table of the header describes, checked by itself.

        Raises:
            ValueError: No array is stored like this.
        """
        packed = {"bits", "low"} if isinstance(value, dict) and "bits" in value else set[str]()
        coded = {"coded"} if packed and "coded" in value else set[str]()
        fields = table(value, {"dtype", "shape", "length", "crc32"} | packed | coded)
        if fields["dtype"] not in _DTYPES:
            raise ValueError(f"a .whit holds no arrays of dtype {str(fields['dtype'])[:40]!r}")
        fields["shape"] = shape(fields["shape"])
        entry = cls(**fields)
        whole(entry.length)
        whole(entry.crc32, high=0xFFFFFFFF)
        if entry.dtype == "bool" and entry.bits != 1:
            raise ValueError("true and false are packed in 1 bit")
        if coded and (entry.coded is not True or len(entry.shape) < 2):
            raise ValueError("coded is true, for arrays of two axes or more, or is left away")
        if packed:
            if entry.dtype not in _INTEGERS:
                raise ValueError(f"values of {entry.dtype} are not packed")
            bits = whole(entry.bits, 1, min(_MOST_BITS, 8 * np.dtype(entry.dtype).itemsize - 1))
            low, high = _limits(entry.dtype)
            whole(entry.low, low, high - (1 << bits) + 1)
        if not entry.length <= whole(entry.size) <= _MOST_FROM_ONE * entry.length:
            raise ValueError(f"{entry.length} stored bytes cannot hold {entry.count} values in {entry.size} bytes")
        return entry

    def table(self) -> dict[str, Any]:
        """The entry as plain JSON; ``Entry.of(entry.table()) == entry``."""
        packed = {} if self.bits is None else {"bits": self.bits, "low": self.low}
        stored = {"length": self.length, "crc32": self.crc32}
        return (
            {"dtype": self.dtype, "shape": list(self.shape)} | packed | stored | ({"coded": True} if self.coded else {})
        )


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
    bits, low = _packing(array) if dtype in _INTEGERS else (None, 0)
    flat = np.ascontiguousarray(array).reshape(-1)
    if bits is None:
        raw = flat.astype(flat.dtype.newbyteorder("<")).tobytes()
    else:
        raw = _core.pack_bits(flat.astype(np.int32), bits, low).tobytes()
    deflated = zlib.compress(raw, 9)
    stored = deflated if len(deflated) < len(raw) else raw
    coded = b""
    if bits is not None and array.ndim > 1 and array.size:
        matrix = np.ascontiguousarray(array).reshape(array.shape[0], -1).astype(np.int32)
        if abs(low) < _MOST_CODED:
            coded = _core.encode(matrix, profile, os.cpu_count() or 1).tobytes()
    better = 0 < len(coded) < len(stored) and len(raw) <= _MOST_FROM_ONE * len(coded)
    stored = coded if better else stored
    checksum = zlib.crc32(stored)
    return Entry(
        dtype=dtype, shape=array.shape, bits=bits, low=low, length=len(stored), crc32=checksum, coded=better
    ), stored


def _packing(array: Array) -> tuple[int | None, int]:
    """The width in which integers are packed, if it is less than their own, and what a packed 0 stands for."""
    if array.dtype == np.bool_:
        return 1, 0
    if not array.size:
        return None, 0
    low, high = int(array.min()), int(array.max())
    bits = max(1, (high - low).bit_length())
    least, most = _limits(array.dtype.name)
    if bits > _MOST_BITS or bits >= 8 * array.dtype.itemsize or low < least or high > most:
        return None, 0
    # Whatever the bits say, the value is one of the dtype.
    return bits, min(low, most - (1 << bits) + 1)


def _limits(dtype: str) -> tuple[int, int]:
    """The smallest and the largest value that can be packed."""
    if dtype == "bool":
        return 0, 1
    info, widest = np.iinfo(dtype), np.iinfo(np.int32)
    return max(int(info.min), int(widest.min)), min(int(info.max), int(widest.max))


def _size(dtype: str, count: int, bits: int | None) -> int:
    return count * np.dtype(dtype).itemsize if bits is None else (count * bits + 7) // 8


def decode(entry: Entry, stored: bytes, where: str) -> Array:
    """The array that an entry and its bytes describe.

    Raises:
        FileError: The bytes were changed or do not fit the entry; the message names ``where``.
    """
    if len(stored) != entry.length or zlib.crc32(stored) != entry.crc32:
        raise FileError(f"{where}: the checksum is wrong, so its bytes were changed; get the file again")
    if entry.coded:
        return _decode(entry, stored, where)
    raw = stored if entry.length == entry.size else inflate(stored, entry.size, where)
    if entry.bits is None:
        flat = np.frombuffer(raw, np.dtype(entry.dtype).newbyteorder("<")).astype(entry.dtype)
    else:
        try:
            flat = _core.unpack_bits(np.frombuffer(raw, np.uint8), entry.count, entry.bits, entry.low)
        except ValueError as error:
            raise FileError(f"{where}: {error}") from error
        flat = flat.astype(entry.dtype)
    return flat.reshape(entry.shape)


def _decode(entry: Entry, stored: bytes, where: str) -> Array:
    """The array whose values went through the codec."""
    rows = entry.shape[0]
    threads = os.cpu_count() or 1
    try:
        codes = _core.decode(np.frombuffer(stored, np.uint8), rows, entry.count // max(rows, 1), threads)
    except ValueError as error:
        raise FileError(f"{where}: {error}") from error
    high = entry.low + (1 << (entry.bits or 0)) - 1
    if codes.size and not entry.low <= codes.min() <= codes.max() <= high:
        raise FileError(f"{where}: holds values outside {entry.low} to {high}, which it declares")
    return codes.astype(entry.dtype).reshape(entry.shape)


def inflate(stored: bytes, size: int, where: str) -> bytes:
    """Deflated bytes, inflated to exactly the ``size`` that was declared and no further."""
    if size > _MOST_FROM_ONE * len(stored):
        raise FileError(f"{where}: declares {size} bytes, more than {len(stored)} deflated bytes can hold")
    inflater = zlib.decompressobj()
    try:
        raw = inflater.decompress(stored, size + 1)
    except zlib.error as error:
        raise FileError(f"{where}: cannot be inflated ({error})") from error
    if len(raw) != size or not inflater.eof or inflater.unused_data:
        raise FileError(f"{where}: does not inflate to the {size} bytes that it declares")
    return raw
