"""Samples: what networks are calibrated, trained and judged on."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from whit.errors import DataError, listed

__all__ = ["Array", "Data", "Images", "Samples", "arrays", "as_data"]

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Images:
    """How stored images become what the network reads: ``(x * scale - mean) / std``, channels first.

    Attributes:
        scale: Applied first, e.g. 1 / 255 for bytes.
        mean: One number a channel, or one for all.
        std: Likewise.
        layout: How the images are stored; ``"NHWC"`` is turned into ``"NCHW"``.

    >>> Images(scale=0.5, mean=(1.0,), layout="NHWC")(np.full((1, 2, 2, 3), 4, np.uint8)).shape
    (1, 3, 2, 2)
    """

    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    layout: Literal["NCHW", "NHWC"] = "NCHW"

    def __post_init__(self) -> None:
        if not all(value > 0 for value in self.std):
            raise DataError(f"Images(std={self.std}): standard deviations are positive")

    def __call__(self, x: Array) -> Array:
        """A batch of images, float32, channels first."""
        if x.ndim != 4:
            raise DataError(f"images have four axes ({self.layout}), these have shape {x.shape}")
        channels = x.shape[1 if self.layout == "NCHW" else 3]
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                raise DataError(
                    f"{name} has {len(values)} values, images stored as {self.layout} with shape {x.shape} have "
                    f"{channels} channels; give one value a channel and check the layout"
                )
        if self.layout == "NHWC":
            x = x.transpose(0, 3, 1, 2)
        mean = np.array(self.mean, np.float32).reshape(1, -1, 1, 1)
        std = np.array(self.std, np.float32).reshape(1, -1, 1, 1)
        return np.ascontiguousarray((x.astype(np.float32) * np.float32(self.scale) - mean) / std)


@dataclass(frozen=True, slots=True)
class Samples:
    """Inputs and what they should give, checked.

    Attributes:
        inputs: One array for each argument of the network, samples along the first axis.
        targets: Labels (integers) or values, samples along the first axis.
        images: Applied to the first input, batch by batch.
    """

    inputs: tuple[Array, ...]
    targets: Array
    images: Images | None = None
    name: str = field(default="data", kw_only=True)

    def __post_init__(self) -> None:
        if not self.inputs:
            raise DataError(f"the {self.name} has no inputs")
        if any(x.ndim == 0 for x in (*self.inputs, self.targets)):
            raise DataError(f"the {self.name} holds a single number where an array of samples is needed")
        lengths = {f"input {place}": len(x) for place, x in enumerate(self.inputs)} | {"targets": len(self.targets)}
        if len(set(lengths.values())) > 1:
            given = ", ".join(f"{name}: {length}" for name, length in lengths.items())
            raise DataError(f"the {self.name} has unequal numbers of samples ({given})")
        if len(self) == 0:
            raise DataError(f"the {self.name} is empty; give at least one sample")
        for name, array in [*((f"input {place}", x) for place, x in enumerate(self.inputs)), ("targets", self.targets)]:
            if array.dtype.kind not in "fiub":
                raise DataError(f"the {self.name}'s {name} has dtype {array.dtype}; numbers are needed")
            bad = int(array.size - np.isfinite(array).sum()) if array.dtype.kind == "f" else 0
            if bad:
                raise DataError(f"the {self.name}'s {name} holds {bad} NaN or infinite values; remove or mend them")

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, places: slice | NDArray[np.intp]) -> tuple[tuple[Array, ...], Array]:
        """Inputs (float64 as float32) and targets of some samples."""
        inputs = [_single(x[places]) for x in self.inputs]
        if self.images is not None:
            inputs[0] = self.images(inputs[0])
        return tuple(inputs), self.targets[places]

    def call(self, batch: int) -> tuple[Array, ...]:
        """Inputs of the first ``batch`` samples, for a call that is timed.

        Raises:
            DataError: There are not so many.

        >>> [x.shape for x in Samples((np.zeros((9, 2)),), np.zeros(9)).call(4)]
        [(4, 2)]
        """
        if not 1 <= batch <= len(self):
            raise DataError(
                f"calls of {batch} samples cannot be timed on the {self.name}, which has {len(self)}; give more, or "
                "time calls of fewer"
            )
        return self.take(slice(0, batch))[0]

    def first(self, count: int) -> "Samples":
        """The first ``count``, or all where there are no more.

        >>> len(Samples((np.zeros((9, 2)),), np.zeros(9)).first(4))
        4
        """
        return replace(self, inputs=tuple(x[:count] for x in self.inputs), targets=self.targets[:count])

    def at(self, places: NDArray[np.intp]) -> "Samples":
        """Those at some places, as they are stored."""
        return replace(self, inputs=tuple(x[places] for x in self.inputs), targets=self.targets[places])

    def batches(self, size: int, most: int | None = None) -> Iterator[tuple[tuple[Array, ...], Array]]:
        """Batches in order, of the first ``most`` samples."""
        end = len(self) if most is None else min(most, len(self))
        for start in range(0, end, size):
            yield self.take(slice(start, min(start + size, end)))


@dataclass(frozen=True, slots=True)
class Data:
    """Samples to choose and train on, and samples for the last number; the second are never chosen on.

    Attributes:
        train: To calibrate and train on.
        test: For the last number.
        validation: For ``whit.search`` to choose by, best such that the original network was not trained on; without
            them it holds some of the training samples out.

    >>> data = Data.split(np.zeros((10, 3), np.float32), np.zeros(10, np.int64))
    >>> len(data.train), len(data.test)
    (8, 2)
    """

    train: Samples
    test: Samples
    validation: Samples | None = None

    def __post_init__(self) -> None:
        train = [x.shape[1:] for x in self.train.inputs]
        for kind, samples in (("test", self.test), ("validation", self.validation)):
            found = train if samples is None else [x.shape[1:] for x in samples.inputs]
            if train != found:
                raise DataError(
                    f"a training sample has shape {listed(map(str, train))}, a {kind} sample "
                    f"{listed(map(str, found))}; they must agree"
                )

    def choosing(self, *, held_out: float = 0.1, seed: int = 0) -> "Data":
        """Data to choose by: validation samples stand in for the test samples, which are not in it.

        Args:
            held_out: Without validation samples, the share of the training samples that become some, at random.
            seed: Of that.

        Raises:
            DataError: There are too few to hold any out.

        >>> data = Data.split(np.zeros((25, 3), np.float32), np.zeros(25, np.int64))
        >>> len(data.train), len(data.choosing().train), len(data.choosing().test)
        (20, 18, 2)
        """
        if self.validation is not None:
            return replace(self, test=self.validation, validation=None)
        train = self.train
        cut = len(train) - round(held_out * len(train))
        if not 0 < cut < len(train):
            raise DataError(
                f"{len(train)} training samples cannot be split into some to train on and a share of {held_out:g} to "
                "choose by; give more, or validation samples of their own (Data.of(..., validation=(x, y)))"
            )
        order = np.random.default_rng(seed).permutation(len(train))
        held = replace(train.at(np.sort(order[cut:])), name="validation data")
        return Data(train.at(np.sort(order[:cut])), held)

    @classmethod
    def of(
        cls,
        x: Array | Sequence[Array],
        y: Array,
        x_test: Array | Sequence[Array],
        y_test: Array,
        images: Images | None = None,
        validation: tuple[Array | Sequence[Array], Array] | None = None,
    ) -> "Data":
        """Data from arrays; a network with several inputs takes a sequence of arrays, ``validation`` is ``(x, y)``."""
        train = Samples(_several(x), np.asarray(y), images, name="training data")
        test = Samples(_several(x_test), np.asarray(y_test), images, name="test data")
        if validation is None:
            return cls(train, test)
        x, y = validation
        return cls(train, test, Samples(_several(x), np.asarray(y), images, name="validation data"))

    @classmethod
    def split(
        cls, x: Array | Sequence[Array], y: Array, *, held_out: float = 0.2, seed: int = 0, images: Images | None = None
    ) -> "Data":
        """Data from one set of samples, of which a random share is held out for the last number."""
        if not 0 < held_out < 1:
            raise DataError(f"held_out={held_out}: hold out a share between 0 and 1")
        whole = Samples(_several(x), np.asarray(y), images)
        order = np.random.default_rng(seed).permutation(len(whole))
        cut = len(whole) - max(1, round(held_out * len(whole)))
        if cut < 1:
            raise DataError("one sample cannot be split into training and test data; give more, or a test set")
        train, test = whole.at(np.sort(order[:cut])), whole.at(np.sort(order[cut:]))
        return cls(replace(train, name="training data"), replace(test, name="test data"))

    @classmethod
    def load(cls, path: str | Path, test: str | Path | None = None, images: Images | None = None) -> "Data":
        """Data from ``.npz`` files with arrays ``x`` and ``y``; without a test file a fifth is held out."""
        x, y = arrays(path)
        return cls.split(x, y, images=images) if test is None else cls.of(x, y, *arrays(test), images=images)


def arrays(path: str | Path) -> tuple[Array, Array]:
    """The arrays ``x`` and ``y`` of an ``.npz`` file.

    Raises:
        DataError: There is no such file, it is not an ``.npz`` of plain arrays, or lacks one of the two.
    """
    if not Path(path).is_file():
        raise DataError(f"there is no data file {path}; give the path of an .npz with arrays x and y")
    try:
        with Path(path).open("rb") as file:  # NumPy leaves it open when the archive is damaged
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, NpzFile):
                raise DataError(f"{path} holds a single array; save an .npz with arrays x and y (np.savez)")
            if missing := sorted({"x", "y"} - set(archive.files)):
                found = listed(archive.files)
                raise DataError(f"{path} has no array {listed(missing)}; it has {found}. Name the arrays x and y")
            return archive["x"], archive["y"]
    except (ValueError, OSError, EOFError, BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is not an .npz of plain arrays: {error}") from error


def _several(x: Array | Sequence[Array]) -> tuple[Array, ...]:
    return tuple(np.asarray(one) for one in x) if isinstance(x, list | tuple) else (np.asarray(x),)


def _single(x: Array) -> Array:
    return x.astype(np.float32) if x.dtype == np.float64 else x


def as_data(data: Data | tuple[Array | Sequence[Array], Array]) -> Data:
    """Data as it is, or ``(x, y)`` of which a fifth is held out."""
    return data if isinstance(data, Data) else Data.split(*data)
