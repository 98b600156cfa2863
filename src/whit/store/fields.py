"""What plain JSON values may be: each function gives the value back, or says in a ``ValueError`` what is wrong.

Whatever reads a ``.whit`` does so inside ``reading``, which turns that into a ``FileError`` with the place.
"""

from collections.abc import Generator, Set
from contextlib import contextmanager
from math import prod
from typing import Any, cast

from whit.errors import FileError, PlanError

__all__ = ["MOST_AXES", "MOST_BYTES", "positive", "reading", "shape", "table", "text", "whole"]

MOST_AXES = 32
MOST_BYTES = 1 << 48
"""More than any array that fits on a disk: sizes below it can be multiplied and added without overflow anywhere."""
_LEAST, _MOST = 2.0**-149, (2 - 2.0**-23) * 2.0**127
"""The smallest and the largest positive float32."""
_LONGEST_MESSAGE = 300


@contextmanager
def reading(where: str) -> Generator[None]:
    """Whatever does not fit in what is read becomes an error that says where."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, PlanError) as error:
        what = f"{error}" if isinstance(error, ValueError | PlanError) else f"{type(error).__name__}: {error}"
        raise FileError(f"{where}: is not what a .whit holds ({_short(what)})") from error


def table(value: Any, needed: Set[str], optional: Set[str] = frozenset()) -> dict[str, Any]:
    """A table that has every needed field, and no other but the optional ones."""
    if not isinstance(value, dict):
        raise ValueError(f"{_shown(value)} is not a table")
    fields = cast(dict[str, Any], value)
    if not needed <= fields.keys() <= needed | optional:
        raise ValueError(f"has the fields {_shown(sorted(fields))}, where {sorted(needed)} are needed")
    return fields


def text(value: Any) -> str:
    """A name."""
    if not isinstance(value, str):
        raise ValueError(f"{_shown(value)} is not a name")
    return value


def whole(value: Any, low: int = 0, high: int = MOST_BYTES) -> int:
    """A whole number from ``low`` to ``high``; true and false are none."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{_shown(value)} is not a whole number from {low} to {high}")
    return value


def positive(value: Any) -> float:
    """A number that is positive and finite as a float32; true and false are none."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not _LEAST <= value <= _MOST:
        raise ValueError(f"{_shown(value)} is not a positive float32")
    return float(value)


def shape(value: Any) -> tuple[int, ...]:
    """The shape of an array; it stays small enough even where one of its sizes is 0."""
    if not isinstance(value, list) or len(cast(list[Any], value)) > MOST_AXES:
        raise ValueError(f"{_shown(value)} is not a shape of at most {MOST_AXES} axes")
    sizes = tuple(whole(size) for size in cast(list[Any], value))
    if prod(max(size, 1) for size in sizes) > MOST_BYTES:
        raise ValueError(f"the shape {sizes} has more than {MOST_BYTES} values")
    return sizes


def _shown(value: Any) -> str:
    return _short(repr(value), _LONGEST_MESSAGE // 4)


def _short(message: str, most: int = _LONGEST_MESSAGE) -> str:
    return message if len(message) <= most else f"{message[:most]}..."
