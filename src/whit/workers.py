"""Who does tasks that do not depend on each other: this process, others on this machine, or a Ray cluster.

Whoever it is, results come in the order of the tasks and are the same. A worker that is killed costs the time of the
task it was at, which is done again.
"""

import logging
import os
import pickle
import socket
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeVar

from whit.errors import PlanError, WorkersError

__all__ = ["Processes", "Ray", "Workers"]

Task = TypeVar("Task")
Done = TypeVar("Done")

_TRIES = 3
"""How often a task is begun that takes its worker down with it."""
_PARTS = 4
_PATIENCE = 10.0
"""Seconds in which a cluster answers."""


@dataclass(frozen=True, slots=True)
class Workers:
    """This process, one task after the other.

    >>> list(Workers().map(abs, [-1, 2]))
    [1, 2]
    """

    def parts(self, tasks: int) -> int:
        """Into how many tasks work that falls into ``tasks`` small ones is best put together."""
        return tasks

    def map(self, function: Callable[[Task], Done], tasks: Sequence[Task]) -> Iterator[Done]:
        """What ``function``, which stands in a module, makes of each task, in order.

        Raises:
            WorkersError: Workers die at a task again and again, or cannot be reached. What the function raises, it
                raises here as well.
        """
        yield from map(function, tasks)


@dataclass(frozen=True, slots=True)
class Processes(Workers):
    """Processes on this machine, of one thread each; what they run is imported anew in each.

    Attributes:
        count: How many.
    """

    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise PlanError(f"Processes(count={self.count}): it takes at least one to do anything")

    def parts(self, tasks: int) -> int:
        """A few for each worker: less to hand over, and still none waits long for the last."""
        return min(tasks, _PARTS * self.count)

    def map(self, function: Callable[[Task], Done], tasks: Sequence[Task]) -> Iterator[Done]:
        """As ``Workers.map``; tasks and results are pickled between processes of this machine, never in files."""
        _check_portable(tasks)
        done = 0
        begun: Counter[int] = Counter()
        while done < len(tasks):
            with self._pool() as pool:
                futures = [pool.submit(function, task) for task in tasks[done:]]
                try:
                    for future in futures:
                        yield future.result()
                        done += 1
                except BrokenExecutor as error:
                    begun[done] += 1
                    if begun[done] == _TRIES:
                        raise WorkersError(
                            f"workers died {_TRIES} times at task {done + 1} of {len(tasks)}, killed from outside or "
                            "by the system for want of memory; take fewer workers"
                        ) from error

    @contextmanager
    def _pool(self) -> Generator[Executor]:
        """A pool that lets go of what has not begun when somebody stops asking."""
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import get_context

        pool = ProcessPoolExecutor(self.count, mp_context=get_context("spawn"), initializer=_alone)
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)


@dataclass(frozen=True, slots=True)
class Ray(Workers):
    """A Ray cluster, whose machines have whit and see the same files; ``pip install 'whit[ray]'``.

    Ray's own report of its use is switched off.

    Attributes:
        address: Of the cluster, such as ``ray://head:10001``; ``local`` starts one on this machine.
        count: With ``local``, how many workers it has; None is one a processor.
    """

    address: str
    count: int | None = None

    def parts(self, tasks: int) -> int:
        """As ``Processes.parts``, of 16 workers where nothing says how many there are."""
        return min(tasks, _PARTS * (self.count or 16))

    def map(self, function: Callable[[Task], Done], tasks: Sequence[Task]) -> Iterator[Done]:
        """As ``Workers.map``."""
        ray = self._connected()
        try:
            remote = ray.remote(max_retries=_TRIES - 1)(_done)
            for place, one in enumerate([remote.remote(function, task) for task in tasks]):
                try:
                    yield ray.get(one)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from error
                except ray.exceptions.RayError as error:
                    raise WorkersError(
                        f"task {place + 1} of {len(tasks)} is lost on {self.address}: {error}"
                    ) from error
        finally:
            ray.shutdown()

    def _connected(self) -> Any:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        try:
            ray = import_module("ray")
        except ModuleNotFoundError as error:
            raise WorkersError(f"a Ray cluster needs {error.name}: pip install 'whit[ray]'") from error
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if self.address == "local":
                ray.init(address="local", num_cpus=self.count, include_dashboard=False, **quiet)
            else:
                self._answers()
                ray.init(address=self.address, **quiet)
        except (OSError, ray.exceptions.RayError, RuntimeError, ValueError) as error:
            raise WorkersError(
                f"there is no Ray cluster at {self.address}: {error}. Start one with ray start --head, or take "
                "workers of this machine"
            ) from error
        return ray

    def _answers(self) -> None:
        """Raise ``OSError`` at once where nobody is there; Ray itself tries for minutes."""
        host, _, port = self.address.removeprefix("ray://").rpartition(":")
        if port.isdigit():
            socket.create_connection((host, int(port)), timeout=_PATIENCE).close()


def _check_portable(tasks: Sequence[Any]) -> None:
    """Raise ``WorkersError`` for tasks that cannot be handed to another process."""
    try:
        pickle.dumps(tasks[:1])
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise WorkersError(
            f"the work cannot be handed to other processes: {error}. Define the network's class at the top of a "
            "module, or do without workers"
        ) from error


def _alone() -> None:
    """One thread for this process: there is a worker for every core, not a team for each worker."""
    os.environ["OMP_NUM_THREADS"] = "1"
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _done(function: Callable[[Task], Done], task: Task) -> Done:
    """A task as Ray takes it: by a function of Python's own kind."""
    return function(task)
