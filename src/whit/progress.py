"""Progress on whatever takes longer than a moment."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol

__all__ = ["Bar", "Progress"]


class Bar(Protocol):
    """One thing that is under way."""

    def advance(self, steps: float = 1, note: str = "") -> None:
        """Some steps are done; ``note`` is shown beside the bar."""
        ...


class Progress:
    """Shows nothing; subclasses show bars."""

    @contextmanager
    def bar(self, what: str, total: float) -> Generator[Bar]:
        """A bar for ``total`` steps, there while the context lasts."""
        yield _NoBar()


class _NoBar:
    def advance(self, steps: float = 1, note: str = "") -> None:
        """Nothing to show."""
