"""What the demo starts from: a trained network, its data and the limit, in one folder."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from safetensors.torch import save

from whit.demo.answer_sheets import EXAM, Exam, Seed, generate, generate_batches, sit_exam
from whit.demo.limit import mean_absolute_error, posterior_mean_iq
from whit.demo.network import make_network
from whit.demo.training import train
from whit.errors import OutputError, listed
from whit.progress import Progress

__all__ = ["Prepared", "Settings", "prepare"]

WEIGHTS, TRAIN, TEST = FILES = ("original.safetensors", "train.npz", "test.npz")
SETTINGS = "demo.json"

REVISION = 1
"""To be raised when the code changes what the same settings give."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What the files of ``prepare`` depend on.

    Every batch of the training shows sheets of new people, so that there is nothing to learn by heart.

    Attributes:
        exam: The exam that everybody sits.
        train_sheets: Sheets in ``train.npz``.
        test_sheets: Sheets in ``test.npz``.
        steps: Batches to train on.
        batch_size: Sheets in each of them.
        learning_rate: The highest of the training.
        width: Multiplies the network's channels.
        seed: Fixes the weights at the start, and all people.
    """

    exam: Exam = EXAM
    train_sheets: int = 20_000
    test_sheets: int = 10_000
    steps: int = 550
    batch_size: int = 256
    learning_rate: float = 4e-3
    width: float = 1.0
    seed: int = 0

    def fingerprint(self) -> str:
        """Equal for equal settings of the same revision of the demo."""
        content = json.dumps({"revision": REVISION, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def people(self, file: str) -> tuple[int, ...]:
        """The seed of the people behind one of the files, for no one may be in two of them."""
        return self.seed, FILES.index(file)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """The files of ``prepare``, whole and up to date.

    Attributes:
        weights: The trained weights of ``make_network(width=settings.width)``, as safetensors.
        train: ``x``, float32 [20000, 3, 32, 32], and ``y``, float32 [20000, 1] in IQ points.
        test: Likewise for 10,000 other people.
        limit: Mean absolute error of the posterior-mean estimator on the test sheets, in IQ points.
    """

    weights: Path
    train: Path
    test: Path
    limit: float


def prepare(folder: str | Path, progress: Progress | None = None, *, settings: Settings | None = None) -> Prepared:
    """Leave data and a trained network in ``folder``; reuse those that the same settings left there.

    Every file is written beside its place and renamed, so a run that is cut short leaves whole files only,
    and the next goes on with those that are missing.

    Args:
        folder: Made when it is not there.
        progress: Shows what takes long.
        settings: Other sizes than those of the demo.

    Raises:
        OutputError: ``folder`` cannot be written, or holds files of these names that are not from here.
    """
    folder, progress, settings = Path(folder), progress or Progress(), settings or Settings()
    try:
        _claim(folder, settings)
        _write_missing(folder, settings, progress)
    except OSError as error:
        raise OutputError(f"the demo cannot be prepared in {folder}: {error}; name another folder") from error
    return Prepared(weights=folder / WEIGHTS, train=folder / TRAIN, test=folder / TEST, limit=_limit(settings))


def _claim(folder: Path, settings: Settings) -> None:
    """Remove what other settings left; afterwards every file in its place belongs to ``settings``.

    The settings are replaced last: after a kill before that, the removal is done again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    there = [folder / name for name in FILES if (folder / name).exists()]
    claimed = _fingerprint(folder)
    if claimed is None and there:
        names = listed(path.name for path in there)
        raise OutputError(f"{folder} holds {names} but no {SETTINGS}: they are not the demo's; name another folder")
    for name in (*FILES, SETTINGS):
        for leftover in folder.glob(f".{name}.*.part"):
            leftover.unlink()
    if claimed != settings.fingerprint():
        for path in there:
            path.unlink()
        content = json.dumps({"fingerprint": settings.fingerprint(), **asdict(settings)}, indent=2) + "\n"
        _write_whole(folder / SETTINGS, lambda path: path.write_text(content))


def _fingerprint(folder: Path) -> str | None:
    """The fingerprint of the settings that the files in ``folder`` belong to; none in a fresh folder."""
    path = folder / SETTINGS
    if not path.exists():
        return None
    try:
        return str(json.loads(path.read_text())["fingerprint"])
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{path} is not the demo's: it has no fingerprint; remove it or name another folder"
        ) from error


def _write_missing(folder: Path, settings: Settings, progress: Progress) -> None:
    def train_sheets(path: Path) -> None:
        _write_sheets(path, settings.train_sheets, settings.people(TRAIN), settings.exam)

    def test_sheets(path: Path) -> None:
        _write_sheets(path, settings.test_sheets, settings.people(TEST), settings.exam)

    def weights(path: Path) -> None:
        _write_weights(path, settings, progress)

    for name, write in ((TRAIN, train_sheets), (TEST, test_sheets), (WEIGHTS, weights)):
        if not (folder / name).exists():
            _write_whole(folder / name, write)


def _write_sheets(path: Path, count: int, people: Seed, exam: Exam) -> None:
    sheets, iq = generate(count, people, exam)
    with path.open("wb") as file:
        np.savez(file, x=sheets, y=iq)


def _write_weights(path: Path, settings: Settings, progress: Progress) -> None:
    network = make_network(settings.seed, width=settings.width)
    batches = generate_batches(settings.steps, settings.batch_size, settings.people(WEIGHTS), settings.exam)
    train(network, batches, steps=settings.steps, learning_rate=settings.learning_rate, progress=progress)
    path.write_bytes(save(network.state_dict()))


def _limit(settings: Settings) -> float:
    answers = sit_exam(settings.test_sheets, settings.people(TEST), settings.exam)
    return mean_absolute_error(posterior_mean_iq(answers, settings.exam), answers.iq)


def _write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside ``path`` and rename: ``path`` is either whole or not there."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
