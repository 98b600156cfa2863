"""Everything whit raises on purpose.

WhitError
├── PlanError        a plan or budget that cannot be: a bad amount, a bad order, a rule that matches nothing
├── DataError        data that is missing, has the wrong shape, or holds NaN or labels out of range
├── ModelError       a network that cannot be read, edited or exported
│   └── WeightsError     a weights file whose names or shapes are not the network's
├── FileError        a file that is not a .whit, is cut short or was changed
├── OutputError      an output that exists already or cannot be written
├── ParityError      runtime and framework do not compute the same from a file that was written or read
└── WorkersError     workers that die at a task, or cannot be reached

Every message says what was given, what it conflicts with and what to do next.
"""

from collections.abc import Iterable

__all__ = [
    "DataError",
    "FileError",
    "ModelError",
    "OutputError",
    "ParityError",
    "PlanError",
    "WeightsError",
    "WhitError",
    "WorkersError",
    "listed",
]


class WhitError(Exception):
    """The root of every error that whit raises on purpose."""


class PlanError(WhitError):
    """A plan, step, rule or budget that cannot be kept to as written."""


class DataError(WhitError):
    """Calibration, training or test data that cannot be used as given."""


class ModelError(WhitError):
    """A network that cannot be read, edited or exported."""


class WeightsError(ModelError):
    """Weights whose names, shapes or values do not fit the network."""


class FileError(WhitError):
    """A file that is not what its name says, is cut short or was changed."""


class OutputError(WhitError):
    """An output that exists already or cannot be written."""


class ParityError(WhitError):
    """The exported network disagrees with the framework's network."""


class WorkersError(WhitError):
    """Workers that die at a task again and again, or that cannot be reached."""


def listed(names: Iterable[str], most: int = 8) -> str:
    """Names for a message, in the order given: ``a, b, c and 4 more``."""
    every = list(names)
    shown = ", ".join(every[:most]) or "none"
    return shown if len(every) <= most else f"{shown} and {len(every) - most} more"
