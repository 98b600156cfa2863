"""The record of a search: what was tried and what came of it, in a SQLite file that survives being killed."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from whit.decide import Skipped
from whit.errors import FileError, OutputError
from whit.plan import Plan
from whit.search.candidates import Candidate
from whit.store import write_whole
from whit.toml import dumps, loads

__all__ = ["RECORD", "TRIALS", "Outcome", "Record", "Round", "Trial"]

RECORD = "search.sqlite"
TRIALS = "trials"
_TABLES = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS rounds (place INTEGER PRIMARY KEY, name TEXT NOT NULL, seconds REAL NOT NULL);
CREATE TABLE IF NOT EXISTS members (round INTEGER, place INTEGER, candidate TEXT NOT NULL, trial TEXT NOT NULL,
    PRIMARY KEY (round, place));
CREATE TABLE IF NOT EXISTS trials (hash TEXT PRIMARY KEY, plan TEXT NOT NULL, outcome TEXT NOT NULL);
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of a trial.

    Attributes:
        seconds: How long it took.
        quality: Of the ``.whit`` file on the validation samples.
        bytes: Of the ``.whit`` file.
        macs: Multiply-accumulates for one sample.
        latency_ms: One call, as measured beside the original at the start of the search.
        memory: Bytes of the peak, where the budget speaks of it.
        skipped: What could not be pruned or quantized, and why.
        failure: Why there is no such network; the figures mean nothing then.
    """

    seconds: float
    quality: float = 0.0
    bytes: int = 0
    macs: int = 0
    latency_ms: float = 0.0
    memory: int | None = None
    skipped: tuple[Skipped, ...] = ()
    failure: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A plan that is to be tried, or was.

    Attributes:
        candidate: What it is in its family.
        plan: Its steps.
        hash: Tells it from all others, on other data or with other versions too.
        outcome: None as long as it was not tried.
    """

    candidate: Candidate
    plan: Plan
    hash: str
    outcome: Outcome | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """Trials that were decided on together.

    Attributes:
        name: What kind of round it is.
        seconds: How long the search had taken when it was decided on.
        trials: In order.
    """

    name: str
    seconds: float
    trials: tuple[Trial, ...]


class Record:
    """The file ``search.sqlite`` in a folder, and the networks of trials beside it."""

    def __init__(self, folder: Path, about: Mapping[str, str]) -> None:
        """Open it, or begin one.

        Args:
            folder: Made if it is missing.
            about: What search it is, name by name; has to be what it was when the record was begun.

        Raises:
            OutputError: The folder holds another search, or cannot be written.
            FileError: What is there is no record.
        """
        self.folder = folder
        self.identity = sha256(json.dumps(dict(about), sort_keys=True).encode()).hexdigest()
        path = folder / RECORD
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, isolation_level=None)
            self._connection.executescript(_TABLES)
            self._check(about)
        except (OSError, sqlite3.OperationalError) as error:
            raise OutputError(f"cannot keep the record of a search in {folder}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise FileError(f"{path} is not the record of a search: {error}; choose another folder") from error

    def _check(self, about: Mapping[str, str]) -> None:
        with self._connection:
            there = dict(self._connection.execute("SELECT name, value FROM about"))
            if not there:
                rows = [*about.items(), ("seconds", "0")]
                self._connection.executemany("INSERT INTO about VALUES (?, ?)", rows)
                return
        other = [name for name, value in about.items() if there.get(name) != value]
        if other:
            given = "; ".join(f"{name} was {_short(there.get(name))} and is {_short(about[name])}" for name in other)
            raise OutputError(
                f"{self.folder} holds another search ({given}), so it cannot go on; choose another folder, or replace "
                "it with --overwrite"
            )

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    @property
    def seconds(self) -> float:
        """How long the search has taken so far, in all its sessions."""
        return float(self.fact("seconds") or 0)

    def spend(self, seconds: float) -> None:
        """Note how long it has taken by now."""
        self.remember("seconds", repr(seconds))

    def fact(self, name: str) -> str | None:
        """Something that was measured once and stands."""
        row = self._connection.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def remember(self, name: str, value: str) -> None:
        """Note something that was measured."""
        self._connection.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (name, value))

    def trial(self, candidate: Candidate, plan: Plan) -> Trial:
        """A trial with its outcome, if it was tried before."""
        found = sha256(f"{self.identity}\n{dumps(plan)}".encode()).hexdigest()[:16]
        return Trial(candidate=candidate, plan=plan, hash=found, outcome=self._outcome(found))

    def rounds(self) -> list[Round]:
        """All that were begun."""
        rows = self._connection.execute("SELECT place, name, seconds FROM rounds ORDER BY place").fetchall()
        return [Round(name=name, seconds=seconds, trials=self._trials(place)) for place, name, seconds in rows]

    def begin(self, name: str, trials: Sequence[Trial]) -> Round:
        """Note what was decided on, before it is done."""
        now = self.seconds
        self._connection.execute("BEGIN IMMEDIATE")
        with self._connection:
            place = self._connection.execute("SELECT COUNT(*) FROM rounds").fetchone()[0]
            self._connection.execute("INSERT INTO rounds VALUES (?, ?, ?)", (place, name, now))
            rows = [(place, at, json.dumps(asdict(one.candidate)), one.hash) for at, one in enumerate(trials)]
            self._connection.executemany("INSERT INTO members VALUES (?, ?, ?, ?)", rows)
            plans = [(one.hash, dumps(one.plan), "null") for one in trials]
            self._connection.executemany("INSERT OR IGNORE INTO trials VALUES (?, ?, ?)", plans)
        return Round(name=name, seconds=now, trials=tuple(trials))

    def keep(self, trial: Trial, outcome: Outcome, file: bytes) -> None:
        """Note what came of a trial; its file first, so that what is noted is there."""
        if outcome.failure is None:
            path = self.path(trial)
            path.parent.mkdir(exist_ok=True)
            write_whole(path, file)
        self._connection.execute(
            "UPDATE trials SET outcome = ? WHERE hash = ?", (json.dumps(asdict(outcome)), trial.hash)
        )

    def path(self, trial: Trial) -> Path:
        """The ``.whit`` file of a trial."""
        return self.folder / TRIALS / f"{trial.hash}.whit"

    def checkpoints(self, trial: Trial) -> Path:
        """Where the trainings of a trial keep their state."""
        return self.folder / TRIALS / trial.hash

    def _trials(self, place: int) -> tuple[Trial, ...]:
        query = "SELECT candidate, trial, plan FROM members JOIN trials ON trial = hash WHERE round = ? ORDER BY place"
        return tuple(
            Trial(candidate=Candidate(**json.loads(text)), plan=loads(plan), hash=name, outcome=self._outcome(name))
            for text, name, plan in self._connection.execute(query, (place,)).fetchall()
        )

    def _outcome(self, trial: str) -> Outcome | None:
        row = self._connection.execute("SELECT outcome FROM trials WHERE hash = ?", (trial,)).fetchone()
        content: dict[str, Any] | None = None if row is None else json.loads(row[0])
        if content is None:
            return None
        skipped = tuple(Skipped(**one) for one in content.pop("skipped"))
        return Outcome(**content, skipped=skipped)


def _short(value: str | None) -> str:
    return "unknown" if value is None else value if len(value) <= 60 else f"{value[:57]}..."
