"""A log of what takes long, for benchmarks that run in the background."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from time import monotonic

from whit.progress import Bar, Progress

__all__ = ["Log"]


class Log(Progress):
    """A line on stderr when something begins, now and then while it goes on, and when it ends."""

    def __init__(self, seconds: float = 30.0) -> None:
        """A line every so many ``seconds``."""
        self.seconds = seconds
        self.start = monotonic()

    @contextmanager
    def bar(self, what: str, total: float) -> Generator[Bar]:
        """One thing that is under way."""
        line = _Line(self, what, total)
        line.say("begins")
        yield line
        line.say("done")


class _Line:
    def __init__(self, log: Log, what: str, total: float) -> None:
        self.log, self.what, self.total = log, what, total
        self.done = 0.0
        self.last = monotonic()

    def advance(self, steps: float = 1, note: str = "") -> None:
        """Some steps are done."""
        self.done += steps
        if monotonic() - self.last >= self.log.seconds:
            self.say(f"{self.done:g} of {self.total:g} {note}")

    def say(self, text: str) -> None:
        """One line."""
        self.last = monotonic()
        print(f"{self.last - self.log.start:8.0f} s  {self.what}: {text}", file=sys.stderr, flush=True)
