"""A bound on what a file may ask for: values are looked at before any of them is computed."""

import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from whit.errors import ModelError

__all__ = ["bounded"]

_LARGEST = 1 << 29
"""Most elements that a value may have: 2 GB of float32."""


class _Bound(TorchDispatchMode):
    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor) and value.numel() > _LARGEST:
                raise ModelError(
                    f"{self.what} makes a value of shape {tuple(value.shape)}, more than the {_LARGEST:,} numbers that "
                    "whit takes from a file; give smaller inputs, or mend the file"
                )
        return result


@contextmanager
def bounded(what: str) -> Generator[FakeTensorMode]:
    """Run torch on shapes alone, and raise ``ModelError`` where ``what`` makes a value that is too large."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    level = log.level
    log.setLevel(logging.CRITICAL)  # what it logs, it raises too
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as mode, _Bound(what):
            yield mode
    finally:
        log.setLevel(level)
