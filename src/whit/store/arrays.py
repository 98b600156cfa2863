"""Arrays as bytes: integers in as few bits as their span needs, the rest as they are, either deflated if that helps.

An entry says how to read the bytes: ``dtype``, ``shape``, ``bits`` and ``low`` for packed integers, ``deflated`` with
the number of bytes before deflation, ``length`` and ``crc32`` of what is stored.
"""

import zlib
from math import prod
from typing import Any, cast

import numpy as np

from whit import _core
from whit.data import Array
from whit.errors import FileError

__all__ = ["decode", "encode", "inflate"]

_DTYPES = ("bool", "int8", "uint8", "int16", "uint16", "int32", "int64", "float16", "float32", "float64")
_PACKED = ("bool", "int8", "uint8", "int16", "uint16", "int32", "int64")
_DEFLATE_LIMIT = 1032
"""DEFLATE cannot make more than 1032 bytes of one, so a file that declares more lies."""


def encode(array: Array) -> tuple[dict[str, Any], bytes]:
    """An array's entry and bytes; ``decode(*encode(array))`` equals it in values, shape and dtype."""
    if array.dtype.name not in _DTYPES:
        raise FileError(f"arrays of dtype {array.dtype} cannot be stored; a .whit holds {', '.join(_DTYPES)}")
    array = array.astype(array.dtype.newbyteorder("<"))
    entry: dict[str, Any] = {"dtype": array.dtype.name, "shape": list(array.shape)}
    raw = _pack(array, entry) if array.dtype.name in _PACKED and array.size else np.ascontiguousarray(array).tobytes()
    deflated = zlib.compress(raw, 9)
    if len(deflated) < len(raw):
        entry["deflated"] = len(raw)
        raw = deflated
    entry |= {"length": len(raw), "crc32": zlib.crc32(raw)}
    return entry, raw


def _pack(array: Array, entry: dict[str, Any]) -> bytes:
    low, high = int(array.min()), int(array.max())
    bits = max(1, (high - low).bit_length())
    if bits > 16 or bits >= 8 * array.dtype.itemsize or not -(2**31) <= low <= high < 2**31:
        return np.ascontiguousarray(array).tobytes()
    entry |= {"bits": bits, "low": low}
    return _core.pack_bits(np.ascontiguousarray(array.reshape(-1), np.int32), bits, low).tobytes()


def decode(entry: dict[str, Any], stored: bytes, where: str) -> Array:
    """The array that an entry and its bytes describe; sizes are checked before anything is made.

    Raises:
        FileError: Entry and bytes do not fit each other, or the checksum is wrong; the message names ``where``.
    """
    if zlib.crc32(stored) != entry.get("crc32"):
        raise FileError(f"{where}: the checksum is wrong, so its bytes were changed; get the file again")
    dtype, shape = entry.get("dtype"), entry.get("shape")
    if (
        dtype not in _DTYPES
        or not isinstance(shape, list)
        or not all(_is_size(size) for size in cast(list[Any], shape))
    ):
        raise FileError(f"{where}: dtype {dtype!r} or shape {shape!r} is not one that a .whit can hold")
    count = prod(cast(list[int], shape))
    bits = entry.get("bits")
    if bits is not None and not (_is_size(bits) and 1 <= bits <= 16):
        raise FileError(f"{where}: {bits!r} bits a value; packed values have 1 to 16")
    expected = (count * bits + 7) // 8 if bits is not None else count * np.dtype(dtype).itemsize
    raw = inflate(stored, entry["deflated"], where) if "deflated" in entry else stored
    if len(raw) != expected:
        raise FileError(f"{where}: {len(raw)} bytes, where {count} values of {dtype} need {expected}")
    if bits is None:
        flat = np.frombuffer(raw, np.dtype(dtype).newbyteorder("<")).astype(dtype)
    else:
        flat = _unpack(raw, count, bits, entry.get("low"), where).astype(dtype)
    return flat.reshape(cast(list[int], shape))


def inflate(stored: bytes, size: Any, where: str) -> bytes:
    """Deflated bytes, inflated to exactly the ``size`` that was declared and no further."""
    if not _is_size(size) or size > _DEFLATE_LIMIT * len(stored) + 64:
        raise FileError(f"{where}: declares {size!r} bytes, more than {len(stored)} deflated bytes can hold")
    inflater = zlib.decompressobj()
    try:
        raw = inflater.decompress(stored, size + 1)
    except zlib.error as error:
        raise FileError(f"{where}: cannot be inflated ({error})") from error
    if len(raw) != size or not inflater.eof or inflater.unused_data:
        raise FileError(f"{where}: does not inflate to the {size} bytes that it declares")
    return raw


def _unpack(raw: bytes, count: int, bits: int, low: Any, where: str) -> Array:
    if not isinstance(low, int) or not -(2**31) <= low < 2**31 - (1 << bits):
        raise FileError(f"{where}: the lowest value {low!r} is not a 32-bit integer with room for {bits} bits above")
    try:
        return _core.unpack_bits(np.frombuffer(raw, np.uint8), count, bits, low)
    except ValueError as error:
        raise FileError(f"{where}: {error}") from error


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40
