"""Processes that ``torchrun`` started to make the same call together.

Every process goes through the whole plan, whose steps choose the same in each; in a training each takes its share of
every batch. What is measured, is measured by the first.
"""

import atexit
import gc
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

from whit.errors import WhitError, WorkersError

__all__ = ["Ranks", "group"]

Value = TypeVar("Value")

_PATIENCE = timedelta(hours=1)
"""How long the others wait for one; one that dies is noticed at once."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that make the same call; by itself it is the only one.

    Attributes:
        rank: Its place, from 0.
        count: How many there are.

    >>> Ranks().from_first(lambda: 7)
    7
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def here(cls) -> "Ranks":
        """As ``torchrun`` says; without it this process is alone."""
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            return cls()
        return cls(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))

    def from_first(self, make: Callable[[], Value]) -> Value:
        """What the first process makes, in every process; an error of whit's that it raises is raised in all.

        Raises:
            WorkersError: A process is gone.
        """
        if self.count == 1:
            return make()
        made: list[Any] = [None, None]
        if self.rank == 0:
            try:
                made[0] = make()
            except WhitError as error:
                made[1] = error
        self._call("broadcast_object_list", made, src=0)
        if made[1] is not None:
            raise made[1]
        return made[0]

    def every(self, value: Value) -> list[Value]:
        """The values of all processes, in their order."""
        found: list[Any] = [value] * self.count
        if self.count > 1:
            self._call("all_gather_object", found, value)
        return found

    def sum_(self, tensor: Any) -> None:
        """Make a torch tensor the sum of those of all processes, in place."""
        if self.count > 1:
            self._call("all_reduce", tensor)

    def copy_(self, tensor: Any) -> None:
        """Make a torch tensor that of the first process, in place."""
        if self.count > 1:
            self._call("broadcast", tensor, src=0)

    def _call(self, name: str, *args: Any, **options: Any) -> None:
        """A collective operation of ``torch.distributed``."""
        from torch import distributed

        try:
            getattr(distributed, name)(*args, **options, group=group())
        except RuntimeError as error:
            raise WorkersError(
                f"process {self.rank} of {self.count} waited for the others, of which one is gone: {error}. Look at "
                "what that one said last, and start again; with checkpoints the training goes on where it was"
            ) from error


@cache
def group() -> Any:
    """Of ``torch.distributed``, a group of all processes that takes tensors in main memory."""
    from torch import distributed

    if not distributed.is_initialized():
        distributed.init_process_group("gloo", timeout=_PATIENCE)
        atexit.register(_leave)
    return distributed.group.WORLD if distributed.get_backend() == "gloo" else distributed.new_group(backend="gloo")


def _leave() -> None:
    """End the group, unless whoever uses it did, and with it its threads.

    They must not outlive Python: one that lets go of a tensor after that aborts the process. torch joins them when
    nothing refers to the group any more, so that ending it is not enough. (torch's own caches go on referring to it
    after a training with ``sharded=True``.)
    """
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()
    group.cache_clear()
    gc.collect()
