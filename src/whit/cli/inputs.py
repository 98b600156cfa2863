"""The data that a command line names."""

from typing import Any, cast

import numpy as np

from whit.data import Array, Data, Images, Samples, arrays
from whit.errors import DataError
from whit.lookup import made_by

__all__ = ["data_from", "samples_from"]


def data_from(where: str, test: str | None = None, images: Images | None = None) -> Data:
    """Data from an ``.npz`` with arrays ``x`` and ``y``, or from ``package.module:make_data``.

    Args:
        where: Names the data, or the training data if ``test`` names test data; a callable returns ``(x, y)``, or a
            ``whit.Data`` where nothing else is named. Without test data a fifth is held out.
        test: Names ``(x, y)`` to judge on.
        images: Applied to ``x`` of both.

    Raises:
        DataError: There are no such data, or they cannot be used; the message says why.
    """
    train = _found(where)
    if isinstance(train, Data):
        if test is not None or images is not None:
            raise DataError(
                f"{where} returns whit.Data, which has test data and images of its own; let it return (x, y), "
                "or drop the options for them"
            )
        return train
    if test is None:
        return Data.split(*train, images=images)
    judged = _found(test)
    if isinstance(judged, Data):
        raise DataError(f"{test} returns whit.Data; test data are (x, y)")
    return Data.of(*train, *judged, images=images)


def samples_from(where: str, images: Images | None = None) -> Samples:
    """Samples to compare on, from what ``data_from`` takes: all of them, or the test samples of a ``whit.Data``.

    Raises:
        DataError: As ``data_from``.
    """
    found = _found(where)
    return data_from(where, images=images).test if isinstance(found, Data) else Data.of(*found, *found, images).test


def _found(where: str) -> Data | tuple[Any, Array]:
    if where.endswith(".npz") or ":" not in where:
        return arrays(where)
    made = made_by(where, "the data", DataError)
    if isinstance(made, Data):
        return made
    if not isinstance(made, tuple) or len(cast(tuple[Any, ...], made)) != 2:
        raise DataError(f"{where} returns {type(made).__name__}; it should return (x, y) or a whit.Data")
    x, y = cast(tuple[Any, Any], made)
    return x, np.asarray(y)
