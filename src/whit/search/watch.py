"""A clock that a search keeps to: every bar that advances looks at it."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from time import time

from whit.progress import Bar, Progress

__all__ = ["OutOfTime", "Watch"]

_EVERY = 2.0
"""Seconds between two notes of the time."""


class OutOfTime(Exception):  # noqa: N818 (it is no error)
    """The time is over, and what was under way is given up."""


class Watch(Progress):
    """Shows what another progress shows, and gives up when the time is over."""

    def __init__(self, shown: Progress, end: float | None, note: Callable[[], None] | None = None) -> None:
        """Until ``end``, seconds since the epoch; ``note`` is called every two seconds."""
        self._shown, self._end, self._note = shown, end, note
        self._last = time()

    @contextmanager
    def bar(self, what: str, total: float) -> Generator[Bar]:
        """A bar that looks at the clock, as it begins and whenever it advances."""
        self.look()
        with self._shown.bar(what, total) as bar:
            yield _Watched(self, bar)

    def look(self) -> None:
        """Raise ``OutOfTime`` if it is."""
        now = time()
        if self._note is not None and now - self._last > _EVERY:
            self._last = now
            self._note()
        if self._end is not None and now > self._end:
            raise OutOfTime


class _Watched:
    def __init__(self, watch: Watch, bar: Bar) -> None:
        self._watch, self._bar = watch, bar

    def advance(self, steps: float = 1, note: str = "") -> None:
        """Some steps are done."""
        self._bar.advance(steps, note)
        self._watch.look()
