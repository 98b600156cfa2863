"""One trial, wherever it is done: by this process, another, or another machine."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from time import time
from typing import Any

from whit.compress import draft
from whit.data import Data
from whit.errors import WhitError, WorkersError
from whit.metrics import Metric
from whit.plan import Plan
from whit.progress import Progress
from whit.search.trials import Outcome
from whit.search.watch import OutOfTime, Watch
from whit.store import Profile

__all__ = ["Task", "tried"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A trial, as whoever does it gets it."""

    model: Any
    plan: Plan
    data: Data
    metric: Metric
    profile: Profile
    teacher: Any
    checkpoints: Path
    end: float | None


def tried(task: Task, progress: Progress | None = None) -> tuple[Outcome, bytes] | None:
    """What came of a trial, wherever this runs; None if the time was over."""
    start = time()
    try:
        with _one_thread():
            made = draft(
                task.model,
                task.plan,
                data=task.data,
                metric=task.metric,
                profile=task.profile,
                teacher=task.teacher,
                checkpoints=task.checkpoints,
                progress=progress or Watch(Progress(), task.end),
            )
    except OutOfTime:
        return None
    except WorkersError:
        raise
    except WhitError as error:
        return Outcome(seconds=time() - start, failure=str(error)), b""
    if not isfinite(made.quality):
        return Outcome(seconds=time() - start, failure=f"{task.metric.name} gives {made.quality} for its outputs"), b""
    outcome = Outcome(
        seconds=time() - start, quality=made.quality, bytes=len(made.file), macs=made.macs, skipped=made.skipped
    )
    return outcome, made.file


@contextmanager
def _one_thread() -> Generator[None]:
    """Sums come out the same on one thread, wherever they are made."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
