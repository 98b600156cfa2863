"""Progress as bars on a terminal."""

from collections.abc import Generator
from contextlib import contextmanager
from threading import Lock, Timer

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from whit.progress import Bar, Progress

__all__ = ["Bars"]


class Bars(Progress):
    """Bars on stderr for whatever takes longer than a moment; nothing where stderr is not a terminal.

    A bar appears when its work has gone on for ``patience`` seconds and vanishes with it, so that what is short does
    not flicker.
    """

    def __init__(self, console: Console | None = None, *, patience: float = 2.0) -> None:
        """Bars on a console, by default stderr."""
        self._console = console or Console(stderr=True)
        self._patience = patience
        self._lock = Lock()
        self._visible = 0
        self._display = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=self._console,
            transient=True,
        )

    @contextmanager
    def bar(self, what: str, total: float) -> Generator[Bar]:
        """A bar for ``total`` steps; what has only one shows that it goes on, not how far."""
        if not self._console.is_terminal:
            with super().bar(what, total) as quiet:
                yield quiet
            return
        task = self._display.add_task(what, total=total if total > 1 else None, visible=False, note="")
        timer = Timer(self._patience, self._show, [task])
        timer.daemon = True
        timer.start()
        try:
            yield _Task(self._display, task)
        finally:
            timer.cancel()
            self._hide(task)

    def _show(self, task: TaskID) -> None:
        with self._lock:
            if task not in self._display.task_ids:  # it ended while the timer went off
                return
            self._display.update(task, visible=True)
            self._visible += 1
            self._display.start()

    def _hide(self, task: TaskID) -> None:
        with self._lock:
            was_visible = next(one.visible for one in self._display.tasks if one.id == task)
            self._visible -= was_visible
            if self._visible == 0:
                self._display.stop()
            self._display.remove_task(task)


class _Task:
    def __init__(self, display: RichProgress, task: TaskID) -> None:
        self._display = display
        self._task = task

    def advance(self, steps: float = 1, note: str = "") -> None:
        """Some steps are done."""
        self._display.update(self._task, advance=steps, note=note)
